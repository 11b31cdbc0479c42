//! What a program may cost: bounds checked before anything of it is allocated or computed.
//!
//! A program comes from an owner and a batch from a client; neither is trusted. The bounds count generously what an
//! evaluator holds and computes for one sample, so that no value, pool window or batch can exhaust a server.

use trefoil_ring::geometry::Conv2d;

use crate::compare::Compare;
use crate::error::MpcError;
use crate::program::{Bilinear, Linear, MAX_ELEMENTS, Op, Program, Rows, ValueInfo, Window};

/// Most steps, and most tensors, of a program. (Frame tags on the evaluators' link hold 2^20 steps.)
pub const MAX_STEPS: usize = 1 << 14;
/// Longest name of a layer or tensor, in bytes.
pub const MAX_NAME: usize = 256;
/// Most fraction bits that a value may have.
pub(crate) const MAX_SCALE: u32 = 60;
/// Most words that one run may hold, values and material together: 8 GiB.
pub const MAX_WORDS: u64 = 1 << 30;
/// Most products of words that one run may compute at an evaluator, offline or online.
pub const MAX_PRODUCTS: u64 = 1 << 42;

/// Checks what needs no shapes: how many steps and tensors there are, and their names.
pub(crate) fn outline(program: &Program) -> Result<(), String> {
    for (what, n) in
        [("steps", program.steps.len()), ("tensors", program.weights.len()), ("states", program.states.len())]
    {
        if n > MAX_STEPS {
            return Err(format!("{n} {what}: at most {MAX_STEPS}"));
        }
    }
    if let Some(s) = program.states.iter().find(|s| s.scale > MAX_SCALE) {
        return Err(format!("state {} of {} fraction bits: at most {MAX_SCALE}", s.name, s.scale));
    }
    for w in program.weights.iter().chain(&program.states) {
        let n = trefoil_ring::tensor::elements(&w.shape).unwrap_or(usize::MAX);
        if n == 0 || n > MAX_ELEMENTS {
            return Err(format!("weights {} of shape {:?}: must have 1 to {MAX_ELEMENTS} elements", w.name, w.shape));
        }
    }
    let names = program.steps.iter().map(|s| &s.layer).chain(program.weights.iter().map(|w| &w.name));
    let names = names.chain(program.states.iter().map(|s| &s.name));
    match names.into_iter().find(|n| n.len() > MAX_NAME || n.chars().any(char::is_control)) {
        Some(n) => Err(format!("a name of {} bytes: at most {MAX_NAME}, without control characters", n.len())),
        None => Ok(()),
    }
}

/// The largest batch that a program of these values may be run on; 0 if one sample is too much.
pub(crate) fn largest_batch(program: &Program, values: &[ValueInfo]) -> usize {
    let (mut once, mut each) = (Load::default(), Load { words: 1, products: 1 });
    for (step, info) in program.steps.iter().zip(values) {
        load(&step.op, values, info, &mut once, &mut each);
    }
    let left = |most: u64, once: u64, each: u64| most.saturating_sub(once) / each;
    let most = left(MAX_WORDS, once.words, each.words).min(left(MAX_PRODUCTS, once.products, each.products));
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Refuses a batch that is empty or larger than `most`.
pub(crate) fn check_batch(batch: usize, most: usize) -> Result<(), MpcError> {
    if (1..=most).contains(&batch) {
        return Ok(());
    }
    Err(MpcError::Input { what: "the batch".into(), expected: format!("1 to {most}"), got: batch.to_string() })
}

/// Words held and products computed.
#[derive(Default)]
struct Load {
    words: u64,
    products: u64,
}

/// Adds what a step with value `info` takes: `once` whatever the batch, and for `each` sample.
fn load(op: &Op, values: &[ValueInfo], info: &ValueInfo, once: &mut Load, each: &mut Load) {
    let (words, products) = row(op, values, info.elements() as u64);
    let mut add = |rows: Rows, words: u64, products: u64| {
        let load = if rows == Rows::One { &mut *once } else { &mut *each };
        load.words = load.words.saturating_add(words);
        load.products = load.products.saturating_add(products);
    };
    add(info.rows, words, 0);
    // A sum over the batch is as much work as all its rows, and a product holds masks of both operands.
    let worked = op.operands().iter().filter_map(|x| values.get(*x)).any(|v| v.rows == Rows::Each);
    add(if worked { Rows::Each } else { info.rows }, 0, products);
    if let Op::Product { x, y, .. } = op {
        for v in [x, y].into_iter().filter_map(|x| values.get(*x)) {
            add(v.rows, 2 * v.elements() as u64, 0);
        }
    }
}

/// Words held and products computed for one row of a step whose value has `n` elements a row.
fn row(op: &Op, values: &[ValueInfo], n: u64) -> (u64, u64) {
    let of = |x: usize| values.get(x).map_or(0, |v| v.elements() as u64);
    let times = |a: u64, factors: &[usize]| factors.iter().fold(a, |a, f| a.saturating_mul(*f as u64));
    match op {
        Op::Linear { x, map: Linear::Dense { outputs, .. }, .. } => (2 * n, times(of(*x), &[*outputs])),
        Op::Linear { map: Linear::Conv(g), .. } => {
            (2 * n, times(n, &[g.kernel.0, g.kernel.1, g.in_channels / g.groups.max(1)]))
        }
        Op::Product { x, y, map } => (2 * n, times(2, &[products(map, values, (*x, *y), n)])),
        Op::Select { .. } | Op::Bit { .. } => (8 * n, 2 * n),
        Op::Sign { window, compare, .. } => compared(n, *window, *compare),
        Op::Piecewise { knots, pieces, window, compare, .. } => {
            let all = times(n, &[knots.len()]);
            let (mut words, work) = compared(all, *window, *compare);
            if *compare == Compare::Keys {
                // A wire's key serves all knots.
                words = compared(n, *window, *compare).0.saturating_add(all);
            }
            // Powers times masks, or what point functions' keys grow to.
            let sums = |each: usize| times(n, &[pieces.len(), each]);
            (words.saturating_add(sums(8)), work.saturating_add(sums(32)))
        }
        Op::Pattern { .. } => (n, n),
        Op::Likelihoods { .. } => (4 * n, 16 * n),
        Op::Sum { x, .. } => (n, of(*x)),
        Op::Spread { x, pool, .. } => (n, times(of(*x), &[pool.window.0, pool.window.1])),
        Op::Truncate { .. } | Op::Open { .. } => (4 * n, n),
        Op::Relu { window, compare, .. } => compared(n, *window, *compare),
        Op::MaxPool { pool, window, compare, .. } => {
            compared(times(2 * n, &[pool.window.0, pool.window.1]), *window, *compare)
        }
        Op::AveragePool { pool, .. } => (n, times(n, &[pool.window.0, pool.window.1])),
        Op::Argmax { x, window, compare } => compared(of(*x).saturating_mul(of(*x)), *window, *compare),
        _ => (n, n),
    }
}

/// Multiply-adds of a product, for one sample.
fn products(map: &Bilinear, values: &[ValueInfo], (x, y): (usize, usize), n: u64) -> usize {
    let of = |x: usize| values.get(x).map_or(0, |v| v.elements());
    let last = |x: usize| values.get(x).and_then(|v| v.shape.last()).copied().unwrap_or(0);
    let kernel = |g: &Conv2d| g.kernel.0.saturating_mul(g.kernel.1).saturating_mul(g.in_channels / g.groups.max(1));
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    match map {
        Bilinear::Elementwise => n,
        Bilinear::MatMul => n.saturating_mul(last(x)),
        Bilinear::Dense | Bilinear::DenseInput => of(x).saturating_mul(n / (of(x) / last(x).max(1)).max(1)),
        Bilinear::DenseWeights => of(x).saturating_mul(last(y)),
        Bilinear::Conv(g) => n.saturating_mul(kernel(g)),
        Bilinear::ConvInput(g) => of(x).saturating_mul(kernel(g)),
        Bilinear::ConvWeights(g) => of(y).saturating_mul(kernel(g)),
    }
}

/// Words held and products computed, or what takes as long, for `n` comparisons.
fn compared(n: u64, window: Window, compare: Compare) -> (u64, u64) {
    let words = n.saturating_mul(compare.words(window));
    (words, if compare == Compare::Keys { words.saturating_mul(8) } else { words })
}

#[cfg(test)]
mod tests {
    use trefoil_ring::geometry::{Pads, Pool2d};

    use super::*;
    use crate::program::{Reveal, Step, WeightSpec};

    const WINDOW: Window = Window { lo: 0, k: 32 };

    fn program(input_shape: Vec<usize>, ops: Vec<Op>) -> Program {
        let steps = std::iter::once(Op::Input).chain(ops).map(|op| Step { layer: "l".into(), op }).collect();
        Program { fraction_bits: 16, input_shape, weights: vec![], states: vec![], rates: 0, steps }
    }

    fn reason(p: &Program) -> String {
        p.infer().unwrap_err().reason
    }

    #[test]
    fn blow_ups_are_refused() {
        let pool =
            Pool2d { input: (2000, 2000), channels: 1, window: (1000, 1000), stride: (1, 1), pads: Pads::default() };
        let max = Op::MaxPool { x: 1, pool, window: WINDOW, compare: Compare::default() };
        assert!(reason(&program(vec![2000, 2000, 1], vec![Op::Open { x: 0 }, max])).contains("one sample"));
        let half = 1 << 40;
        let pads = Pads { top: half, bottom: half, left: half, right: half };
        let pool = Pool2d { input: (1, 1), channels: 1, window: (half + 1, half + 1), stride: (half, half), pads };
        let max = Op::MaxPool { x: 1, pool, window: WINDOW, compare: Compare::default() };
        assert!(reason(&program(vec![1, 1, 1], vec![Op::Open { x: 0 }, max])).contains("one sample"));
        assert!(reason(&program(vec![1], vec![Op::Open { x: 0 }; MAX_STEPS])).contains("steps"));
    }

    #[test]
    fn numbers_that_would_wrap_are_refused() {
        let wide = Window { lo: u32::MAX - 1, k: 2 };
        assert!(
            reason(&program(
                vec![4],
                vec![Op::Open { x: 0 }, Op::Argmax { x: 1, window: wide, compare: Compare::default() }]
            ))
            .contains("window")
        );
        assert!(
            reason(&program(vec![4], vec![Op::Scale { x: 0, factor: 1, extra: u32::MAX }])).contains("fraction bits")
        );
        let map = Linear::Dense { inputs: 4, outputs: 1 };
        let dense = Op::Linear { x: 1, weights: 0, bias: None, map };
        let mut p = program(vec![4], vec![Op::Open { x: 0 }, dense]);
        p.weights.push(WeightSpec { name: "w".into(), shape: vec![4, 1], scale: u32::MAX });
        assert!(reason(&p).contains("fraction bits"));
        for window in [Window { lo: 0, k: u32::MAX }, Window { lo: u32::MAX, k: 2 }, Window { lo: 0, k: 1 }] {
            assert!(program(vec![4], vec![]).ending_in(Reveal::Label, window).is_err());
        }
    }

    #[test]
    fn a_reveal_ends_a_program() {
        let early = program(vec![4], vec![Op::Reveal { x: 0, shift: 0 }, Op::Open { x: 1 }]);
        assert!(reason(&early).contains("last step"));
        let ended = program(vec![4], vec![]).ending_in(Reveal::Logits, WINDOW).unwrap();
        assert!(ended.ending_in(Reveal::Label, WINDOW).is_err());
    }

    #[test]
    fn names_are_short_and_printable() {
        for name in ["x".repeat(MAX_NAME + 1), "a\nb".into()] {
            let mut p = program(vec![4], vec![]);
            p.steps[0].layer = name;
            assert!(reason(&p).contains("name of"));
        }
    }

    #[test]
    fn the_largest_batch_follows_from_the_sizes() {
        let p = program(
            vec![1000],
            vec![Op::Open { x: 0 }, Op::Relu { x: 1, shift: 0, window: WINDOW, compare: Compare::default() }],
        );
        let most = p.largest_batch().unwrap();
        assert!((10_000..1_000_000).contains(&most), "{most}");
        assert!(crate::cost::cost(&p, most).is_ok());
        assert!(crate::cost::cost(&p, most + 1).is_err() && crate::cost::cost(&p, 0).is_err());
    }

    #[test]
    fn what_a_batch_has_once_counts_once() {
        let n = 1 << 20;
        let ops = vec![Op::State { slot: 0 }, Op::Open { x: 1 }, Op::Truncate { x: 2, shift: 1 }];
        let mut p = program(vec![1], ops);
        p.steps[0].op = Op::Rows;
        p.states = vec![WeightSpec { name: "w".into(), shape: vec![n], scale: 16 }];
        let most = p.largest_batch().unwrap();
        assert!(most > 1 << 28, "{most}");
        p.steps.push(Step { layer: "l".into(), op: Op::Broadcast { x: 3, shape: vec![n], batch: true } });
        let most = p.largest_batch().unwrap();
        assert!((500..1024).contains(&most), "{most}");
    }
}
