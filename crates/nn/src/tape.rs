//! A network, its training step and its metrics as a small program over tensors of real numbers: the one
//! description that is interpreted in the clear and lowered to a program for the servers.
//!
//! Every value is known by its shape, the batch left out, and by its [`Rows`]: one for each sample, or one for the
//! whole batch (weights, sums over the batch, what an optimiser remembers). [`Tape::push`] checks every operation;
//! [`grad::gradients`] extends a tape by its own derivative.

mod build;
pub mod float;
mod fold;
pub mod grad;
mod infer;
mod op;
mod sweep;

use thiserror::Error;

use crate::graph::named;

pub use op::{Function, Map, Op};

/// Index of a value in [`Tape::values`].
pub type ValueId = usize;

/// How often a value exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// Once for each sample.
    Each,
    /// Once for the whole batch.
    One,
}

/// What a value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Numbers, secret when computed on shares.
    Number,
    /// Secret bits.
    Bits,
    /// Bits known to the servers.
    Pattern,
}

/// A value: what gives it, and what it looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The layer it belongs to, for tables and errors.
    pub layer: String,
    /// The operation.
    pub op: Op,
    /// Shape, the batch left out.
    pub shape: Vec<usize>,
    /// How often it exists.
    pub rows: Rows,
    /// What it holds.
    pub kind: Kind,
}

impl Value {
    /// Elements of one row.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements for a batch of `batch` samples.
    pub fn count(&self, batch: usize) -> usize {
        match self.rows {
            Rows::Each => batch * self.elements(),
            Rows::One => self.elements(),
        }
    }
}

/// What a state is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A parameter of the model that gradients change.
    Parameter,
    /// A parameter of the model that gradients do not change: of a frozen layer, or a moving average.
    Fixed,
    /// What the optimiser remembers; zero at first.
    Memory,
    /// A sum over the samples seen; zero at the start of each epoch.
    Metric,
}

/// A tensor kept from step to step, one for the whole batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its name: `layer/tensor`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
}

/// The program.
#[derive(Debug, Clone, PartialEq)]
pub struct Tape {
    /// What is kept from step to step.
    pub states: Vec<State>,
    /// How many public numbers each step is given.
    pub rates: usize,
    /// The values in the order in which they are computed; value 0 is [`Op::Rows`].
    pub values: Vec<Value>,
    /// The values wanted by the one who runs the tape, besides the states.
    pub outputs: Vec<ValueId>,
    /// Derivatives known better than the chain rule would find them, by the value they are for.
    rules: Vec<(ValueId, grad::Rule)>,
    /// The layer that is being added.
    layer: String,
}

/// An operation that does not fit its operands, or data that do not fit the tape.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{reason}", named(.layer))]
pub struct TapeError {
    /// The layer; empty where it is the network as a whole.
    pub layer: String,
    /// What is wrong.
    pub reason: String,
}

impl Tape {
    /// A tape whose samples are records of `record` numbers.
    pub fn new(record: usize) -> Result<Self, TapeError> {
        let (states, values, outputs, rules) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut tape = Self { states, rates: 0, values, outputs, rules, layer: "input".into() };
        let reason = format!("a record of {record} numbers: must be 1 to {}", trefoil_mpc::program::MAX_ELEMENTS);
        if record == 0 || record > trefoil_mpc::program::MAX_ELEMENTS {
            return Err(TapeError { layer: tape.layer, reason });
        }
        tape.append(Op::Rows, vec![record], Rows::Each, Kind::Number);
        Ok(tape)
    }

    /// Size of a record.
    pub fn record(&self) -> usize {
        self.values[0].elements()
    }

    /// Names the layer that the following values belong to.
    pub fn enter(&mut self, layer: &str) {
        self.layer = layer.into();
    }

    /// Declares a state and gives its slot.
    pub fn declare(&mut self, name: String, shape: Vec<usize>, role: Role) -> usize {
        self.states.push(State { name, shape, role });
        self.states.len() - 1
    }

    /// Declares a public number given for each step.
    pub fn rate(&mut self) -> usize {
        self.rates += 1;
        self.rates - 1
    }

    fn append(&mut self, op: Op, shape: Vec<usize>, rows: Rows, kind: Kind) -> ValueId {
        self.values.push(Value { layer: self.layer.clone(), op, shape, rows, kind });
        self.values.len() - 1
    }
}
