//! The largest of a few logits by all pairs at once: fewer rounds than a tournament.
//!
//! Every pair is compared in one comparison; what an element wins is counted on shares, and the element that wins
//! against all others is selected by a comparison of a few bits. Exact, ties to the lower index: one element wins.

use trefoil_mpc::program::Window;
use trefoil_ring::geometry::Pads;

use super::visit::Visitor;
use super::wires::{Bits, Dims, Local, WireId, Wires};
use crate::tape::{Function, Map, Op, Tape, ValueId};

/// Most elements that are compared all with all; the number of pairs grows with the square.
const MOST: usize = 16;

/// The softmaxes of a tape: what they are of, and their largest elements.
#[derive(Debug, Default)]
pub(super) struct Softmaxes {
    logits: Vec<ValueId>,
    /// The largest element, and of what.
    largest: Vec<(ValueId, ValueId)>,
    /// Whether the label's logit is the largest: this, the largest element, the label.
    hits: Vec<(ValueId, ValueId, ValueId)>,
}

impl Softmaxes {
    /// Every e^(x - max x) on the tape.
    pub(super) fn find(tape: &Tape) -> Self {
        let mut found = Self::default();
        let op = |id: ValueId| &tape.values[id].op;
        let unshaped = |mut id: ValueId| {
            while let Op::Reshape { x, .. } = op(id) {
                id = *x;
            }
            id
        };
        for value in &tape.values {
            let Op::Function { x, function: Function::Exp } = value.op else { continue };
            let Op::Add { x, y } = *op(unshaped(x)) else { continue };
            let Op::Scale { x: top, factor: -1.0 } = *op(unshaped(y)) else { continue };
            let logits = unshaped(x);
            found.logits.push(logits);
            if (2..=MOST).contains(&tape.values[logits].elements()) {
                found.largest.push((top, logits));
            }
        }
        for id in 0..tape.values.len() {
            found.hits.extend(found.hit(tape, id));
        }
        found
    }

    /// The value as [z y - max z >= 0], z y summed up: whether the label y, one-hot, chooses the largest logit.
    fn hit(&self, tape: &Tape, id: ValueId) -> Option<(ValueId, ValueId, ValueId)> {
        let op = |id: ValueId| &tape.values[id].op;
        let Op::Bit { bit } = *op(id) else { return None };
        let Op::Sign { x } = *op(bit) else { return None };
        let Op::Offset { x, by: crate::train::loss::TIE } = *op(x) else { return None };
        let Op::Add { x: chosen, y: minus } = *op(x) else { return None };
        let Op::Scale { x: top, factor: -1.0 } = *op(minus) else { return None };
        let Op::Sum { x: product, keep: 0, batch: false } = *op(chosen) else { return None };
        let Op::Product { x: z, y, map: Map::Elementwise } = *op(product) else { return None };
        (self.largest_of(top) == Some(z)).then_some((id, top, y))
    }

    /// The largest element and the label that the value compares, if that is what it is.
    pub(super) fn hit_of(&self, id: ValueId) -> Option<(ValueId, ValueId)> {
        self.hits.iter().find(|(hit, ..)| *hit == id).map(|(_, top, y)| (*top, *y))
    }

    /// Whether a softmax is taken of the value.
    pub(super) fn is_logits(&self, id: ValueId) -> bool {
        self.logits.contains(&id)
    }

    /// What the value is the largest element of.
    pub(super) fn largest_of(&self, id: ValueId) -> Option<ValueId> {
        self.largest.iter().find(|(top, _)| *top == id).map(|(_, of)| *of)
    }

    /// Which values are needed: tournaments are not.
    pub(super) fn needed(&self, tape: &Tape) -> Vec<bool> {
        let mut needed = vec![false; tape.values.len()];
        needed[0] = true;
        tape.outputs.iter().for_each(|&o| needed[o] = true);
        for id in (0..needed.len()).rev() {
            let op = &tape.values[id].op;
            needed[id] |= matches!(op, Op::Store { .. });
            if needed[id] {
                let operands = match (self.largest_of(id), self.hit_of(id)) {
                    (Some(x), _) => vec![x],
                    (_, Some((top, y))) => vec![top, y],
                    _ => op.operands(),
                };
                operands.into_iter().for_each(|x| needed[x] = true);
            }
        }
        needed
    }
}

impl Visitor<'_> {
    /// The largest element of `x`, of shape `dims`, and which one it is.
    pub(super) fn largest(&mut self, x: WireId, dims: Dims) -> (WireId, Option<Bits>) {
        let w = &mut self.wires;
        let rows = w.dims(x).rows;
        let n: usize = w.dims(x).shape.iter().product();
        let vector = |n: usize| Dims::new(&[n], rows);
        let x = w.local(Local::Reshape(vec![n]), vec![x], vector(n));
        // Elements that lie d apart, for each d.
        let part = |w: &mut Wires, x, start, len| w.local(Local::Slice { axis: 0, start, len }, vec![x], vector(len));
        let mut differences = Vec::new();
        for d in 1..n {
            let (low, high) = (part(w, x, 0, n - d), part(w, x, d, n - d));
            let minus = w.local(Local::Scale(-1, 0), vec![high], vector(n - d));
            differences.push(w.local(Local::Add, vec![low, minus], vector(n - d)));
        }
        let pairs = w.local(Local::Concat(0), differences, vector(n * (n - 1) / 2));
        let first = w.sign(pairs);
        let first = w.number(&first);
        let mut start = 0;
        let mut wins: Option<WireId> = None;
        for d in 1..n {
            let of_low = part(w, first, start, n - d);
            let minus = w.local(Local::Scale(-1, 0), vec![of_low], vector(n - d));
            let of_high = w.local(Local::Offset(1.0, 0), vec![minus], vector(n - d));
            start += n - d;
            for (won, pads) in
                [(of_low, Pads { bottom: d, ..Pads::default() }), (of_high, Pads { top: d, ..Pads::default() })]
            {
                let column = w.local(Local::Reshape(vec![n - d, 1, 1]), vec![won], Dims::new(&[n - d, 1, 1], rows));
                let all = w.local(Local::Pad(pads), vec![column], Dims::new(&[n, 1, 1], rows));
                wins = Some(match wins {
                    Some(sum) => w.local(Local::Add, vec![sum, all], Dims::new(&[n, 1, 1], rows)),
                    None => all,
                });
            }
        }
        let Some(wins) = wins else { return (x, None) };
        let wins = w.local(Local::Reshape(vec![n]), vec![wins], vector(n));
        let missing = w.local(Local::Offset(1.0 - n as f64, 0), vec![wins], vector(n));
        let winner = w.sign_in(missing, Window { lo: 0, k: n.ilog2() + 2 });
        let chosen = w.select(&winner, x);
        let sum = w.local(Local::Sum { keep: 0, batch: false }, vec![chosen], vector(1));
        (w.local(Local::Reshape(dims.shape.clone()), vec![sum], dims), Some(winner))
    }

    /// Whether the largest element is the one that the one-hot vector `y` chooses: a selection more, no comparison.
    pub(super) fn hit(&mut self, winner: &Bits, y: WireId, dims: Dims) -> WireId {
        let w = &mut self.wires;
        let chosen = w.select(winner, y);
        let sum = w.local(Local::Sum { keep: 0, batch: false }, vec![chosen], Dims::new(&[1], dims.rows));
        w.local(Local::Reshape(dims.shape.clone()), vec![sum], dims)
    }
}
