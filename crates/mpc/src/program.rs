//! The seam between learning and protocol: a network as a list of typed steps over shared values.
//!
//! A [`Program`] is plain data. The model owner's side compiles it from a graph, every party checks it with
//! [`Program::infer`], agrees on its [`Program::hash`], and interprets it: the producer deals it, the evaluators
//! prepare and evaluate it, `cost` counts it and `ideal` computes it in the clear. Shapes leave the batch
//! dimension out: every step works on `batch` samples side by side.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use trefoil_ring::geometry::{Conv2d, GeometryError, Pads, Pool2d};

use crate::compare::Compare;
use crate::limits;

/// Version of the protocol and of this format: part of the hash that all parties compare.
pub const PROTOCOL_VERSION: u32 = 2;

/// Largest number of elements of one value for one sample that a program may hold.
pub const MAX_ELEMENTS: usize = 1 << 28;
/// Most dimensions of one value, the batch not counted.
pub const MAX_RANK: usize = 8;

/// A value of the program: the output of the step with this index.
pub type ValueId = usize;

/// How a value is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Form {
    /// z = z_A + z_B modulo 2^64, one share at each evaluator.
    Additive,
    /// x = delta - lambda: delta at both evaluators, lambda = lambda_A + lambda_B known to the producer.
    Masked,
    /// XOR shares of bits, one index of a few bits per sample.
    Bits,
}

/// The bits of a wire that a comparison reads: `lo .. lo + k`.
///
/// Right for -2^(lo+k-1) <= z < 2^(lo+k-1) - 2^lo, where only -2^lo <= z < 0 may count as non-negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Lowest bit read.
    pub lo: u32,
    /// How many bits are read, the sign's included.
    pub k: u32,
}

/// The linear map of a [`Op::Linear`] step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Linear {
    /// `[.., inputs] x [inputs, outputs]` over the last dimension.
    Dense {
        /// Size of the last dimension of the operand.
        inputs: usize,
        /// Size of the last dimension of the result.
        outputs: usize,
    },
    /// A convolution; depthwise where `groups` is the number of input channels.
    Conv(Conv2d),
}

impl Linear {
    /// Shape of the weights.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Linear::Dense { inputs, outputs } => vec![*inputs, *outputs],
            Linear::Conv(g) => g.kernel_shape(),
        }
    }

    /// Number of output channels: the size of the bias.
    pub fn outputs(&self) -> usize {
        match self {
            Linear::Dense { outputs, .. } => *outputs,
            Linear::Conv(g) => g.out_channels,
        }
    }
}

/// One operation. `x` and the like name earlier steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// The client's input: additive, at the program's fraction bits. Only as step 0.
    Input,
    /// Additive to masked: one ring element each way, one round.
    Open {
        /// Operand, additive.
        x: ValueId,
    },
    /// Fixed-weight product: masked to additive, the scales add up. No online traffic.
    Linear {
        /// Operand, masked.
        x: ValueId,
        /// Index of the weights in [`Program::weights`].
        weights: usize,
        /// Index of the bias (at the result's scale), one per output channel.
        bias: Option<usize>,
        /// The map.
        map: Linear,
    },
    /// Product of two secret matrices `[m, k] x [k, n]`: masked to additive, the scales add up. No online traffic.
    MatMul {
        /// Left operand, masked.
        x: ValueId,
        /// Right operand, masked.
        y: ValueId,
    },
    /// Exact truncation by `shift` bits (never off by more than one unit): masked to additive.
    Truncate {
        /// Operand, masked.
        x: ValueId,
        /// Bits dropped, at least one.
        shift: u32,
    },
    /// max(x, 0), truncated by `shift` bits (0: not truncated): masked to additive.
    Relu {
        /// Operand, masked.
        x: ValueId,
        /// Bits dropped.
        shift: u32,
        /// Bits compared; `window.lo <= shift`.
        window: Window,
        /// How they are compared.
        compare: Compare,
    },
    /// Maximum over each window, by tournament: masked to additive, at the same scale.
    MaxPool {
        /// Operand, masked, `[h, w, channels]`.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Bits compared: of a difference, so one more than a single value needs.
        window: Window,
        /// How they are compared.
        compare: Compare,
    },
    /// Sum over each window times `round(2^extra / covered)`: local, form kept, scale grows by `extra`.
    ///
    /// With a full window of 2^extra elements the factor is one and nothing is lost.
    AveragePool {
        /// Operand, additive or masked, `[h, w, channels]`.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Fraction bits added, 0 to 20.
        extra: u32,
    },
    /// Product with the public integer `factor`, counted as `extra` more fraction bits: local, form kept.
    Scale {
        /// Operand, additive or masked.
        x: ValueId,
        /// The factor.
        factor: i64,
        /// Fraction bits added.
        extra: u32,
    },
    /// Adds the public constant `units` (in units of the operand's scale) to every element: local, form kept.
    Offset {
        /// Operand, additive or masked.
        x: ValueId,
        /// The constant in units of the operand's scale.
        units: i64,
    },
    /// Sum of two values of one shape, scale and form: local.
    Add {
        /// Left operand.
        x: ValueId,
        /// Right operand.
        y: ValueId,
    },
    /// Concatenation along `axis` (0 is the first dimension after the batch): local.
    Concat {
        /// Operands of one scale and form.
        xs: Vec<ValueId>,
        /// Dimension along which they are joined.
        axis: usize,
    },
    /// Elements `start .. start + len` along the first dimension after the batch: local.
    Slice {
        /// Operand.
        x: ValueId,
        /// First index.
        start: usize,
        /// How many.
        len: usize,
    },
    /// The same elements under another shape: local.
    Reshape {
        /// Operand.
        x: ValueId,
        /// New shape.
        shape: Vec<usize>,
    },
    /// Zeros around height and width of `[h, w, channels]`: local.
    Pad {
        /// Operand.
        x: ValueId,
        /// Zeros added.
        pads: Pads,
    },
    /// Index of the largest of `n` values by all pairs, ties to the lower index: masked to XOR-shared bits.
    Argmax {
        /// Operand, masked, `[n]`.
        x: ValueId,
        /// Bits compared: of a difference.
        window: Window,
        /// How they are compared.
        compare: Compare,
    },
    /// To the client alone: an additive value re-randomised and truncated by `shift`, or a label's bits re-randomised.
    Reveal {
        /// Operand: additive, or bits (`shift` 0).
        x: ValueId,
        /// Bits dropped before sending.
        shift: u32,
    },
}

impl Op {
    /// The steps this one reads.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            Op::Input => vec![],
            Op::Concat { xs, .. } => xs.clone(),
            Op::Add { x, y } | Op::MatMul { x, y } => vec![*x, *y],
            Op::Open { x }
            | Op::Linear { x, .. }
            | Op::Truncate { x, .. }
            | Op::Relu { x, .. }
            | Op::MaxPool { x, .. }
            | Op::AveragePool { x, .. }
            | Op::Scale { x, .. }
            | Op::Offset { x, .. }
            | Op::Reshape { x, .. }
            | Op::Slice { x, .. }
            | Op::Pad { x, .. }
            | Op::Argmax { x, .. }
            | Op::Reveal { x, .. } => vec![*x],
        }
    }

    /// How the operation compares, if it does.
    pub fn compare(&self) -> Option<Compare> {
        match self {
            Op::Relu { compare, .. } | Op::MaxPool { compare, .. } | Op::Argmax { compare, .. } => Some(*compare),
            _ => None,
        }
    }

    /// The same operation, comparing in this way if it compares.
    pub fn comparing(&self, way: Compare) -> Op {
        let mut op = self.clone();
        if let Op::Relu { compare, .. } | Op::MaxPool { compare, .. } | Op::Argmax { compare, .. } = &mut op {
            *compare = way;
        }
        op
    }

    /// The operation's name in tables and meters.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "input",
            Op::Open { .. } => "open",
            Op::Linear { map: Linear::Dense { .. }, .. } => "dense",
            Op::Linear { map: Linear::Conv(_), .. } => "conv2d",
            Op::MatMul { .. } => "matmul",
            Op::Slice { .. } => "slice",
            Op::Truncate { .. } => "truncate",
            Op::Relu { .. } => "relu",
            Op::MaxPool { .. } => "max-pool",
            Op::AveragePool { .. } => "average-pool",
            Op::Scale { .. } => "scale",
            Op::Offset { .. } => "offset",
            Op::Add { .. } => "add",
            Op::Concat { .. } => "concat",
            Op::Reshape { .. } => "reshape",
            Op::Pad { .. } => "pad",
            Op::Argmax { .. } => "argmax",
            Op::Reveal { .. } => "reveal",
        }
    }
}

/// One step of a program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// The layer this step belongs to, for tables and errors.
    pub layer: String,
    /// What is done.
    pub op: Op,
}

/// A secret tensor of the model: what the servers know of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightSpec {
    /// Its name, for errors.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its fraction bits.
    pub scale: u32,
}

/// What a client may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reveal {
    /// Every output of the last layer, truncated to the program's fraction bits.
    Logits,
    /// The index of the largest output and nothing else.
    Label,
}

/// A compiled network: public to the servers and to everyone entitled to query it; the weights' values are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Program {
    /// Fraction bits of the input, the weights and what enters a product.
    pub fraction_bits: u32,
    /// Shape of one input sample.
    pub input_shape: Vec<usize>,
    /// The secret tensors, in upload order.
    pub weights: Vec<WeightSpec>,
    /// The steps; step 0 is [`Op::Input`].
    pub steps: Vec<Step>,
}

/// What is known of a value without its batch size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Shape of one sample.
    pub shape: Vec<usize>,
    /// Fraction bits.
    pub scale: u32,
    /// How it is held.
    pub form: Form,
}

impl ValueInfo {
    /// Elements of one sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A program that cannot be run, naming the step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("step {step} ({op} of layer {layer}): {reason}")]
pub struct ProgramError {
    /// Index of the step.
    pub step: usize,
    /// Its operation.
    pub op: String,
    /// Its layer.
    pub layer: String,
    /// What is wrong.
    pub reason: String,
}

impl Program {
    /// Checks every step and gives each value's shape, scale and form. A program from a peer is trusted only after this.
    pub fn infer(&self) -> Result<Vec<ValueInfo>, ProgramError> {
        let whole = |op: &str, reason| ProgramError { step: 0, op: op.into(), layer: String::new(), reason };
        limits::outline(self).map_err(|e| whole("all", e))?;
        let mut values: Vec<ValueInfo> = Vec::with_capacity(self.steps.len());
        for (i, step) in self.steps.iter().enumerate() {
            let fail =
                |reason: String| ProgramError { step: i, op: step.op.name().into(), layer: step.layer.clone(), reason };
            let info = self.infer_step(i, &step.op, &values).map_err(fail)?;
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

    /// Checks the program and gives the largest batch that it may be run on: larger ones could exhaust a server.
    pub fn largest_batch(&self) -> Result<usize, ProgramError> {
        Ok(limits::largest_batch(self, &self.infer()?))
    }

    fn infer_step(&self, index: usize, op: &Op, values: &[ValueInfo]) -> Result<ValueInfo, String> {
        if matches!(op, Op::Input) != (index == 0) {
            return Err("the input is step 0 and only step 0".into());
        }
        if matches!(op, Op::Reveal { .. }) && index + 1 != self.steps.len() {
            return Err("a reveal is the last step and only the last step".into());
        }
        let get = |id: ValueId| values.get(id).ok_or_else(|| format!("value {id} does not exist yet"));
        let of_form = |id: ValueId, form: Form| {
            let v = get(id)?;
            if v.form == form { Ok(v) } else { Err(format!("value {id} is {:?}, must be {form:?}", v.form)) }
        };
        let arithmetic = |id: ValueId| {
            let v = get(id)?;
            if v.form == Form::Bits { Err(format!("value {id} is bits")) } else { Ok(v) }
        };
        let additive = |shape: Vec<usize>, scale: u32| ValueInfo { shape, scale, form: Form::Additive };
        let geometry = |e: GeometryError| e.to_string();
        match op {
            Op::Input => {
                if !(1..=30).contains(&self.fraction_bits) {
                    return Err(format!("{} fraction bits: must be 1 to 30", self.fraction_bits));
                }
                Ok(ValueInfo { shape: self.input_shape.clone(), scale: self.fraction_bits, form: Form::Additive })
            }
            Op::Open { x } => {
                let v = of_form(*x, Form::Additive)?;
                Ok(ValueInfo { form: Form::Masked, ..v.clone() })
            }
            Op::Linear { x, weights, bias, map } => {
                let v = of_form(*x, Form::Masked)?;
                let w = self.weights.get(*weights).ok_or_else(|| format!("weights {weights} do not exist"))?;
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
                    let b = self.weights.get(*b).ok_or_else(|| format!("bias {b} does not exist"))?;
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
                Ok(additive(shape, scale))
            }
            Op::MatMul { x, y } => {
                let (a, b) = (of_form(*x, Form::Masked)?, of_form(*y, Form::Masked)?);
                match (&a.shape[..], &b.shape[..]) {
                    ([m, k], [l, n]) if k == l => Ok(additive(vec![*m, *n], more_bits(a, b.scale)?)),
                    _ => Err(format!(
                        "operands of shapes {:?} and {:?} at scales {} and {}",
                        a.shape, b.shape, a.scale, b.scale
                    )),
                }
            }
            Op::Slice { x, start, len } => {
                let v = arithmetic(*x)?;
                let fits = v.shape.first().is_some_and(|d| start.checked_add(*len).is_some_and(|end| end <= *d));
                if !fits {
                    return Err(format!("{len} from {start} of shape {:?}", v.shape));
                }
                let mut shape = v.shape.clone();
                shape[0] = *len;
                Ok(ValueInfo { shape, ..v.clone() })
            }
            Op::Truncate { x, shift } => {
                let v = of_form(*x, Form::Masked)?;
                if *shift == 0 || *shift > v.scale {
                    return Err(format!("shift {shift} at scale {}", v.scale));
                }
                Ok(additive(v.shape.clone(), v.scale - shift))
            }
            Op::Relu { x, shift, window, compare } => {
                let v = of_form(*x, Form::Masked)?;
                check_window(*window)?;
                compare.check()?;
                if *shift > v.scale || window.lo > *shift {
                    return Err(format!("shift {shift} at scale {} with a window from bit {}", v.scale, window.lo));
                }
                Ok(additive(v.shape.clone(), v.scale - shift))
            }
            Op::MaxPool { x, pool, window, compare } => {
                let v = of_form(*x, Form::Masked)?;
                check_window(*window)?;
                compare.check()?;
                Ok(additive(pooled(v, pool)?, v.scale))
            }
            Op::AveragePool { x, pool, extra } => {
                let v = arithmetic(*x)?;
                if *extra > 20 {
                    return Err(format!("{extra} more fraction bits: at most 20"));
                }
                Ok(ValueInfo { shape: pooled(v, pool)?, scale: more_bits(v, *extra)?, form: v.form })
            }
            Op::Scale { x, extra, .. } => {
                let v = arithmetic(*x)?;
                Ok(ValueInfo { scale: more_bits(v, *extra)?, ..v.clone() })
            }
            Op::Offset { x, .. } => Ok(arithmetic(*x)?.clone()),
            Op::Add { x, y } => {
                let (a, b) = (arithmetic(*x)?, arithmetic(*y)?);
                if a != b {
                    return Err(format!("operands differ: {a:?} and {b:?}"));
                }
                Ok(a.clone())
            }
            Op::Concat { xs, axis } => {
                let first = arithmetic(*xs.first().ok_or("nothing to join")?)?;
                let mut shape = first.shape.clone();
                if *axis >= shape.len() {
                    return Err(format!("axis {axis} of shape {shape:?}"));
                }
                for id in &xs[1..] {
                    let v = arithmetic(*id)?;
                    let fits = v.scale == first.scale
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
                let v = arithmetic(*x)?;
                let n = trefoil_ring::tensor::elements(shape).map_err(|e| e.to_string())?;
                if n != v.elements() {
                    return Err(format!("shape {:?} cannot become {shape:?}", v.shape));
                }
                Ok(ValueInfo { shape: shape.clone(), ..v.clone() })
            }
            Op::Pad { x, pads } => {
                let v = arithmetic(*x)?;
                let [h, w, c] = v.shape[..] else { return Err(format!("padding of shape {:?}", v.shape)) };
                let grown =
                    |n: usize, a: usize, b: usize| n.checked_add(a).and_then(|n| n.checked_add(b)).ok_or("too large");
                Ok(ValueInfo {
                    shape: vec![grown(h, pads.top, pads.bottom)?, grown(w, pads.left, pads.right)?, c],
                    ..v.clone()
                })
            }
            Op::Argmax { x, window, compare } => {
                let v = of_form(*x, Form::Masked)?;
                check_window(*window)?;
                compare.check()?;
                let [n] = v.shape[..] else { return Err(format!("argmax over shape {:?}", v.shape)) };
                if !(2..=128).contains(&n) {
                    return Err(format!("argmax of {n} values: 2 to 128 are supported (all pairs are compared)"));
                }
                Ok(ValueInfo { shape: vec![index_bits(n)], scale: 0, form: Form::Bits })
            }
            Op::Reveal { x, shift } => {
                if index + 1 != self.steps.len() {
                    return Err("a reveal ends the program: nothing may follow".into());
                }
                let v = get(*x)?;
                let fits = match v.form {
                    Form::Additive => *shift <= v.scale,
                    Form::Bits => *shift == 0,
                    Form::Masked => false,
                };
                if !fits {
                    return Err(format!(
                        "{:?} at scale {} cannot be revealed with a shift of {shift}",
                        v.form, v.scale
                    ));
                }
                // Finer than that, an answer would show the coins that the hidden layers' truncations tossed.
                if v.scale - shift > self.fraction_bits {
                    return Err(format!(
                        "an answer of {} fraction bits: at most {}",
                        v.scale - shift,
                        self.fraction_bits
                    ));
                }
                Ok(ValueInfo { scale: v.scale - shift, ..v.clone() })
            }
        }
    }

    /// The program that ends by revealing `what` of the last value, which must be additive.
    ///
    /// `window` is the window of one value; a label's comparisons, being of differences, read one bit more. They are
    /// done as the program's last comparison before them.
    pub fn ending_in(&self, what: Reveal, window: Window) -> Result<Program, ProgramError> {
        let values = self.infer()?;
        let mut p = self.clone();
        let last = values.len() - 1;
        check_window(window).map_err(|reason| ProgramError {
            step: last + 1,
            op: "argmax".into(),
            layer: "output".into(),
            reason,
        })?;
        let v = &values[last];
        let mut push = |op| p.steps.push(Step { layer: "output".into(), op });
        match what {
            Reveal::Logits => push(Op::Reveal { x: last, shift: v.scale.saturating_sub(self.fraction_bits) }),
            Reveal::Label => {
                let flat = v.elements();
                push(Op::Reshape { x: last, shape: vec![flat] });
                push(Op::Open { x: last + 1 });
                let lo = v.scale.saturating_sub(self.fraction_bits).min(window.lo);
                push(Op::Argmax {
                    x: last + 2,
                    window: Window { lo, k: window.k.saturating_add(window.lo - lo).saturating_add(1) },
                    compare: self.steps.iter().rev().find_map(|s| s.op.compare()).unwrap_or_default(),
                });
                push(Op::Reveal { x: last + 3, shift: 0 });
            }
        }
        p.infer()?;
        Ok(p)
    }

    /// The hash that all parties compare before anything is drawn: protocol version, steps, shapes, fixed point.
    pub fn hash(&self) -> [u8; 32] {
        let mut h = blake3::Hasher::new_derive_key("trefoil 2026 program");
        h.update(&PROTOCOL_VERSION.to_le_bytes());
        h.update(&postcard::to_stdvec(self).unwrap_or_default());
        *h.finalize().as_bytes()
    }
}

/// Bits of an index below `n`.
pub fn index_bits(n: usize) -> usize {
    n.next_power_of_two().trailing_zeros().max(1) as usize
}

/// The scale of a value with `more` fraction bits.
fn more_bits(v: &ValueInfo, more: u32) -> Result<u32, String> {
    let scale = v.scale.checked_add(more).filter(|s| *s <= 60);
    scale.ok_or_else(|| format!("{more} more fraction bits at scale {}: at most 60 in all", v.scale))
}

fn check_window(w: Window) -> Result<(), String> {
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
