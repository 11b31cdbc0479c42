//! Which products are added up: those of biases, when weights are computed.

use crate::tape::{Op, Tape, ValueId};

/// For each value whether it is a summand, of a sum or of its own elements, as it is or times a constant.
pub(super) fn summands(tape: &Tape) -> Vec<bool> {
    let mut added = vec![false; tape.values.len()];
    for id in (0..tape.values.len()).rev() {
        let op = &tape.values[id].op;
        let sums = match op {
            Op::Add { .. } | Op::Sum { .. } => true,
            Op::Scale { .. } | Op::Reshape { .. } | Op::Slice { .. } | Op::Concat { .. } => added[id],
            _ => false,
        };
        op.operands().into_iter().for_each(|x: ValueId| added[x] |= sums);
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Role;

    #[test]
    fn a_product_is_a_summand_if_it_is_added_before_it_is_multiplied() {
        let mut tape = Tape::new(1).unwrap();
        let slot = tape.declare("x".into(), vec![2], Role::Fixed);
        let x = tape.push(Op::State { slot }).unwrap();
        let [factor, bias, part] = [(); 3].map(|()| tape.mul(x, x).unwrap());
        let scaled = tape.mul(x, factor).unwrap();
        let shift = tape.sub(x, bias).unwrap();
        let sum = tape.sum(part, 0, false).unwrap();
        let again = tape.mul(x, shift).unwrap();
        let found = summands(&tape);
        assert_eq!([factor, scaled, again, shift, sum].map(|id| found[id]), [false; 5]);
        assert_eq!([bias, part, x].map(|id| found[id]), [true; 3]);
    }
}
