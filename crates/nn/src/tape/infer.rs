//! Shapes, rows and kinds: an operation is checked when it is added.

use trefoil_mpc::program::{MAX_ELEMENTS, MAX_RANK};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

use super::{Kind, Map, Op, Rows, Tape, TapeError, Value, ValueId};

type Form = (Vec<usize>, Rows, Kind);

impl Tape {
    /// Adds an operation, checked, and gives its value.
    pub fn push(&mut self, op: Op) -> Result<ValueId, TapeError> {
        let fault = |reason: String| TapeError { layer: self.layer.clone(), reason };
        let (shape, rows, kind) = self.form(&op).map_err(fault)?;
        let n = trefoil_ring::tensor::elements(&shape).map_err(|e| fault(e.to_string()))?;
        if n == 0 || n > MAX_ELEMENTS || shape.len() > MAX_RANK {
            return Err(fault(format!(
                "a value of shape {shape:?}: must have 1 to {MAX_ELEMENTS} elements in at most {MAX_RANK} dimensions"
            )));
        }
        Ok(self.append(op, shape, rows, kind))
    }

    fn value(&self, id: ValueId, kind: Kind) -> Result<&Value, String> {
        let v = self.values.get(id).ok_or_else(|| format!("value {id} does not exist"))?;
        if v.kind == kind { Ok(v) } else { Err(format!("value {id} holds {:?}, must hold {kind:?}", v.kind)) }
    }

    fn number(&self, id: ValueId) -> Result<&Value, String> {
        self.value(id, Kind::Number)
    }

    fn form(&self, op: &Op) -> Result<Form, String> {
        let like = |v: &Value| (v.shape.clone(), v.rows, v.kind);
        let shaped = |v: &Value, shape: Vec<usize>| (shape, v.rows, v.kind);
        match op {
            Op::Rows => Err("the rows are the first value and only the first value".into()),
            Op::State { slot } => {
                let s = self.states.get(*slot).ok_or_else(|| format!("state {slot} does not exist"))?;
                Ok((s.shape.clone(), Rows::One, Kind::Number))
            }
            Op::Store { slot, x } => self.stored(*slot, self.number(*x)?),
            Op::Product { x, y, map } => product(self.number(*x)?, self.number(*y)?, map),
            Op::Add { x, y } => {
                let (x, y) = (self.number(*x)?, self.number(*y)?);
                if repeats(x, y) { Ok(like(x)) } else { Err(misfit(x, y)) }
            }
            Op::Scale { x, factor: by } | Op::Offset { x, by } => {
                if by.is_finite() {
                    Ok(like(self.number(*x)?))
                } else {
                    Err(format!("a constant of {by}"))
                }
            }
            Op::Rate { x, rate } => {
                let v = self.number(*x)?;
                if *rate < self.rates { Ok(like(v)) } else { Err(format!("public number {rate} of {}", self.rates)) }
            }
            Op::Sign { x } => self.number(*x).map(|v| (v.shape.clone(), v.rows, Kind::Bits)),
            Op::Bit { bit } => self.value(*bit, Kind::Bits).map(|v| (v.shape.clone(), v.rows, Kind::Number)),
            Op::Select { bit, x } => {
                let (b, v) = (self.value(*bit, Kind::Bits)?, self.number(*x)?);
                if b.shape == v.shape && b.rows == v.rows { Ok(like(v)) } else { Err(misfit(v, b)) }
            }
            Op::Drop { x, pattern } => {
                let (p, v) = (self.value(*pattern, Kind::Pattern)?, self.number(*x)?);
                if p.shape == v.shape && p.rows == v.rows { Ok(like(v)) } else { Err(misfit(v, p)) }
            }
            Op::Pattern { shape, keep } => {
                if !(1..1 << 16).contains(keep) {
                    return Err(format!("a pattern of {keep} ones in 65536: must be 1 to 65535"));
                }
                Ok((shape.clone(), Rows::Each, Kind::Pattern))
            }
            Op::Function { x, .. } => self.number(*x).map(like),
            Op::Likelihoods { x, .. } => {
                let v = self.number(*x)?;
                match v.shape[..] {
                    [n] if v.rows == Rows::Each => Ok(shaped(v, vec![3, n])),
                    _ => Err(format!("likelihoods of shape {:?} ({:?}): a vector per sample is due", v.shape, v.rows)),
                }
            }
            Op::Sum { x, keep, batch } => {
                let v = self.number(*x)?;
                if *keep > v.shape.len() || *batch && v.rows == Rows::One {
                    return Err(format!(
                        "sum to {keep} dimensions, batch: {batch}, of shape {:?} ({:?})",
                        v.shape, v.rows
                    ));
                }
                let shape = if *keep == 0 { vec![1] } else { v.shape[v.shape.len() - keep..].to_vec() };
                Ok((shape, if *batch { Rows::One } else { v.rows }, v.kind))
            }
            Op::Broadcast { x, shape, batch } => {
                let v = self.number(*x)?;
                if !shape.ends_with(&v.shape) || *batch && v.rows == Rows::Each {
                    return Err(format!("shape {:?} ({:?}) cannot be repeated to {shape:?}", v.shape, v.rows));
                }
                Ok((shape.clone(), if *batch { Rows::Each } else { v.rows }, v.kind))
            }
            Op::Window { x, pool, index } => {
                check_index(pool, *index)?;
                let v = self.number(*x)?;
                Ok(shaped(v, pooled(v, pool)?))
            }
            Op::Unwindow { x, pool, index } => {
                check_index(pool, *index)?;
                let v = self.number(*x)?;
                Ok(shaped(v, unpooled(v, pool)?))
            }
            Op::AveragePool { x, pool } => self.number(*x).and_then(|v| Ok(shaped(v, pooled(v, pool)?))),
            Op::Spread { x, pool } => self.number(*x).and_then(|v| Ok(shaped(v, unpooled(v, pool)?))),
            Op::Reshape { x, shape } => {
                let v = self.number(*x)?;
                if trefoil_ring::tensor::elements(shape).map_err(|e| e.to_string())? != v.elements() {
                    return Err(format!("shape {:?} cannot become {shape:?}", v.shape));
                }
                Ok(shaped(v, shape.clone()))
            }
            Op::Pad { x, pads } => {
                let v = self.number(*x)?;
                margins(v, *pads, |n, by| n.checked_add(by)).map(|s| shaped(v, s))
            }
            Op::Crop { x, pads } => {
                let v = self.number(*x)?;
                margins(v, *pads, |n, by| n.checked_sub(by)).map(|s| shaped(v, s))
            }
            Op::Slice { x, axis, start, len } => {
                let v = self.number(*x)?;
                let mut shape = v.shape.clone();
                let n = shape.get_mut(*axis).ok_or_else(|| format!("axis {axis} of shape {:?}", v.shape))?;
                if start.checked_add(*len).is_none_or(|end| end > *n) {
                    return Err(format!("{len} elements from {start} along axis {axis} of shape {:?}", v.shape));
                }
                *n = *len;
                Ok(shaped(v, shape))
            }
            Op::Concat { xs, axis } => self.joined(xs, *axis),
        }
    }

    fn stored(&self, slot: usize, v: &Value) -> Result<Form, String> {
        let s = self.states.get(slot).ok_or_else(|| format!("state {slot} does not exist"))?;
        if v.rows != Rows::One || v.shape != s.shape {
            return Err(format!(
                "state {} of shape {:?} cannot hold shape {:?} ({:?})",
                s.name, s.shape, v.shape, v.rows
            ));
        }
        if self.values.iter().any(|v| matches!(v.op, Op::Store { slot: other, .. } if other == slot)) {
            return Err(format!("state {} is stored twice", s.name));
        }
        Ok((v.shape.clone(), v.rows, v.kind))
    }

    fn joined(&self, xs: &[ValueId], axis: usize) -> Result<Form, String> {
        let first = self.number(*xs.first().ok_or("nothing to join")?)?;
        let mut shape = first.shape.clone();
        if axis >= shape.len() {
            return Err(format!("axis {axis} of shape {shape:?}"));
        }
        for &x in &xs[1..] {
            let v = self.number(x)?;
            let others = |s: &[usize]| [&s[..axis.min(s.len())], s.get(axis + 1..).unwrap_or_default()].concat();
            if v.rows != first.rows || v.shape.len() != shape.len() || others(&v.shape) != others(&shape) {
                return Err(misfit(first, v));
            }
            shape[axis] = shape[axis].checked_add(v.shape[axis]).ok_or("too large")?;
        }
        Ok((shape, first.rows, Kind::Number))
    }
}

fn misfit(x: &Value, y: &Value) -> String {
    format!("operands of shapes {:?} ({:?}) and {:?} ({:?})", x.shape, x.rows, y.shape, y.rows)
}

/// Whether y can be repeated to the shape and rows of x.
fn repeats(x: &Value, y: &Value) -> bool {
    x.shape.ends_with(&y.shape) && (y.rows == Rows::One || x.rows == Rows::Each)
}

fn product(x: &Value, y: &Value, map: &Map) -> Result<Form, String> {
    let fits = |fits: bool, shape: Vec<usize>, rows: Rows| {
        if fits { Ok((shape, rows, Kind::Number)) } else { Err(misfit(x, y)) }
    };
    let weighted = x.rows == Rows::Each && y.rows == Rows::One;
    let paired = x.rows == Rows::Each && y.rows == Rows::Each;
    let split = |v: &Value| v.shape.split_last().map(|(n, outer)| (*n, outer.to_vec()));
    let ((last_x, outer_x), (last_y, outer_y)) = split(x).zip(split(y)).ok_or_else(|| misfit(x, y))?;
    let images = |g: &Conv2d| {
        let (h, w) = g.output().map_err(|e| e.to_string())?;
        Ok::<_, String>((vec![g.input.0, g.input.1, g.in_channels], vec![h, w, g.out_channels]))
    };
    match map {
        Map::Elementwise => fits(repeats(x, y), x.shape.clone(), x.rows),
        Map::Dense => fits(weighted && outer_y == [last_x], [outer_x, vec![last_y]].concat(), Rows::Each),
        Map::DenseInput => {
            fits(weighted && outer_y.len() == 1 && last_y == last_x, [outer_x, outer_y].concat(), Rows::Each)
        }
        Map::DenseWeights => fits(paired && outer_x == outer_y, vec![last_x, last_y], Rows::One),
        Map::Conv(g) => {
            let (input, output) = images(g)?;
            fits(weighted && x.shape == input && y.shape == g.kernel_shape(), output, Rows::Each)
        }
        Map::ConvInput(g) => {
            let (input, output) = images(g)?;
            fits(weighted && x.shape == output && y.shape == g.kernel_shape(), input, Rows::Each)
        }
        Map::ConvWeights(g) => {
            let (input, output) = images(g)?;
            fits(paired && x.shape == input && y.shape == output, g.kernel_shape(), Rows::One)
        }
    }
}

fn check_index(pool: &Pool2d, index: usize) -> Result<(), String> {
    let most = pool.window.0.checked_mul(pool.window.1).unwrap_or(0);
    if !pool.pads.is_none() || index >= most {
        return Err(format!("element {index} of windows of {most}, padding {:?}", pool.pads));
    }
    Ok(())
}

fn pooled(v: &Value, pool: &Pool2d) -> Result<Vec<usize>, String> {
    let (h, w) = pool.output().map_err(|e| e.to_string())?;
    if v.shape != [pool.input.0, pool.input.1, pool.channels] {
        return Err(format!("{pool:?} does not fit shape {:?}", v.shape));
    }
    Ok(vec![h, w, pool.channels])
}

fn unpooled(v: &Value, pool: &Pool2d) -> Result<Vec<usize>, String> {
    let (h, w) = pool.output().map_err(|e| e.to_string())?;
    if v.shape != [h, w, pool.channels] {
        return Err(format!("{:?} is not the output of {pool:?}", v.shape));
    }
    Ok(vec![pool.input.0, pool.input.1, pool.channels])
}

fn margins(v: &Value, p: Pads, change: impl Fn(usize, usize) -> Option<usize>) -> Result<Vec<usize>, String> {
    let [h, w, c] = v.shape[..] else { return Err(format!("an image is needed, got shape {:?}", v.shape)) };
    let both = |n, a, b| change(n, a).and_then(|n| change(n, b)).ok_or_else(|| format!("margins {p:?} of {h} x {w}"));
    Ok(vec![both(h, p.top, p.bottom)?, both(w, p.left, p.right)?, c])
}
