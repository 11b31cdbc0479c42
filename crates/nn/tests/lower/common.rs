//! A step on shares beside the same step in floating point.

use trefoil_mpc::ideal;
use trefoil_mpc::program::Program;
use trefoil_nn::graph::{Array, Graph, Layer, Node, Post};
use trefoil_nn::lower::{decode, encode, encode_rates, lower};
use trefoil_nn::tape::Tape;
use trefoil_nn::tape::float::{Batch, run};
use trefoil_ring::Words;
use trefoil_testkit::World;

pub(crate) const F: u32 = 16;

/// Layers one after the other.
pub(crate) fn chain(layers: Vec<Layer>) -> Graph {
    let node = |(i, layer): (usize, Layer)| Node {
        name: format!("n{i}"),
        layer,
        inputs: if i == 0 { vec![] } else { vec![i - 1] },
    };
    Graph { nodes: layers.into_iter().enumerate().map(node).collect(), post: Post::None }
}

/// Numbers within +-`size`, the same for the same seed, exact in 16 fraction bits.
pub(crate) fn numbers(seed: u64, n: usize, size: f64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let unit = (state >> 33) as f64 / 31f64.exp2() * 2.0 - 1.0;
            (unit * size * 65536.0).round() / 65536.0
        })
        .collect()
}

pub(crate) fn array(seed: u64, shape: &[usize], size: f64) -> Array {
    let data = numbers(seed, shape.iter().product(), size).into_iter().map(|v| v as f32).collect();
    Array::new(shape.to_vec(), data).unwrap()
}

pub(crate) fn dense(seed: u64, inputs: usize, outputs: usize) -> Layer {
    let size = (3.0 / inputs as f64).sqrt();
    Layer::Dense { kernel: array(seed, &[inputs, outputs], size), bias: Some(array(seed + 1, &[outputs], 0.1)) }
}

/// One training in three ways: floating point, the ideal functionality, and shares in memory.
pub(crate) struct Trial {
    pub(crate) tape: Tape,
    pub(crate) program: Program,
    pub(crate) real: Vec<Vec<f64>>,
    pub(crate) fixed: Vec<Words>,
    world: World,
}

impl Trial {
    pub(crate) fn new(tape: &Tape, states: Vec<Vec<f64>>) -> Self {
        let program = lower(tape).unwrap();
        let fixed = program.states.iter().zip(&states).map(|(s, v)| encode(&s.name, v, s.scale).unwrap()).collect();
        Self { tape: tape.clone(), program, real: states, fixed, world: World::new(5) }
    }

    /// One step in floating point and ideally.
    pub(crate) fn step(&mut self, samples: usize, rows: &[f64], rates: &[f64]) {
        run(&self.tape, &mut self.real, &Batch { rows, samples, rates, seed: 1 }).unwrap();
        self.ideal(samples, rows, rates);
    }

    /// One step, ideally only.
    pub(crate) fn ideal(&mut self, samples: usize, rows: &[f64], rates: &[f64]) {
        let (words, rates) = (encode("rows", rows, F).unwrap(), encode_rates(rates).unwrap());
        let common = self.world.last_common();
        ideal::step(&self.program, samples, &words, &[], &mut self.fixed, &rates, &common).unwrap();
    }

    /// One step on shares, from the states of the ideal ones; gives the states in the clear.
    pub(crate) fn on_shares(&mut self, samples: usize, rows: &[f64], rates: &[f64]) -> Vec<Vec<f64>> {
        let (words, rates) = (encode("rows", rows, F).unwrap(), encode_rates(rates).unwrap());
        let model = self.world.share(&self.program, &[]).unwrap();
        let rows = self.world.share_rows(&words).unwrap();
        let mut shared = self.world.split_states(&self.fixed);
        let indices: Vec<usize> = (0..samples).collect();
        self.world.step(&model, &rows, &indices, &mut shared, &rates).unwrap();
        let scales = self.program.states.iter().map(|s| s.scale);
        shared.values().iter().zip(scales).map(|(v, s)| decode(v, s)).collect()
    }

    pub(crate) fn decoded(&self) -> Vec<Vec<f64>> {
        self.program.states.iter().zip(&self.fixed).map(|(s, v)| decode(v, s.scale)).collect()
    }

    /// The largest difference of any state from floating point, by the state's name.
    #[track_caller]
    pub(crate) fn within(&self, got: &[Vec<f64>], tolerance: impl Fn(&str) -> f64) {
        for ((spec, got), want) in self.program.states.iter().zip(got).zip(&self.real) {
            let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
            assert!(worst <= tolerance(&spec.name), "{}: off by {worst}", spec.name);
        }
    }
}
