//! Fixed-point values on their way into a program, in the forms they have been needed in so far.
//!
//! A wire is a value at one scale. Local operations and selections are put off until it is known in which form, and at
//! which scale, their result is needed: then they cost an opening or a truncation less. Nothing is done twice.

mod local;

use std::collections::{BTreeMap, HashMap};

use trefoil_mpc::compare::{Compare, Selecting};
use trefoil_mpc::program::{Bilinear, Op, Rows, Step, ValueId, Window};

use crate::fit::Fit;
pub(super) use local::Local;

/// Index of a wire.
pub(super) type WireId = usize;

/// Bits that a comparison in training reads: values lie within -2^15 and 2^15 at 16 fraction bits.
pub(super) const WINDOW_BITS: u32 = 32;
/// The largest scale at which a value is compared.
const COMPARED: u32 = 32;

/// Shape of one row, and how many rows there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dims {
    pub(super) shape: Vec<usize>,
    pub(super) rows: Rows,
}

impl Dims {
    pub(super) fn new(shape: &[usize], rows: Rows) -> Self {
        Self { shape: shape.to_vec(), rows }
    }

    /// Elements to be opened, a row per sample counted as a usual batch.
    fn weight(&self) -> u64 {
        const BATCH: u64 = 128;
        let n = self.shape.iter().map(|d| *d as u64).product::<u64>();
        if self.rows == Rows::Each { n * BATCH } else { n }
    }
}

/// Where a wire's value comes from.
#[derive(Debug, Clone)]
enum Origin {
    /// A step with an additive result.
    Additive(ValueId),
    /// A step with a masked result: rows of the data set.
    Masked(ValueId),
    /// Bits times a wire of the same scale.
    Select(Bits, WireId),
    /// A local operation.
    Local(Local, Vec<WireId>),
}

/// Masked bits: the result of a comparison.
#[derive(Debug, Clone)]
pub(super) struct Bits {
    pub(super) id: ValueId,
    pub(super) dims: Dims,
}

#[derive(Debug, Clone)]
struct Wire {
    layer: usize,
    dims: Dims,
    scale: u32,
    origin: Origin,
    /// Whether it is made of additive values only.
    shared: bool,
    additive: Option<ValueId>,
    masked: Option<ValueId>,
    truncated: BTreeMap<u32, WireId>,
}

/// The steps so far and the wires they make.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) fraction_bits: u32,
    steps: Vec<Step>,
    wires: Vec<Wire>,
    layers: Vec<String>,
}

impl Wires {
    pub(super) fn new(fraction_bits: u32) -> Self {
        Self { fraction_bits, steps: Vec::new(), wires: Vec::new(), layers: vec![String::new()] }
    }

    /// Names the layer of what follows.
    pub(super) fn layer(&mut self, name: &str) {
        if self.layers.last().is_none_or(|l| l != name) {
            self.layers.push(name.into());
        }
    }

    pub(super) fn finish(self) -> Vec<Step> {
        self.steps
    }

    fn push_for(&mut self, layer: usize, op: Op) -> ValueId {
        self.steps.push(Step { layer: self.layers[layer].clone(), op });
        self.steps.len() - 1
    }

    /// Appends a step.
    pub(super) fn push(&mut self, op: Op) -> ValueId {
        self.push_for(self.layers.len() - 1, op)
    }

    fn add(&mut self, dims: Dims, scale: u32, origin: Origin) -> WireId {
        let layer = self.layers.len() - 1;
        self.add_for(layer, dims, scale, origin)
    }

    fn add_for(&mut self, layer: usize, dims: Dims, scale: u32, origin: Origin) -> WireId {
        let (additive, masked) = match origin {
            Origin::Additive(id) => (Some(id), None),
            Origin::Masked(id) => (None, Some(id)),
            _ => (None, None),
        };
        let shared = match &origin {
            Origin::Additive(_) | Origin::Select(..) => true,
            Origin::Masked(_) => false,
            Origin::Local(_, from) => from.iter().all(|w| self.wires[*w].shared),
        };
        self.wires.push(Wire { layer, dims, scale, origin, shared, additive, masked, truncated: BTreeMap::new() });
        self.wires.len() - 1
    }

    /// A wire for the additive result of `op`.
    pub(super) fn emit(&mut self, op: Op, dims: Dims, scale: u32) -> WireId {
        let id = self.push(op);
        self.add(dims, scale, Origin::Additive(id))
    }

    /// A wire for the masked result of `op`.
    pub(super) fn emit_masked(&mut self, op: Op, dims: Dims, scale: u32) -> WireId {
        let id = self.push(op);
        self.add(dims, scale, Origin::Masked(id))
    }

    /// A wire for a local operation on wires of one scale, not yet done.
    pub(super) fn local(&mut self, local: Local, from: Vec<WireId>, dims: Dims) -> WireId {
        let scale = self.wires[from[0]].scale + local.extra();
        self.add(dims, scale, Origin::Local(local, from))
    }

    pub(super) fn scale(&self, wire: WireId) -> u32 {
        self.wires[wire].scale
    }

    pub(super) fn dims(&self, wire: WireId) -> &Dims {
        &self.wires[wire].dims
    }

    /// The wire that a wire is another shape of.
    pub(super) fn source(&self, wire: WireId) -> WireId {
        match &self.wires[wire].origin {
            Origin::Local(Local::Reshape(_), from) => self.source(from[0]),
            _ => wire,
        }
    }

    /// Product of two wires, each brought to the program's fraction bits if it has more.
    pub(super) fn product(&mut self, x: WireId, y: WireId, map: Bilinear, dims: Dims) -> WireId {
        let (x, y) = (self.at_most(x, self.fraction_bits), self.at_most(y, self.fraction_bits));
        self.product_as_it_is(x, y, map, dims)
    }

    /// Product of two wires at the scales they have.
    pub(super) fn product_as_it_is(&mut self, x: WireId, y: WireId, map: Bilinear, dims: Dims) -> WireId {
        let scale = self.wires[x].scale + self.wires[y].scale;
        let (x, y) = (self.masked(x), self.masked(y));
        self.emit(Op::Product { x, y, map }, dims, scale)
    }

    /// [x >= 0], to one unit of the program's fraction bits.
    pub(super) fn sign(&mut self, x: WireId) -> Bits {
        let x = self.at_most(x, COMPARED);
        let lo = self.wires[x].scale.saturating_sub(self.fraction_bits);
        self.sign_in(x, Window { lo, k: WINDOW_BITS })
    }

    /// [x >= 0] by the bits of `window`.
    pub(super) fn sign_in(&mut self, x: WireId, window: Window) -> Bits {
        let dims = self.wires[x].dims.clone();
        let x = self.masked(x);
        Bits { id: self.push(Op::Sign { x, window, compare: Compare::default() }), dims }
    }

    /// b x, at the scale of x until it is needed at another.
    pub(super) fn select(&mut self, bits: &Bits, x: WireId) -> WireId {
        let Wire { dims, scale, .. } = self.wires[x].clone();
        // It will be needed masked: what is decided before it is used had better know.
        self.masked(x);
        self.add(dims, scale, Origin::Select(bits.clone(), x))
    }

    /// A bit as a number without fraction bits.
    pub(super) fn number(&mut self, bits: &Bits) -> WireId {
        self.emit(Op::Bit { bit: bits.id }, bits.dims.clone(), 0)
    }

    /// A function of a wire of the fit's scale.
    pub(super) fn piecewise(&mut self, x: WireId, fit: Fit) -> WireId {
        let dims = self.wires[x].dims.clone();
        let x = self.masked(x);
        let Fit { knots, pieces, scale, .. } = fit;
        let window = Window { lo: 0, k: WINDOW_BITS };
        self.emit(
            Op::Piecewise {
                x,
                knots,
                pieces,
                scale,
                window,
                compare: Compare::default(),
                select: Selecting::default(),
            },
            dims,
            scale,
        )
    }

    /// The wire as an additive value.
    pub(super) fn additive(&mut self, wire: WireId) -> ValueId {
        let Wire { layer, origin, additive, scale, .. } = self.wires[wire].clone();
        if let Some(id) = additive {
            return id;
        }
        let id = match origin {
            Origin::Select(bits, x) => match self.finest(wire) {
                // A truncated selection is as good as one that is not: its lowest bits are rounding.
                Some(t) => {
                    let extra = scale - self.wires[t].scale;
                    let x = self.additive(t);
                    self.push_for(layer, Op::Scale { x, factor: 1 << extra, extra })
                }
                None => {
                    let x = self.masked(x);
                    self.push_for(layer, Op::Select { bit: bits.id, x, shift: 0 })
                }
            },
            Origin::Local(local, from) if from.iter().all(|w| self.has_shares(*w)) => {
                let xs: Vec<ValueId> = from.iter().map(|w| self.additive(*w)).collect();
                self.push_for(layer, local.op(&xs))
            }
            _ => {
                // What is only masked becomes additive by a truncation of nothing: local, exact.
                let x = self.masked(wire);
                let x = self.push_for(layer, Op::Scale { x, factor: 2, extra: 1 });
                self.push_for(layer, Op::Truncate { x, shift: 1 })
            }
        };
        self.wires[wire].additive = Some(id);
        id
    }

    /// The wire as a masked value: opened, or made of masked values where that opens less.
    pub(super) fn masked(&mut self, wire: WireId) -> ValueId {
        let Wire { layer, origin, masked, .. } = self.wires[wire].clone();
        if let Some(id) = masked {
            return id;
        }
        let id = match origin {
            Origin::Local(local, from) if self.opens_operands(wire, &from) => {
                let xs: Vec<ValueId> = from.iter().map(|w| self.masked(*w)).collect();
                self.push_for(layer, local.op(&xs))
            }
            _ => {
                let x = self.additive(wire);
                self.push_for(layer, Op::Open { x })
            }
        };
        self.wires[wire].masked = Some(id);
        id
    }

    /// Whether masked operands are to be had for no more than the wire's own opening.
    fn opens_operands(&self, wire: WireId, from: &[WireId]) -> bool {
        let mut known = HashMap::new();
        let operands: u64 = from.iter().map(|w| self.price(*w, &mut known)).sum();
        operands <= self.wires[wire].dims.weight() || !self.has_shares(wire)
    }

    /// Elements that must be opened to have the wire masked.
    fn price(&self, wire: WireId, known: &mut HashMap<WireId, u64>) -> u64 {
        let w = &self.wires[wire];
        if w.masked.is_some() {
            return 0;
        }
        if let Some(price) = known.get(&wire) {
            return *price;
        }
        let own = w.dims.weight();
        let price = match &w.origin {
            Origin::Local(_, from) => own.min(from.iter().map(|w| self.price(*w, known)).sum()),
            _ => own,
        };
        known.insert(wire, price);
        price
    }

    /// Whether the wire can be had as an additive value without dealing anything.
    fn has_shares(&self, wire: WireId) -> bool {
        self.wires[wire].shared || self.wires[wire].additive.is_some()
    }

    /// The finest truncation of the wire so far.
    fn finest(&self, wire: WireId) -> Option<WireId> {
        self.wires[wire].truncated.last_key_value().map(|(_, t)| *t)
    }

    /// The same value with at most `scale` fraction bits.
    pub(super) fn at_most(&mut self, wire: WireId, scale: u32) -> WireId {
        if self.wires[wire].scale <= scale { wire } else { self.at(wire, scale) }
    }

    /// The same value at `scale`: raised exactly, or truncated.
    pub(super) fn at(&mut self, wire: WireId, scale: u32) -> WireId {
        let Wire { layer, dims, scale: from_scale, origin, truncated, masked, additive, .. } = self.wires[wire].clone();
        if from_scale == scale {
            return wire;
        }
        if let Some(t) = truncated.get(&scale) {
            return *t;
        }
        if from_scale < scale {
            let extra = scale - from_scale;
            return self.add_for(layer, dims, scale, Origin::Local(Local::Scale(1 << extra, extra), vec![wire]));
        }
        let t = match origin {
            Origin::Local(Local::Scale(factor, extra), from)
                if factor == 1 << extra && self.wires[from[0]].scale <= scale =>
            {
                self.at(from[0], scale)
            }
            Origin::Select(bits, x) if additive.is_none() => {
                let x = self.masked(x);
                let id = self.push_for(layer, Op::Select { bit: bits.id, x, shift: from_scale - scale });
                self.add_for(layer, dims, scale, Origin::Additive(id))
            }
            Origin::Local(local, from) if masked.is_none() && self.truncates_operands(&local, &from, scale) => {
                let from: Vec<WireId> = from.into_iter().map(|w| self.at(w, scale - local.extra())).collect();
                self.add_for(layer, dims, scale, Origin::Local(local.at(scale), from))
            }
            _ => {
                let x = self.masked(wire);
                let id = self.push_for(layer, Op::Truncate { x, shift: from_scale - scale });
                self.add_for(layer, dims, scale, Origin::Additive(id))
            }
        };
        self.wires[wire].truncated.insert(scale, t);
        t
    }

    /// Whether a local operation is better done on truncated operands than on what is truncated afterwards.
    fn truncates_operands(&self, local: &Local, from: &[WireId], scale: u32) -> bool {
        let there = |w: &WireId| {
            let w = &self.wires[*w];
            w.scale <= scale || w.truncated.contains_key(&scale)
        };
        local.extra() == 0 && (local.keeps_elements() || local.is_movement() && from.iter().all(there))
    }
}
