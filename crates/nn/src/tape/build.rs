//! Short forms of operations and what is made of several of them.

use super::grad::Rule;
use super::{Function, Map, Op, Rows, Tape, TapeError, ValueId};

type Built = Result<ValueId, TapeError>;

impl Tape {
    /// x + y, either repeated where the other is larger.
    pub fn add(&mut self, x: ValueId, y: ValueId) -> Built {
        let (x, y) = self.larger_first(x, y);
        self.push(Op::Add { x, y })
    }

    /// x - y.
    pub fn sub(&mut self, x: ValueId, y: ValueId) -> Built {
        let minus = self.scale(y, -1.0)?;
        self.add(x, minus)
    }

    /// x y, element by element, either repeated where the other is larger.
    pub fn mul(&mut self, x: ValueId, y: ValueId) -> Built {
        let (x, y) = self.larger_first(x, y);
        self.product(x, y, Map::Elementwise)
    }

    fn larger_first(&self, x: ValueId, y: ValueId) -> (ValueId, ValueId) {
        let size =
            |v: ValueId| self.values.get(v).map_or((0, 0), |v| (usize::from(v.rows == Rows::Each), v.elements()));
        if size(y) > size(x) { (y, x) } else { (x, y) }
    }

    /// A product.
    pub fn product(&mut self, x: ValueId, y: ValueId, map: Map) -> Built {
        self.push(Op::Product { x, y, map })
    }

    /// `factor` x; x itself where the factor is 1.
    pub fn scale(&mut self, x: ValueId, factor: f64) -> Built {
        if factor == 1.0 { Ok(x) } else { self.push(Op::Scale { x, factor }) }
    }

    /// x + `by`; x itself where that is 0.
    pub fn offset(&mut self, x: ValueId, by: f64) -> Built {
        if by == 0.0 { Ok(x) } else { self.push(Op::Offset { x, by }) }
    }

    /// A function of every element.
    pub fn function(&mut self, x: ValueId, function: Function) -> Built {
        self.push(Op::Function { x, function })
    }

    /// x under another shape; x itself where it has that shape.
    pub fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Built {
        if self.values.get(x).is_some_and(|v| v.shape == shape) {
            return Ok(x);
        }
        self.push(Op::Reshape { x, shape: shape.to_vec() })
    }

    /// Sum over all dimensions but the last `keep`, and over the batch if `batch`.
    pub fn sum(&mut self, x: ValueId, keep: usize, batch: bool) -> Built {
        self.push(Op::Sum { x, keep, batch })
    }

    /// Elements `start .. start + len` along `axis`.
    pub fn slice(&mut self, x: ValueId, axis: usize, start: usize, len: usize) -> Built {
        self.push(Op::Slice { x, axis, start, len })
    }

    /// max(x, 0).
    pub fn relu(&mut self, x: ValueId) -> Built {
        let bit = self.push(Op::Sign { x })?;
        self.push(Op::Select { bit, x })
    }

    /// max(x, y) = y + [x - y >= 0] (x - y).
    pub fn max(&mut self, x: ValueId, y: ValueId) -> Built {
        let difference = self.sub(x, y)?;
        let above = self.relu(difference)?;
        self.add(above, y)
    }

    /// The largest element along the last dimension, which becomes 1: a tournament.
    pub fn largest(&mut self, x: ValueId) -> Built {
        let mut x = x;
        let axis = self.rank(x)? - 1;
        loop {
            let n = self.values[x].shape[axis];
            if n == 1 {
                return Ok(x);
            }
            let half = n / 2;
            let (a, b) = (self.slice(x, axis, 0, half)?, self.slice(x, axis, half, half)?);
            let winners = self.max(a, b)?;
            x = if n.is_multiple_of(2) {
                winners
            } else {
                let last = self.slice(x, axis, n - 1, 1)?;
                self.push(Op::Concat { xs: vec![winners, last], axis })?
            };
        }
    }

    /// e^(x - max x), its sum over the last dimension (which becomes 1), and max x.
    pub(crate) fn exponentials(&mut self, x: ValueId) -> Result<Exponentials, TapeError> {
        let top = self.largest(x)?;
        let minus = self.scale(top, -1.0)?;
        let below = self.along_last(x, minus, |tape, x, y| tape.push(Op::Add { x, y }))?;
        let powers = self.function(below, Function::Exp)?;
        let sum = self.sum_last(powers)?;
        Ok(Exponentials { top, powers, sum })
    }

    /// e / sum e, of [`Tape::exponentials`].
    pub(crate) fn shares_of(&mut self, e: &Exponentials) -> Built {
        let inverse = self.function(e.sum, Function::Reciprocal)?;
        self.along_last(e.powers, inverse, |tape, x, y| tape.product(x, y, Map::Elementwise))
    }

    /// Softmax over the last dimension.
    pub fn softmax(&mut self, x: ValueId) -> Built {
        let e = self.exponentials(x)?;
        let p = self.shares_of(&e)?;
        self.whole(p, Rule::Softmax { x });
        Ok(p)
    }

    /// Says how `of` is differentiated as a whole.
    pub(crate) fn whole(&mut self, of: ValueId, rule: Rule) {
        self.rules.push((of, rule));
    }

    /// `op(x, y)` for y of one element per row of x.
    pub(super) fn along_last(
        &mut self,
        x: ValueId,
        y: ValueId,
        op: impl Fn(&mut Self, ValueId, ValueId) -> Built,
    ) -> Built {
        // The last dimension goes first, so that what is repeated is the trailing part.
        let shape = self.values[x].shape.clone();
        if self.values[y].elements() != 1 {
            let reason = format!("shape {shape:?}: only vectors are normalised");
            return Err(TapeError { layer: self.layer.clone(), reason });
        }
        let (x, y) = (self.reshape(x, &[shape.iter().product(), 1])?, self.reshape(y, &[1])?);
        let z = op(self, x, y)?;
        self.reshape(z, &shape)
    }

    /// The sum over the last dimension of a vector.
    pub(super) fn sum_last(&mut self, x: ValueId) -> Built {
        self.sum(x, 0, false)
    }

    pub(super) fn rank(&self, x: ValueId) -> Result<usize, TapeError> {
        let rank = self.values.get(x).map_or(0, |v| v.shape.len());
        let reason = format!("value {x} does not exist");
        if rank == 0 { Err(TapeError { layer: self.layer.clone(), reason }) } else { Ok(rank) }
    }
}

/// Parts of a softmax.
#[derive(Debug)]
pub(crate) struct Exponentials {
    /// The largest element.
    pub(crate) top: ValueId,
    /// e^(x - top).
    pub(crate) powers: ValueId,
    /// Their sum, 1 to the number of elements.
    pub(crate) sum: ValueId,
}
