//! The checks of the operations that training needs.

use super::*;
use crate::compare::Selecting;
use crate::masked::TABLE;
use crate::program::MAX_CLASSES;

/// Most knots of a piecewise polynomial.
const MAX_KNOTS: usize = 64;

impl Known<'_> {
    pub(super) fn result_in_training(&self, index: usize, op: &Op) -> Result<ValueInfo, String> {
        let states = &self.program.states;
        match op {
            Op::Weight { index } => {
                let w = self.program.weights.get(*index).ok_or_else(|| format!("weights {index} do not exist"))?;
                if w.scale > limits::MAX_SCALE {
                    return Err(format!(
                        "weights {} of {} fraction bits: at most {}",
                        w.name,
                        w.scale,
                        limits::MAX_SCALE
                    ));
                }
                Ok(ValueInfo { shape: w.shape.clone(), scale: w.scale, form: Form::Masked, rows: Rows::One })
            }
            Op::State { slot } => {
                let s = states.get(*slot).ok_or_else(|| format!("state {slot} does not exist"))?;
                Ok(ValueInfo { shape: s.shape.clone(), scale: s.scale, form: Form::Additive, rows: Rows::One })
            }
            Op::Store { slot, x } => {
                let v = self.of_form(*x, Form::Additive)?;
                let s = states.get(*slot).ok_or_else(|| format!("state {slot} does not exist"))?;
                if v.rows != Rows::One || v.shape != s.shape || v.scale != s.scale {
                    return Err(format!(
                        "state {} of shape {:?} at scale {} cannot hold {v:?}",
                        s.name, s.shape, s.scale
                    ));
                }
                let before = &self.program.steps[..index];
                if before.iter().any(|s| matches!(s.op, Op::Store { slot: other, .. } if other == *slot)) {
                    return Err(format!("state {} is stored twice", s.name));
                }
                Ok(v.clone())
            }
            Op::Product { x, y, map } => {
                let (a, b) = (self.of_form(*x, Form::Masked)?, self.of_form(*y, Form::Masked)?);
                let (shape, rows) = product(a, b, map)?;
                Ok(ValueInfo { shape, scale: more_bits(a, b.scale)?, form: Form::Additive, rows })
            }
            Op::Sign { x, window, compare } => {
                let v = self.of_form(*x, Form::Masked)?;
                check_window(*window)?;
                compare.check()?;
                Ok(ValueInfo { scale: 0, form: Form::Choice, ..v.clone() })
            }
            Op::Select { bit, x, shift } => {
                let (b, v) = (self.of_form(*bit, Form::Choice)?, self.of_form(*x, Form::Masked)?);
                if b.elements() != v.elements() || b.rows != v.rows {
                    return Err(format!("bits of shape {:?} select from shape {:?}", b.shape, v.shape));
                }
                if *shift > v.scale {
                    return Err(format!("shift {shift} at scale {}", v.scale));
                }
                Ok(ValueInfo { scale: v.scale - shift, form: Form::Additive, ..v.clone() })
            }
            Op::Bit { bit } => Ok(ValueInfo { form: Form::Additive, ..self.of_form(*bit, Form::Choice)?.clone() }),
            Op::Piecewise { x, knots, pieces, scale, window, compare, select } => {
                let v = self.of_form(*x, Form::Masked)?;
                check_window(*window)?;
                compare.check()?;
                check_pieces(v.scale, knots, pieces, *scale)?;
                if *select == Selecting::Keys && knots.is_empty() {
                    return Err("keys to select from one piece".into());
                }
                Ok(ValueInfo { scale: *scale, form: Form::Additive, ..v.clone() })
            }
            Op::Sum { x, keep, batch } => {
                let v = self.arithmetic(*x)?;
                if *keep > v.shape.len() || *batch && v.rows == Rows::One {
                    return Err(format!("sum to {keep} dimensions, batch: {batch}, of {v:?}"));
                }
                let shape = if *keep == 0 { vec![1] } else { v.shape[v.shape.len() - keep..].to_vec() };
                Ok(ValueInfo { shape, rows: if *batch { Rows::One } else { v.rows }, ..v.clone() })
            }
            Op::Broadcast { x, shape, batch } => {
                let v = self.arithmetic(*x)?;
                if !shape.ends_with(&v.shape) || *batch && v.rows == Rows::Each {
                    return Err(format!("{v:?} cannot be repeated to shape {shape:?}, batch: {batch}"));
                }
                Ok(ValueInfo { shape: shape.clone(), rows: if *batch { Rows::Each } else { v.rows }, ..v.clone() })
            }
            Op::Window { x, pool, index } => {
                let v = self.arithmetic(*x)?;
                check_slot(pool, *index)?;
                Ok(ValueInfo { shape: pooled(v, pool)?, ..v.clone() })
            }
            Op::Unwindow { x, pool, index } => {
                check_slot(pool, *index)?;
                let v = self.arithmetic(*x)?;
                Ok(ValueInfo { shape: unpooled(v, pool)?, ..v.clone() })
            }
            Op::Spread { x, pool, extra } => {
                let v = self.arithmetic(*x)?;
                if *extra > 20 {
                    return Err(format!("{extra} more fraction bits: at most 20"));
                }
                Ok(ValueInfo { shape: unpooled(v, pool)?, scale: more_bits(v, *extra)?, ..v.clone() })
            }
            Op::Rate { x, rate, extra } => {
                let v = self.arithmetic(*x)?;
                if *rate >= self.program.rates {
                    return Err(format!("public number {rate} of {}", self.program.rates));
                }
                Ok(ValueInfo { scale: more_bits(v, *extra)?, ..v.clone() })
            }
            Op::Pattern { shape, keep } => {
                if !(1..1 << 16).contains(keep) {
                    return Err(format!("a pattern of {keep} ones in 65536: must be 1 to 65535"));
                }
                Ok(ValueInfo { shape: shape.clone(), scale: 0, form: Form::Public, rows: Rows::Each })
            }
            Op::Drop { x, pattern } => {
                let (v, p) = (self.arithmetic(*x)?, self.of_form(*pattern, Form::Public)?);
                if v.shape != p.shape || v.rows != p.rows {
                    return Err(format!("a pattern of shape {:?} on a value of shape {:?}", p.shape, v.shape));
                }
                Ok(v.clone())
            }
            Op::Likelihoods { x, shift, .. } => {
                let v = self.of_form(*x, Form::Additive)?;
                let f = self.program.fraction_bits;
                let [n] = v.shape[..] else { return Err(format!("likelihoods of shape {:?}", v.shape)) };
                if v.rows != Rows::Each || !(2..=MAX_CLASSES).contains(&n) {
                    return Err(format!("likelihoods of {n} classes, {:?}: 2 to {MAX_CLASSES} of each row", v.rows));
                }
                // Finer than that, the server would be shown the coins that earlier truncations tossed.
                if v.scale.checked_sub(*shift).is_none_or(|left| left > f) {
                    return Err(format!("shift {shift} at scale {}: at most {f} fraction bits are shown", v.scale));
                }
                Ok(ValueInfo { shape: vec![TABLE, n], scale: f, ..v.clone() })
            }
            Op::Crop { x, pads } => {
                let v = self.arithmetic(*x)?;
                let [h, w, c] = v.shape[..] else { return Err(format!("cropping of shape {:?}", v.shape)) };
                let less = |n: usize, a: usize, b: usize| {
                    n.checked_sub(a)
                        .and_then(|n| n.checked_sub(b))
                        .ok_or_else(|| format!("cropping {pads:?} off {h} x {w}"))
                };
                let shape = vec![less(h, pads.top, pads.bottom)?, less(w, pads.left, pads.right)?, c];
                Ok(ValueInfo { shape, ..v.clone() })
            }
            other => Err(format!("{} is not an operation of training", other.name())),
        }
    }
}

/// Shape and rows of a product.
fn product(a: &ValueInfo, b: &ValueInfo, map: &Bilinear) -> Result<(Vec<usize>, Rows), String> {
    let misfit = || format!("operands of shapes {:?} ({:?}) and {:?} ({:?})", a.shape, a.rows, b.shape, b.rows);
    let each = |fits: bool, shape: Vec<usize>| if fits { Ok((shape, Rows::Each)) } else { Err(misfit()) };
    let weighted = a.rows == Rows::Each && b.rows == Rows::One;
    let gradient = a.rows == Rows::Each && b.rows == Rows::Each;
    let split = |v: &ValueInfo| v.shape.split_last().map(|(n, outer)| (*n, outer.to_vec()));
    let ((la, outer_a), (lb, outer_b)) = split(a).zip(split(b)).ok_or_else(misfit)?;
    let images = |g: &trefoil_ring::geometry::Conv2d| {
        let (h, w) = g.output().map_err(|e| e.to_string())?;
        Ok::<_, String>((vec![g.input.0, g.input.1, g.in_channels], vec![h, w, g.out_channels]))
    };
    match map {
        Bilinear::Elementwise if broadcasts(a, b) => Ok((a.shape.clone(), a.rows)),
        Bilinear::Elementwise => Err(misfit()),
        Bilinear::MatMul => match (&a.shape[..], &b.shape[..]) {
            ([m, k], [l, n]) if k == l && a.rows == b.rows => Ok((vec![*m, *n], a.rows)),
            _ => Err(misfit()),
        },
        Bilinear::Dense => each(weighted && b.shape.len() == 2 && outer_b == [la], [outer_a, vec![lb]].concat()),
        Bilinear::DenseInput => each(weighted && b.shape.len() == 2 && lb == la, [outer_a, outer_b].concat()),
        Bilinear::DenseWeights if gradient && outer_a == outer_b => Ok((vec![la, lb], Rows::One)),
        Bilinear::DenseWeights => Err(misfit()),
        Bilinear::Conv(g) => {
            let (input, output) = images(g)?;
            each(weighted && a.shape == input && b.shape == g.kernel_shape(), output)
        }
        Bilinear::ConvInput(g) => {
            let (input, output) = images(g)?;
            each(weighted && a.shape == output && b.shape == g.kernel_shape(), input)
        }
        Bilinear::ConvWeights(g) => {
            let (input, output) = images(g)?;
            if gradient && a.shape == input && b.shape == output {
                Ok((g.kernel_shape(), Rows::One))
            } else {
                Err(misfit())
            }
        }
    }
}

fn check_pieces(of_x: u32, knots: &[i64], pieces: &[Vec<i64>], scale: u32) -> Result<(), String> {
    if knots.len() > MAX_KNOTS || pieces.len() != knots.len() + 1 {
        return Err(format!("{} knots and {} pieces: at most {MAX_KNOTS}, one piece more", knots.len(), pieces.len()));
    }
    if knots.windows(2).any(|k| k[0] >= k[1]) {
        return Err("knots that do not ascend".into());
    }
    let n = pieces[0].len();
    if !(2..=4).contains(&n) || pieces.iter().any(|p| p.len() != n) {
        return Err("pieces must all have the same 2 to 4 coefficients".into());
    }
    let least = of_x.saturating_mul(n as u32 - 1);
    if !(least..=60).contains(&scale) {
        return Err(format!("degree {} at scale {of_x} gives scale {least} to 60, not {scale}", n - 1));
    }
    Ok(())
}

/// Whether every window has an element `index`.
fn check_slot(pool: &Pool2d, index: usize) -> Result<(), String> {
    let most = pool.window.0.checked_mul(pool.window.1).unwrap_or(0);
    if !pool.pads.is_none() || index >= most {
        return Err(format!("element {index} of a window of {most}, padding {:?}", pool.pads));
    }
    Ok(())
}

/// Shape of a pool's input, for a value of its output's shape.
fn unpooled(v: &ValueInfo, pool: &Pool2d) -> Result<Vec<usize>, String> {
    let (h, w) = pool.output().map_err(|e| e.to_string())?;
    if v.shape != [h, w, pool.channels] {
        return Err(format!("{:?} is not the output of {pool:?}", v.shape));
    }
    Ok(vec![pool.input.0, pool.input.1, pool.channels])
}
