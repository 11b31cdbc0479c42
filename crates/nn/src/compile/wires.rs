//! Values under construction: each is opened, truncated and reshaped at most once, and only when asked for.

use std::collections::BTreeMap;

use trefoil_mpc::program::{Op, Step, ValueId};
use trefoil_ring::geometry::{Pads, Pool2d};

/// Local operations that are put off one upon the other at most.
const DEEPEST: usize = 100;

/// Index of a wire.
pub(super) type WireId = usize;

/// A local operation, put off until it is known in which form its result is needed.
#[derive(Debug, Clone)]
pub(super) enum Local {
    Reshape(Vec<usize>),
    Pad(Pads),
    Average(Pool2d, u32),
    Scale(i64, u32),
    Add,
    Concat(usize),
    /// One of so many equal parts along a dimension: the dimension, where it starts, how long it is.
    Slice(usize, usize, usize),
}

impl Local {
    fn op(&self, xs: &[ValueId]) -> Op {
        let x = xs[0];
        match self {
            Local::Reshape(shape) => Op::Reshape { x, shape: shape.clone() },
            Local::Pad(pads) => Op::Pad { x, pads: *pads },
            Local::Average(pool, extra) => Op::AveragePool { x, pool: *pool, extra: *extra },
            Local::Scale(factor, extra) => Op::Scale { x, factor: *factor, extra: *extra },
            Local::Add => Op::Add { x, y: xs[1] },
            Local::Concat(axis) => Op::Concat { xs: xs.to_vec(), axis: *axis },
            Local::Slice(axis, start, len) => Op::Slice { x, axis: *axis, start: *start, len: *len },
        }
    }

    /// Whether opening the operand costs no more than opening the result, or all parts of it are used: then it is
    /// opened for all.
    fn keeps_elements(&self) -> bool {
        matches!(self, Local::Reshape(_) | Local::Pad(_) | Local::Scale(..) | Local::Slice(..))
    }
}

/// Where a wire's additive value comes from.
#[derive(Debug, Clone)]
enum Origin {
    Step(ValueId),
    Local(Local, Vec<WireId>),
}

/// A value at one scale, in the forms it has been needed in so far.
#[derive(Debug, Clone)]
struct Wire {
    layer: String,
    scale: u32,
    /// What the value must be divided by: an average pool's rounded factor over the true one.
    gain: f64,
    origin: Origin,
    /// Local operations put off below this one.
    depth: usize,
    additive: Option<ValueId>,
    masked: Option<ValueId>,
    truncated: BTreeMap<u32, WireId>,
}

/// The steps so far and the wires they make.
#[derive(Debug)]
pub(super) struct Wires {
    fraction_bits: u32,
    steps: Vec<Step>,
    wires: Vec<Wire>,
}

impl Wires {
    pub(super) fn new(fraction_bits: u32) -> Self {
        Self { fraction_bits, steps: Vec::new(), wires: Vec::new() }
    }

    /// The steps, ending with the additive value of `wire`, whose shape is `shape`.
    pub(super) fn finish(mut self, wire: WireId, shape: &[usize]) -> Vec<Step> {
        let x = self.additive(wire);
        if x + 1 != self.steps.len() {
            let layer = self.wires[wire].layer.clone();
            self.push(&layer, Op::Reshape { x, shape: shape.to_vec() });
        }
        self.steps
    }

    /// Appends a step.
    pub(super) fn push(&mut self, layer: &str, op: Op) -> ValueId {
        self.steps.push(Step { layer: layer.into(), op });
        self.steps.len() - 1
    }

    fn add(&mut self, layer: &str, origin: Origin, scale: u32, gain: f64) -> WireId {
        let layer = layer.into();
        let depth = match &origin {
            Origin::Step(_) => 0,
            Origin::Local(_, from) => from.iter().map(|&w| self.wires[w].depth + 1).max().unwrap_or(0),
        };
        let truncated = BTreeMap::new();
        self.wires.push(Wire { layer, scale, gain, origin, depth, additive: None, masked: None, truncated });
        self.wires.len() - 1
    }

    /// A wire for the additive result of `op`.
    pub(super) fn emit(&mut self, layer: &str, op: Op, scale: u32, gain: f64) -> WireId {
        let id = self.push(layer, op);
        self.add(layer, Origin::Step(id), scale, gain)
    }

    /// A wire for a local operation, not yet done.
    pub(super) fn local(&mut self, layer: &str, local: Local, from: Vec<WireId>, scale: u32, gain: f64) -> WireId {
        let wire = self.add(layer, Origin::Local(local, from), scale, gain);
        if self.wires[wire].depth > DEEPEST {
            let id = self.additive(wire);
            self.wires[wire].origin = Origin::Step(id);
            self.wires[wire].depth = 0;
        }
        wire
    }

    pub(super) fn scale(&self, wire: WireId) -> u32 {
        self.wires[wire].scale
    }

    pub(super) fn gain(&self, wire: WireId) -> f64 {
        self.wires[wire].gain
    }

    /// The wire as an additive value: one exists for every wire.
    pub(super) fn additive(&mut self, wire: WireId) -> ValueId {
        let Wire { layer, additive, origin, .. } = self.wires[wire].clone();
        let id = match (additive, origin) {
            (Some(id), _) | (None, Origin::Step(id)) => return id,
            (None, Origin::Local(local, from)) => {
                let xs: Vec<ValueId> = from.into_iter().map(|w| self.additive(w)).collect();
                self.push(&layer, local.op(&xs))
            }
        };
        self.wires[wire].additive = Some(id);
        id
    }

    /// The wire as a masked value, opened now if it was not before.
    pub(super) fn masked(&mut self, wire: WireId) -> ValueId {
        let Wire { layer, masked, origin, .. } = self.wires[wire].clone();
        if let Some(id) = masked {
            return id;
        }
        let id = match origin {
            Origin::Local(local, from) if self.opens_operands(&local, &from) => {
                let xs: Vec<ValueId> = from.into_iter().map(|w| self.masked(w)).collect();
                self.push(&layer, local.op(&xs))
            }
            _ => {
                let x = self.additive(wire);
                self.push(&layer, Op::Open { x })
            }
        };
        self.wires[wire].masked = Some(id);
        id
    }

    /// Whether the masked result is made of masked operands rather than opened itself.
    fn opens_operands(&self, local: &Local, from: &[WireId]) -> bool {
        match local {
            Local::Concat(_) => from.iter().any(|&w| self.is_open(w)),
            _ => local.keeps_elements() || from.iter().all(|&w| self.is_open(w)),
        }
    }

    /// Whether the wire can be had masked without opening anything, as far as a short look tells.
    fn is_open(&self, wire: WireId) -> bool {
        let w = &self.wires[wire];
        w.masked.is_some() || matches!(&w.origin, Origin::Local(_, from) if from.len() == 1 && self.is_open(from[0]))
    }

    /// The same value with no more than the program's fraction bits.
    pub(super) fn truncated(&mut self, wire: WireId) -> WireId {
        self.at_most(wire, self.fraction_bits)
    }

    /// The same value with no more than `f` fraction bits.
    pub(super) fn at_most(&mut self, wire: WireId, f: u32) -> WireId {
        let Wire { layer, scale, gain, masked, origin, truncated, .. } = self.wires[wire].clone();
        if scale <= f {
            return wire;
        }
        if let Some(t) = truncated.get(&f) {
            return *t;
        }
        let t = match origin {
            Origin::Local(local @ (Local::Reshape(_) | Local::Pad(_) | Local::Slice(..)), from) => {
                let from = from.into_iter().map(|w| self.at_most(w, f)).collect();
                self.local(&layer, local, from, f, gain)
            }
            Origin::Local(Local::Concat(axis), from)
                if masked.is_none() && from.iter().any(|&w| self.wires[self.unraised(w)].scale <= f) =>
            {
                let from: Vec<WireId> = from.into_iter().map(|w| self.at_most(self.unraised(w), f)).collect();
                let from = from.into_iter().map(|w| self.raised(w, f)).collect();
                self.local(&layer, Local::Concat(axis), from, f, gain)
            }
            _ => {
                let x = self.masked(wire);
                self.emit(&layer, Op::Truncate { x, shift: scale - f }, f, gain)
            }
        };
        self.wires[wire].truncated.insert(f, t);
        t
    }

    /// The same value at a scale at least as large: exact and local.
    pub(super) fn raised(&mut self, wire: WireId, scale: u32) -> WireId {
        let from = self.wires[wire].scale;
        if from >= scale {
            return wire;
        }
        let (layer, gain, extra) = (self.wires[wire].layer.clone(), self.wires[wire].gain, scale - from);
        self.local(&layer, Local::Scale(1 << extra, extra), vec![wire], scale, gain)
    }

    /// What [`Wires::raised`] made this wire of, if it did.
    fn unraised(&self, wire: WireId) -> WireId {
        match &self.wires[wire].origin {
            Origin::Local(Local::Scale(factor, extra), from) if *factor == 1 << extra => from[0],
            _ => wire,
        }
    }

    /// The value rid of its gain by a product with a public factor of `extra` more fraction bits.
    pub(super) fn without_gain(&mut self, wire: WireId, extra: u32) -> WireId {
        let Wire { layer, scale, gain, .. } = self.wires[wire].clone();
        if gain == 1.0 {
            return wire;
        }
        let factor = (f64::from(extra).exp2() / gain).round() as i64;
        self.local(&layer, Local::Scale(factor, extra), vec![wire], scale + extra, 1.0)
    }
}
