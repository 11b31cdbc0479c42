//! Gradients of single operations are central differences.

use trefoil_nn::tape::float::{Batch, run};
use trefoil_nn::tape::grad::gradients;
use trefoil_nn::tape::{Function, Map, Op, Role, Tape, TapeError, ValueId};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

const SAMPLES: usize = 3;

/// Checks the gradients of a value computed by `build` from parameters of the given shapes, and from the rows,
/// weighted with numbers that no symmetry hides behind.
fn check(
    name: &str,
    shapes: &[&[usize]],
    low: f64,
    build: impl Fn(&mut Tape, &[ValueId]) -> Result<ValueId, TapeError>,
) {
    let mut tape = Tape::new(24).unwrap();
    let mut parameters = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        let slot = tape.declare(format!("p{i}"), shape.to_vec(), Role::Parameter);
        parameters.push(tape.push(Op::State { slot }).unwrap());
    }
    let y = build(&mut tape, &parameters).unwrap_or_else(|e| panic!("{name}: {e}"));
    let slot = tape.declare("weights".into(), tape.values[y].shape.clone(), Role::Fixed);
    let seed = tape.push(Op::State { slot }).unwrap();
    let weighted = tape.mul(y, seed).unwrap();
    let batch = tape.values[weighted].rows == trefoil_nn::tape::Rows::Each;
    let loss = tape.sum(weighted, 0, batch).unwrap();
    // The seed has the rows of y.
    let seed = if batch {
        let shape = tape.values[y].shape.clone();
        tape.push(Op::Broadcast { x: seed, shape, batch }).unwrap()
    } else {
        seed
    };
    let found = gradients(&mut tape, &[(y, seed)], &parameters).unwrap();
    tape.outputs.push(loss);
    tape.outputs.extend(found.iter().map(|g| g.unwrap_or_else(|| panic!("{name}: no gradient"))));
    let tape = tape.swept();
    let draw = |i: usize| ((i * 7919 + 13) % 1009) as f64 / 1009.0;
    let rows: Vec<f64> = (0..SAMPLES * 24).map(|i| draw(i) * 2.0 - 1.0).collect();
    let mut states: Vec<Vec<f64>> = tape
        .states
        .iter()
        .enumerate()
        .map(|(k, s)| (0..s.shape.iter().product()).map(|i: usize| low + draw(31 * k + 3 * i + 5) * 2.0).collect())
        .collect();
    let outputs = |states: &mut Vec<Vec<f64>>| {
        run(&tape, states, &Batch { rows: &rows, samples: SAMPLES, rates: &[], seed: 4 }).unwrap()
    };
    let exact = outputs(&mut states);
    let mut nonzero = 0;
    for k in 0..shapes.len() {
        for i in 0..states[k].len() {
            let old = states[k][i];
            let mut at = |v: f64| {
                states[k][i] = v;
                outputs(&mut states)[0][0]
            };
            let want = (at(old + 1e-5) - at(old - 1e-5)) / 2e-5;
            states[k][i] = old;
            let got = exact[1 + k][i];
            assert!((got - want).abs() < 1e-6 * want.abs().max(1.0), "{name}, parameter {k}, {i}: {got}, is {want}");
            nonzero += usize::from(got != 0.0);
        }
    }
    assert!(nonzero > 0, "{name}: all gradients are zero");
}

/// One row for each sample: rows plus the parameter.
fn each(tape: &mut Tape, parameter: ValueId, shape: &[usize]) -> Result<ValueId, TapeError> {
    let rows = tape.slice(0, 0, 0, shape.iter().product())?;
    let rows = tape.reshape(rows, shape)?;
    tape.add(rows, parameter)
}

#[test]
fn products() {
    check("elementwise", &[&[2, 3], &[2, 3]], -1.0, |t, p| {
        let x = each(t, p[0], &[2, 3])?;
        let x = t.mul(x, x)?;
        t.mul(x, p[1])
    });
    check("trailing", &[&[2, 3], &[3]], -1.0, |t, p| {
        let x = each(t, p[0], &[2, 3])?;
        let y = each(t, p[1], &[3])?;
        t.mul(x, y)
    });
    check("dense", &[&[2, 3], &[3, 4]], -1.0, |t, p| {
        let x = each(t, p[0], &[2, 3])?;
        t.product(x, p[1], Map::Dense)
    });
    check("dense input", &[&[2, 4], &[3, 4]], -1.0, |t, p| {
        let x = each(t, p[0], &[2, 4])?;
        t.product(x, p[1], Map::DenseInput)
    });
    check("dense weights", &[&[2, 3], &[2, 4]], -1.0, |t, p| {
        let (x, y) = (each(t, p[0], &[2, 3])?, each(t, p[1], &[2, 4])?);
        t.product(x, y, Map::DenseWeights)
    });
}

#[test]
fn convolutions() {
    let g = Conv2d {
        input: (3, 4),
        in_channels: 2,
        out_channels: 2,
        kernel: (2, 2),
        stride: (1, 2),
        dilation: (1, 1),
        pads: Pads { top: 1, bottom: 0, left: 0, right: 1 },
        groups: 1,
    };
    for g in [g, Conv2d { groups: 2, ..g }] {
        let (image, kernel) = (vec![3, 4, 2], g.kernel_shape());
        let (h, w) = g.output().unwrap();
        let out = vec![h, w, 2];
        check("conv", &[&image, &kernel], -1.0, |t, p| {
            let x = each(t, p[0], &image)?;
            t.product(x, p[1], Map::Conv(g))
        });
        check("conv input", &[&out, &kernel], -1.0, |t, p| {
            let x = each(t, p[0], &out)?;
            t.product(x, p[1], Map::ConvInput(g))
        });
        check("conv weights", &[&image, &out], -1.0, |t, p| {
            let (x, y) = (each(t, p[0], &image)?, each(t, p[1], &out)?);
            t.product(x, y, Map::ConvWeights(g))
        });
    }
}

#[test]
fn functions() {
    let all = [
        (Function::Sigmoid, 0.0),
        (Function::Tanh, 0.0),
        (Function::Exp, -3.0),
        (Function::Reciprocal, 2.5),
        (Function::InverseSqrt, 2.5),
        (Function::Log, 2.5),
        (Function::Softplus, 0.0),
        (Function::Elu, 0.0),
        (Function::Silu, 0.0),
        (Function::Gelu, 0.0),
    ];
    for (f, low) in all {
        check(&format!("{f:?}"), &[&[5]], low, |t, p| {
            let x = each(t, p[0], &[5])?;
            t.function(x, f)
        });
    }
    check("softmax", &[&[5]], -1.0, |t, p| {
        let x = each(t, p[0], &[5])?;
        t.softmax(x)
    });
    check("largest", &[&[5]], -1.0, |t, p| {
        let x = each(t, p[0], &[5])?;
        t.largest(x)
    });
}

#[test]
fn moves_and_sums() {
    let pool = Pool2d { input: (3, 4), channels: 2, window: (2, 2), stride: (1, 2), pads: Pads::default() };
    let padded = Pool2d { pads: Pads { top: 1, bottom: 0, left: 0, right: 1 }, ..pool };
    let pads = Pads { top: 1, bottom: 0, left: 2, right: 1 };
    let image: &[usize] = &[3, 4, 2];
    type Make = Box<dyn Fn(&mut Tape, ValueId) -> Result<ValueId, TapeError>>;
    let all: Vec<(&str, &[usize], Make)> = vec![
        ("scale", image, Box::new(|t, x| t.scale(x, -2.5))),
        ("offset", image, Box::new(|t, x| t.offset(x, 0.5))),
        ("relu", image, Box::new(Tape::relu)),
        ("sum", image, Box::new(|t, x| t.sum(x, 1, false))),
        ("sum of all", image, Box::new(|t, x| t.sum(x, 0, true))),
        ("sum over the batch", image, Box::new(|t, x| t.sum(x, 3, true))),
        ("broadcast", &[2], Box::new(|t, x| t.push(Op::Broadcast { x, shape: vec![3, 2], batch: false }))),
        ("window", image, Box::new(move |t, x| t.push(Op::Window { x, pool, index: 3 }))),
        ("unwindow", &[2, 2, 2], Box::new(move |t, x| t.push(Op::Unwindow { x, pool, index: 1 }))),
        ("average", image, Box::new(move |t, x| t.push(Op::AveragePool { x, pool: padded }))),
        ("spread", &[3, 2, 2], Box::new(move |t, x| t.push(Op::Spread { x, pool: padded }))),
        ("pad", image, Box::new(move |t, x| t.push(Op::Pad { x, pads }))),
        ("crop", &[4, 5, 1], Box::new(move |t, x| t.push(Op::Crop { x, pads }))),
        ("slice", image, Box::new(|t, x| t.slice(x, 1, 1, 2))),
        ("slice from the start", image, Box::new(|t, x| t.slice(x, 2, 0, 1))),
        ("concat", image, Box::new(|t, x| t.push(Op::Concat { xs: vec![x, x], axis: 1 }))),
        (
            "drop",
            image,
            Box::new(|t, x| {
                let pattern = t.push(Op::Pattern { shape: vec![3, 4, 2], keep: 30000 })?;
                t.push(Op::Drop { x, pattern })
            }),
        ),
    ];
    for (name, shape, make) in all {
        check(name, &[shape], -1.0, |t, p| {
            let x = each(t, p[0], shape)?;
            let x = t.mul(x, x)?;
            make(t, x)
        });
    }
}
