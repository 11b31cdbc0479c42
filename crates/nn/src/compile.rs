//! From a graph to a program for the servers and the encoded weights that go with it.
//!
//! Values enter products at `fraction_bits` = f and leave them at 2f, additive. They are opened only where an
//! operation needs a masked wire, once, and truncated only where nothing later truncates for free: ReLU does.
//! Sums bring their operands to the larger scale, which is local and exact. Sigmoid and tanh are piecewise polynomials.

mod functions;
mod layers;
mod towers;
mod trained;
mod wires;

use thiserror::Error;
use trefoil_mpc::program::{Program, ProgramError, Reveal, Window};
use trefoil_ring::Tensor;
use trefoil_ring::fixed::FixedError;

use crate::graph::{Graph, GraphError};
use crate::pass::{self, Fold};
use crate::tape::TapeError;
use layers::Lowering;
pub use trained::{Trained, compile_trained};

/// Window of a value that is judged: compared with zero it takes a bit more, and so every bit of the ring.
const VERDICT: Window = Window { lo: 0, k: 63 };

/// Choices of the model owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileOptions {
    /// Fraction bits f of the input, the weights and what enters a product: 1 to 30.
    pub fraction_bits: u32,
    /// Bits k that a comparison reads; values compared lie within +-2^(k-1-f). 2 to 62 - f.
    pub window_bits: u32,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self { fraction_bits: 16, window_bits: 32 }
    }
}

impl CompileOptions {
    /// The window of a value held at `scale`: its lowest bit is the lowest that a truncation to f would keep.
    pub fn window(&self, scale: u32) -> Window {
        Window { lo: scale.saturating_sub(self.fraction_bits), k: self.window_bits }
    }

    /// The window of a difference of two such values.
    pub fn difference_window(&self, scale: u32) -> Window {
        Window { k: self.window_bits + 1, ..self.window(scale) }
    }

    /// The largest scale at which a difference's window still ends below bit 63.
    pub(crate) fn largest_scale(&self) -> u32 {
        62 + self.fraction_bits - self.window_bits
    }

    fn check(&self) -> Result<(), CompileError> {
        let f = self.fraction_bits;
        if !(1..=30).contains(&f) {
            return Err(CompileError::FractionBits(f));
        }
        if !(2..=62 - f).contains(&self.window_bits) {
            return Err(CompileError::WindowBits { window_bits: self.window_bits, fraction_bits: f, most: 62 - f });
        }
        Ok(())
    }
}

/// A network that the servers can evaluate.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What is done: public. It ends with the logits as an additive value; each step names its layer.
    pub program: Program,
    /// The secret tensors in the order of [`Program::weights`].
    pub weights: Vec<Tensor>,
    /// What the passes did to the graph, and what is approximated.
    pub notes: Vec<String>,
    /// The graph after the passes: what was compiled.
    pub graph: Graph,
    /// The options used.
    pub options: CompileOptions,
}

impl Compiled {
    /// The program that ends by revealing `what`. Of pairs without a bound there is no label.
    pub fn ending_in(&self, what: Reveal) -> Result<Program, ProgramError> {
        if what == Reveal::Label && self.graph.towers() > 1 && !self.graph.post.judges() {
            let step = self.program.steps.len();
            let reason = "pairs without a bound are neither similar nor dissimilar".into();
            return Err(ProgramError { step, op: "argmax".into(), layer: "output".into(), reason });
        }
        self.program.ending_in(what, self.window()?)
    }

    /// The window of the last value: the one that belongs to its scale. A verdict on a pair reads every bit, so that no
    /// distance that the ring holds is judged wrongly.
    pub fn window(&self) -> Result<Window, ProgramError> {
        if self.graph.post.judges() {
            return Ok(VERDICT);
        }
        let scale = self.program.infer()?.last().map_or(0, |v| v.scale);
        Ok(self.options.window(scale))
    }
}

/// A network that cannot be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// More fraction bits than a product leaves room for, or none.
    #[error("{0} fraction bits: must be 1 to 30")]
    FractionBits(u32),
    /// A window that a value at twice the fraction bits leaves no room for.
    #[error("{window_bits} window bits with {fraction_bits} fraction bits: must be 2 to {most}")]
    WindowBits {
        /// Bits asked for.
        window_bits: u32,
        /// Fraction bits.
        fraction_bits: u32,
        /// The most there can be.
        most: u32,
    },
    /// The graph makes no sense.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A weight that fixed point cannot hold.
    #[error("layer {layer}, {what}: {source}")]
    Weight {
        /// The layer.
        layer: String,
        /// Kernel or bias.
        what: &'static str,
        /// What is wrong with it.
        source: FixedError,
    },
    /// A layer whose parameters cannot be expressed.
    #[error("layer {layer}: {reason}")]
    Layer {
        /// The layer.
        layer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The steps do not fit together.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Weights that cannot be computed of trained tensors.
    #[error(transparent)]
    Tape(#[from] TapeError),
}

/// Runs the passes over a copy of `graph` and compiles the result.
///
/// Where [`Post::Distance`](crate::graph::Post::Distance) is asked for, a sample is two inputs, one after the other, and
/// the result the squared distance of what the network makes of them; where there is a bound, the bound less that. Both
/// meet the same weights in the same rounds.
pub fn compile(graph: &Graph, options: &CompileOptions) -> Result<Compiled, CompileError> {
    Ok(compile_saying(graph, options, &mut Vec::new())?.0)
}

/// The same; gives what each weight was multiplied with besides, and adds to `folds` what was folded.
fn compile_saying(
    graph: &Graph,
    options: &CompileOptions,
    folds: &mut Vec<Fold>,
) -> Result<(Compiled, Vec<f64>), CompileError> {
    options.check()?;
    let mut graph = graph.clone();
    let mut notes = pass::run_saying(&mut graph, folds)?;
    let shapes = graph.shapes()?;
    let scalar = shapes.iter().position(|s| graph.towers() > 1 && s.is_empty());
    if let Some(node) = scalar.and_then(|i| graph.nodes.get(i)) {
        let reason = "a value without dimensions has no place for two inputs".into();
        return Err(CompileError::Layer { layer: node.name.clone(), reason });
    }
    let mut lowering = Lowering::new(*options, shapes, graph.towers());
    for (id, node) in graph.nodes.iter().enumerate() {
        lowering.layer(id, node)?;
    }
    notes.append(&mut lowering.notes);
    let (program, weights, factors) = lowering.finish(graph.post)?;
    Ok((Compiled { program, weights, notes, graph, options: *options }, factors))
}
