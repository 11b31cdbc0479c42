//! The gatekeeper: checks every step of a program and gives each value's shape, scale and form.

use trefoil_ring::geometry::{GeometryError, Pool2d};

use super::{
    Bilinear, Form, Linear, MAX_ELEMENTS, MAX_RANK, MAX_RATES, Op, Program, ProgramError, Rows, Step, ValueId,
    ValueInfo, Window, index_bits,
};
use crate::limits;

mod training;

impl Program {
    /// Checks every step and gives each value's shape, scale and form. A program from a peer is trusted only after this.
    pub fn infer(&self) -> Result<Vec<ValueInfo>, ProgramError> {
        let whole = |op: &str, reason| ProgramError { step: 0, op: op.into(), layer: String::new(), reason };
        limits::outline(self).map_err(|e| whole("all", e))?;
        let mut values: Vec<ValueInfo> = Vec::with_capacity(self.steps.len());
        for (i, step) in self.steps.iter().enumerate() {
            let fail =
                |reason: String| ProgramError { step: i, op: step.op.name().into(), layer: step.layer.clone(), reason };
            let known = Known { program: self, values: &values };
            let info = known.result(i, &step.op).map_err(fail)?;
            if info.shape.len() > MAX_RANK {
                return Err(fail(format!("{} dimensions: at most {MAX_RANK}", info.shape.len())));
            }
            let count = trefoil_ring::tensor::elements(&info.shape).map_err(|e| fail(e.to_string()))?;
            if count == 0 || count > MAX_ELEMENTS {
                return Err(fail(format!("{count} elements: must be 1 to {MAX_ELEMENTS}")));
            }
            values.push(info);
        }
        if values.is_empty() {
            return Err(whole("none", "no steps".into()));
        }
        if limits::largest_batch(self, &values) == 0 {
            return Err(whole("all", "one sample takes more memory or computation than a run may".into()));
        }
        Ok(values)
    }

    /// Refuses a program that is not a prediction: one that trains, or that mixes the samples of a batch. Gives each
    /// value's shape, scale and form.
    pub fn check_prediction(&self) -> Result<Vec<ValueInfo>, ProgramError> {
        let values = self.infer()?;
        let fail = |step: usize, reason: &str| {
            let Step { layer, op } = &self.steps[step];
            Err(ProgramError { step, op: op.name().into(), layer: layer.clone(), reason: reason.into() })
        };
        if !self.states.is_empty() || self.rates > 0 {
            return fail(0, "a prediction has neither states nor public numbers");
        }
        for (i, (step, value)) in self.steps.iter().zip(&values).enumerate() {
            if matches!(step.op, Op::Rows | Op::Pattern { .. } | Op::Likelihoods { .. }) {
                return fail(i, "not in a prediction");
            }
            if value.rows == Rows::One {
                return fail(i, "a prediction keeps its samples apart");
            }
        }
        Ok(values)
    }

    /// Checks the program and gives the largest batch that it may be run on: larger ones could exhaust a server.
    pub fn largest_batch(&self) -> Result<usize, ProgramError> {
        Ok(limits::largest_batch(self, &self.infer()?))
    }
}

/// What is known before a step: the program, and the values of the steps before it.
struct Known<'a> {
    program: &'a Program,
    values: &'a [ValueInfo],
}

impl<'a> Known<'a> {
    fn get(&self, id: ValueId) -> Result<&'a ValueInfo, String> {
        self.values.get(id).ok_or_else(|| format!("value {id} does not exist yet"))
    }

    fn of_form(&self, id: ValueId, form: Form) -> Result<&'a ValueInfo, String> {
        let v = self.get(id)?;
        if v.form == form { Ok(v) } else { Err(format!("value {id} is {:?}, must be {form:?}", v.form)) }
    }

    /// A ring value, additive or masked.
    fn arithmetic(&self, id: ValueId) -> Result<&'a ValueInfo, String> {
        let v = self.get(id)?;
        match v.form {
            Form::Additive | Form::Masked => Ok(v),
            _ => Err(format!("value {id} is {:?}, must be Additive or Masked", v.form)),
        }
    }

    /// The value that step `index` gives, or what is wrong with the step.
    fn result(&self, index: usize, op: &Op) -> Result<ValueInfo, String> {
        if matches!(op, Op::Input | Op::Rows) != (index == 0) {
            return Err("the input is step 0 and only step 0".into());
        }
        if matches!(op, Op::Reveal { .. }) && index + 1 != self.program.steps.len() {
            return Err("a reveal is the last step and only the last step".into());
        }
        if self.program.rates > MAX_RATES {
            return Err(format!("{} public numbers a step: at most {MAX_RATES}", self.program.rates));
        }
        let additive = |v: &ValueInfo, shape: Vec<usize>, scale: u32| ValueInfo {
            shape,
            scale,
            form: Form::Additive,
            rows: v.rows,
        };
        let geometry = |e: GeometryError| e.to_string();
        match op {
            Op::Input | Op::Rows => {
                let f = self.program.fraction_bits;
                if !(1..=30).contains(&f) {
                    return Err(format!("{f} fraction bits: must be 1 to 30"));
                }
                let form = if *op == Op::Input { Form::Additive } else { Form::Masked };
                Ok(ValueInfo { shape: self.program.input_shape.clone(), scale: f, form, rows: Rows::Each })
            }
            Op::Open { x } => {
                let v = self.of_form(*x, Form::Additive)?;
                Ok(ValueInfo { form: Form::Masked, ..v.clone() })
            }
            Op::Linear { x, weights, bias, map } => {
                let v = self.of_form(*x, Form::Masked)?;
                let w = self.program.weights.get(*weights).ok_or_else(|| format!("weights {weights} do not exist"))?;
                let shape = match map {
                    Linear::Dense { inputs, outputs } => {
                        if v.shape.last() != Some(inputs) || *outputs == 0 {
                            return Err(format!("dense of {inputs} inputs on a value of shape {:?}", v.shape));
                        }
                        let mut s = v.shape.clone();
                        s.pop();
                        s.push(*outputs);
                        s
                    }
                    Linear::Conv(g) => {
                        if v.shape != [g.input.0, g.input.1, g.in_channels] {
                            return Err(format!(
                                "convolution of {:?} x {} on a value of shape {:?}",
                                g.input, g.in_channels, v.shape
                            ));
                        }
                        let (h, w) = g.output().map_err(geometry)?;
                        vec![h, w, g.out_channels]
                    }
                };
                if w.shape != map.weight_shape() {
                    return Err(format!(
                        "weights {} have shape {:?}, must have {:?}",
                        w.name,
                        w.shape,
                        map.weight_shape()
                    ));
                }
                let scale = more_bits(v, w.scale)?;
                if let Some(b) = bias {
                    let b = self.program.weights.get(*b).ok_or_else(|| format!("bias {b} does not exist"))?;
                    if b.shape != [map.outputs()] || b.scale != scale {
                        return Err(format!(
                            "bias {} has shape {:?} at scale {}, must have [{}] at {scale}",
                            b.name,
                            b.shape,
                            b.scale,
                            map.outputs()
                        ));
                    }
                }
                Ok(additive(v, shape, scale))
            }
            Op::Slice { x, axis, start, len } => {
                let v = self.arithmetic(*x)?;
                let fits = v.shape.get(*axis).is_some_and(|d| start.checked_add(*len).is_some_and(|end| end <= *d));
                if !fits {
                    return Err(format!("{len} from {start} along axis {axis} of shape {:?}", v.shape));
                }
                let mut shape = v.shape.clone();
                shape[*axis] = *len;
                Ok(ValueInfo { shape, ..v.clone() })
            }
            Op::Truncate { x, shift } => {
                let v = self.of_form(*x, Form::Masked)?;
                if *shift == 0 || *shift > v.scale {
                    return Err(format!("shift {shift} at scale {}", v.scale));
                }
                Ok(additive(v, v.shape.clone(), v.scale - shift))
            }
            Op::Relu { x, shift, window, compare } => {
                let v = self.of_form(*x, Form::Masked)?;
                check_window(*window)?;
                compare.check()?;
                if *shift > v.scale || window.lo > *shift {
                    return Err(format!("shift {shift} at scale {} with a window from bit {}", v.scale, window.lo));
                }
                Ok(additive(v, v.shape.clone(), v.scale - shift))
            }
            Op::MaxPool { x, pool, window, compare } => {
                let v = self.of_form(*x, Form::Masked)?;
                check_window(*window)?;
                compare.check()?;
                Ok(additive(v, pooled(v, pool)?, v.scale))
            }
            Op::AveragePool { x, pool, extra } => {
                let v = self.arithmetic(*x)?;
                if *extra > 20 {
                    return Err(format!("{extra} more fraction bits: at most 20"));
                }
                Ok(ValueInfo { shape: pooled(v, pool)?, scale: more_bits(v, *extra)?, ..v.clone() })
            }
            Op::Scale { x, extra, .. } => {
                let v = self.arithmetic(*x)?;
                Ok(ValueInfo { scale: more_bits(v, *extra)?, ..v.clone() })
            }
            Op::Offset { x, .. } => Ok(self.arithmetic(*x)?.clone()),
            Op::Add { x, y } => {
                let (a, b) = (self.arithmetic(*x)?, self.arithmetic(*y)?);
                if a.scale != b.scale || a.form != b.form || !broadcasts(a, b) {
                    return Err(format!("operands differ: {a:?} and {b:?}"));
                }
                Ok(a.clone())
            }
            Op::Concat { xs, axis } => {
                let first = self.arithmetic(*xs.first().ok_or("nothing to join")?)?;
                let mut shape = first.shape.clone();
                if *axis >= shape.len() {
                    return Err(format!("axis {axis} of shape {shape:?}"));
                }
                for id in &xs[1..] {
                    let v = self.arithmetic(*id)?;
                    let fits = v.scale == first.scale
                        && v.rows == first.rows
                        && v.form == first.form
                        && v.shape.len() == shape.len()
                        && v.shape.iter().zip(&shape).enumerate().all(|(d, (a, b))| d == *axis || a == b);
                    if !fits {
                        return Err(format!("operands differ: {first:?} and {v:?}"));
                    }
                    shape[*axis] = shape[*axis].checked_add(v.shape[*axis]).ok_or("too large")?;
                }
                Ok(ValueInfo { shape, ..first.clone() })
            }
            Op::Reshape { x, shape } => {
                let v = self.arithmetic(*x)?;
                let n = trefoil_ring::tensor::elements(shape).map_err(|e| e.to_string())?;
                if n != v.elements() {
                    return Err(format!("shape {:?} cannot become {shape:?}", v.shape));
                }
                Ok(ValueInfo { shape: shape.clone(), ..v.clone() })
            }
            Op::Pad { x, pads } => {
                let v = self.arithmetic(*x)?;
                let [h, w, c] = v.shape[..] else { return Err(format!("padding of shape {:?}", v.shape)) };
                let grown =
                    |n: usize, a: usize, b: usize| n.checked_add(a).and_then(|n| n.checked_add(b)).ok_or("too large");
                Ok(ValueInfo {
                    shape: vec![grown(h, pads.top, pads.bottom)?, grown(w, pads.left, pads.right)?, c],
                    ..v.clone()
                })
            }
            Op::Argmax { x, window, compare } => {
                let v = self.of_form(*x, Form::Masked)?;
                check_window(*window)?;
                compare.check()?;
                let [n] = v.shape[..] else { return Err(format!("argmax over shape {:?}", v.shape)) };
                if !(2..=128).contains(&n) {
                    return Err(format!("argmax of {n} values: 2 to 128 are supported (all pairs are compared)"));
                }
                Ok(ValueInfo { shape: vec![index_bits(n)], scale: 0, form: Form::Bits, rows: v.rows })
            }
            Op::Reveal { x, shift } => {
                if index + 1 != self.program.steps.len() {
                    return Err("a reveal ends the program: nothing may follow".into());
                }
                let v = self.get(*x)?;
                let fits = match v.form {
                    Form::Additive => *shift <= v.scale,
                    Form::Bits => *shift == 0,
                    Form::Masked | Form::Choice | Form::Public => false,
                };
                if !fits {
                    return Err(format!(
                        "{:?} at scale {} cannot be revealed with a shift of {shift}",
                        v.form, v.scale
                    ));
                }
                // Finer than that, an answer would show the coins that the hidden layers' truncations tossed.
                if v.scale - shift > self.program.fraction_bits {
                    return Err(format!(
                        "an answer of {} fraction bits: at most {}",
                        v.scale - shift,
                        self.program.fraction_bits
                    ));
                }
                Ok(ValueInfo { scale: v.scale - shift, ..v.clone() })
            }
            _ => self.result_in_training(index, op),
        }
    }
}

/// Whether the rows and shape of `b` fit those of `a`, or can be repeated to fit.
fn broadcasts(a: &ValueInfo, b: &ValueInfo) -> bool {
    a.shape.ends_with(&b.shape) && (a.rows == b.rows || b.rows == Rows::One)
}

/// The scale of a value with `more` fraction bits.
fn more_bits(v: &ValueInfo, more: u32) -> Result<u32, String> {
    let scale = v.scale.checked_add(more).filter(|s| *s <= limits::MAX_SCALE);
    scale.ok_or_else(|| format!("{more} more fraction bits at scale {}: at most {} in all", v.scale, limits::MAX_SCALE))
}

pub(super) fn check_window(w: Window) -> Result<(), String> {
    if !(2..=64).contains(&w.k) || w.lo > 64 - w.k {
        return Err(format!("window of {} bits from bit {}", w.k, w.lo));
    }
    Ok(())
}

fn pooled(v: &ValueInfo, pool: &Pool2d) -> Result<Vec<usize>, String> {
    if v.shape != [pool.input.0, pool.input.1, pool.channels] {
        return Err(format!("pool over {:?} x {} on a value of shape {:?}", pool.input, pool.channels, v.shape));
    }
    let (h, w) = pool.output().map_err(|e| e.to_string())?;
    Ok(vec![h, w, pool.channels])
}
