//! One operation of a tape after the other, as wires.

use std::collections::{HashMap, HashSet};

use trefoil_mpc::program::{Bilinear, Op as Step, Rows as StepRows, Step as ProgramStep, ValueId as StepId};
use trefoil_ring::geometry::Pool2d;

use super::early::truncating_selections;
use super::folding::{BIAS_BITS, WEIGHT_BITS};
use super::softmax::Softmaxes;
use super::summands::summands;
use super::wires::{Bits, Dims, Local, WireId, Wires};
use super::{FRACTION_BITS, LowerError};
use crate::fit::ARGUMENT_BITS;
use crate::tape::{Map, Op, Rows, Tape, Value, ValueId};

/// More fraction bits for the reciprocal of a window's size, where it is no power of two.
const SHARE_BITS: u32 = 12;

/// What a value of the tape has become.
#[derive(Debug, Clone)]
enum Lowered {
    Number(WireId),
    Bits(Bits),
    Pattern(StepId),
    /// Not needed.
    Nothing,
}

/// The steps of a program, and the step and scale of what it reveals.
type Steps = (Vec<ProgramStep>, Option<(StepId, u32)>);

/// The values lowered so far.
pub(super) struct Visitor<'a> {
    pub(super) tape: &'a Tape,
    pub(super) wires: Wires,
    values: Vec<Lowered>,
    /// Reciprocals that stay wide, so that a product with them needs no opening more.
    pub(super) wide: HashSet<WireId>,
    stores: Vec<(usize, WireId)>,
    softmaxes: Softmaxes,
    /// Which element is the largest one, by the value that holds the largest.
    winners: HashMap<ValueId, Bits>,
    /// Selections that truncate at once.
    early: Vec<bool>,
    /// Which state or weight of the program each of the tape's is, and its fraction bits.
    places: Vec<(usize, u32)>,
    /// Whether the states are fixed weights.
    fixed: bool,
    /// Whether what is computed is more precise than in training.
    pub(super) fine: bool,
    /// What is added up, where that is the case.
    summands: Vec<bool>,
}

impl<'a> Visitor<'a> {
    /// `places` says which state of the program each of the tape's is, and its fraction bits.
    pub(super) fn new(tape: &'a Tape, places: Vec<(usize, u32)>) -> Self {
        let wires = Wires::new(FRACTION_BITS);
        Self {
            tape,
            wires,
            values: Vec::new(),
            wide: HashSet::new(),
            stores: Vec::new(),
            softmaxes: Softmaxes::find(tape),
            winners: HashMap::new(),
            early: truncating_selections(tape),
            places,
            fixed: false,
            fine: false,
            summands: Vec::new(),
        }
    }

    /// Takes the states as fixed weights.
    pub(super) fn fix(&mut self) {
        self.fixed = true;
    }

    /// Computes weights: few numbers, once, which everything that comes after is made of.
    pub(super) fn refine(&mut self) {
        (self.wires, self.fine) = (Wires::new(WEIGHT_BITS), true);
        self.summands = summands(self.tape);
    }

    /// The steps of a tape that stores nothing: the last gives all outputs, joined and additive, at `scale`.
    pub(super) fn joined(&mut self, scale: u32) -> Result<Vec<ProgramStep>, LowerError> {
        self.all_values()?;
        self.wires.layer("features");
        let mut xs = Vec::with_capacity(self.tape.outputs.len());
        for id in &self.tape.outputs {
            let failed = |reason| LowerError::Operation { layer: "features".into(), op: "concat", reason };
            let x = self.number(*id).map_err(failed)?;
            let x = self.wires.at(x, scale);
            xs.push(self.wires.additive(x));
        }
        self.wires.push(Step::Concat { xs, axis: 0 });
        Ok(std::mem::replace(&mut self.wires, Wires::new(FRACTION_BITS)).finish())
    }

    /// All steps. What the states become is computed last: by then it is known which forms there are already.
    pub(super) fn steps(&mut self) -> Result<Steps, LowerError> {
        if self.tape.outputs.len() > 1 {
            return Err(LowerError::Outputs(self.tape.outputs.len()));
        }
        self.all_values()?;
        for (slot, x) in std::mem::take(&mut self.stores) {
            self.wires.layer(&self.tape.states[slot].name);
            let (slot, scale) = self.places[slot];
            let x = self.wires.at(x, scale);
            let x = self.wires.additive(x);
            self.wires.push(Step::Store { slot, x });
        }
        let output = match self.tape.outputs.first() {
            Some(&id) => {
                let x = self.number(id).map_err(|reason| LowerError::Operation {
                    layer: "output".into(),
                    op: "reveal",
                    reason,
                })?;
                Some((self.wires.additive(x), self.wires.scale(x)))
            }
            None => None,
        };
        let wires = std::mem::replace(&mut self.wires, Wires::new(FRACTION_BITS));
        Ok((wires.finish(), output))
    }

    /// Lowers one value after the other.
    fn all_values(&mut self) -> Result<(), LowerError> {
        let needed = self.softmaxes.needed(self.tape);
        for (id, value) in self.tape.values.iter().enumerate() {
            if !needed[id] {
                self.values.push(Lowered::Nothing);
                continue;
            }
            self.wires.layer(&value.layer);
            let lowered = self.value(id, value).map_err(|reason| LowerError::Operation {
                layer: value.layer.clone(),
                op: name(&value.op),
                reason,
            })?;
            self.values.push(lowered);
        }
        Ok(())
    }

    /// The wire of a value that holds numbers.
    pub(super) fn number(&self, id: ValueId) -> Result<WireId, String> {
        match self.values.get(id) {
            Some(Lowered::Number(w)) => Ok(*w),
            _ => Err(format!("value {id} holds no numbers")),
        }
    }

    fn bits(&self, id: ValueId) -> Result<Bits, String> {
        match self.values.get(id) {
            Some(Lowered::Bits(b)) => Ok(b.clone()),
            _ => Err(format!("value {id} holds no secret bits")),
        }
    }

    fn value(&mut self, id: ValueId, value: &Value) -> Result<Lowered, String> {
        let dims = dims(value);
        if let Some(x) = self.softmaxes.largest_of(id) {
            let x = self.number(x)?;
            let (top, winner) = self.largest(x, dims);
            self.winners.extend(winner.map(|w| (id, w)));
            return Ok(Lowered::Number(top));
        }
        if let Some((top, y)) = self.softmaxes.hit_of(id)
            && let Some(winner) = self.winners.get(&top).cloned()
        {
            let y = self.number(y)?;
            return Ok(Lowered::Number(self.hit(&winner, y, dims)));
        }
        let moved = |this: &mut Self, x: ValueId, local: Local| -> Result<WireId, String> {
            let x = this.number(x)?;
            Ok(this.wires.local(local, vec![x], dims.clone()))
        };
        let wire = match &value.op {
            Op::Rows => self.wires.emit_masked(Step::Rows, dims, FRACTION_BITS),
            Op::State { slot } => {
                let (slot, scale) = self.places[*slot];
                if self.fixed {
                    self.wires.emit_masked(Step::Weight { index: slot }, dims, scale)
                } else {
                    self.wires.emit(Step::State { slot }, dims, scale)
                }
            }
            Op::Store { slot, x } => {
                let x = self.number(*x)?;
                self.stores.push((*slot, x));
                x
            }
            Op::Product { x, y, map } => {
                let (mut x, mut y) = (self.number(*x)?, self.number(*y)?);
                if self.fine && self.summands[id] {
                    (x, y) = (self.wires.at_most(x, BIAS_BITS), self.wires.at_most(y, BIAS_BITS));
                }
                self.product(x, y, map, dims)
            }
            Op::Add { x, y } => {
                let mut xs = [self.number(*x)?, self.number(*y)?];
                if self.fine {
                    // A bias may be as large as its products.
                    xs = xs.map(|x| self.wires.at_most(x, 2 * BIAS_BITS));
                }
                let xs = self.wires.level(&xs, dims.rows);
                self.wires.local(Local::Add, xs, dims)
            }
            Op::Scale { x, factor } => {
                let x = self.number(*x)?;
                self.wires.times(x, *factor)?
            }
            Op::Rate { x, rate } => {
                let x = self.number(*x)?;
                self.wires.rated(x, *rate)
            }
            Op::Offset { x, by } => {
                let x = self.number(*x)?;
                let scale = self.wires.scale(x);
                self.wires.local(Local::Offset(*by, scale), vec![x], dims)
            }
            Op::Sign { x } => {
                let x = self.number(*x)?;
                return Ok(Lowered::Bits(self.wires.sign(x)));
            }
            Op::Select { bit, x } => {
                let (bits, x) = (self.bits(*bit)?, self.number(*x)?);
                let y = self.wires.select(&bits, x);
                if self.early[id] { self.wires.at_most(y, FRACTION_BITS) } else { y }
            }
            Op::Bit { bit } => {
                let bits = self.bits(*bit)?;
                self.wires.number(&bits)
            }
            Op::Function { x, function } => self.function(*x, *function)?,
            Op::Likelihoods { x, shown } => {
                let x = self.number(*x)?;
                let shift = self.wires.scale(x).saturating_sub(FRACTION_BITS);
                let x = self.wires.additive(x);
                self.wires.emit(Step::Likelihoods { x, shift, shown: *shown }, dims, FRACTION_BITS)
            }
            Op::Sum { x, keep, batch } => moved(self, *x, Local::Sum { keep: *keep, batch: *batch })?,
            Op::Broadcast { x, shape, batch } => {
                moved(self, *x, Local::Broadcast { shape: shape.clone(), batch: *batch })?
            }
            Op::Window { x, pool, index } => moved(self, *x, Local::Window(*pool, *index))?,
            Op::Unwindow { x, pool, index } => moved(self, *x, Local::Unwindow(*pool, *index))?,
            Op::AveragePool { x, pool } => moved(self, *x, Local::Average(*pool, share_bits(pool)))?,
            Op::Spread { x, pool } => moved(self, *x, Local::Spread(*pool, share_bits(pool)))?,
            Op::Reshape { x, shape } => moved(self, *x, Local::Reshape(shape.clone()))?,
            Op::Pad { x, pads } => moved(self, *x, Local::Pad(*pads))?,
            Op::Crop { x, pads } => moved(self, *x, Local::Crop(*pads))?,
            Op::Slice { x, axis, start, len } => {
                moved(self, *x, Local::Slice { axis: *axis, start: *start, len: *len })?
            }
            Op::Concat { xs, axis } => {
                let xs = xs.iter().map(|x| self.number(*x)).collect::<Result<Vec<_>, _>>()?;
                let xs = self.wires.level(&xs, dims.rows);
                self.wires.local(Local::Concat(*axis), xs, dims)
            }
            Op::Pattern { shape, keep } => {
                let step = Step::Pattern { shape: shape.clone(), keep: *keep };
                return Ok(Lowered::Pattern(self.wires.push(step)));
            }
            Op::Drop { x, pattern } => {
                let Some(Lowered::Pattern(p)) = self.values.get(*pattern) else {
                    return Err(format!("value {pattern} is no pattern"));
                };
                let p = *p;
                moved(self, *x, Local::Drop(p))?
            }
        };
        // One rounding of the logits for everything that is made of them: the largest is one of them, to the bit.
        let logits = self.softmaxes.is_logits(id);
        Ok(Lowered::Number(if logits { self.wires.at_most(wire, ARGUMENT_BITS) } else { wire }))
    }

    fn product(&mut self, x: WireId, y: WireId, map: &Map, dims: Dims) -> WireId {
        if self.wide.contains(&self.wires.source(y)) {
            let x = self.wires.at_most(x, FRACTION_BITS);
            let z = self.wires.product_as_it_is(x, y, Bilinear::Elementwise, dims);
            return self.wires.at(z, FRACTION_BITS);
        }
        self.wires.product(x, y, bilinear(map), dims)
    }
}

fn dims(value: &Value) -> Dims {
    let rows = match value.rows {
        Rows::Each => StepRows::Each,
        Rows::One => StepRows::One,
    };
    Dims::new(&value.shape, rows)
}

fn bilinear(map: &Map) -> Bilinear {
    match map {
        Map::Elementwise => Bilinear::Elementwise,
        Map::Dense => Bilinear::Dense,
        Map::DenseInput => Bilinear::DenseInput,
        Map::DenseWeights => Bilinear::DenseWeights,
        Map::Conv(g) => Bilinear::Conv(*g),
        Map::ConvInput(g) => Bilinear::ConvInput(*g),
        Map::ConvWeights(g) => Bilinear::ConvWeights(*g),
    }
}

/// Bits in which the reciprocal of a window's size is exact, or close.
fn share_bits(pool: &Pool2d) -> u32 {
    let n = pool.window.0.saturating_mul(pool.window.1);
    if n.is_power_of_two() && pool.pads.is_none() { n.trailing_zeros().min(20) } else { SHARE_BITS }
}

fn name(op: &Op) -> &'static str {
    match op {
        Op::Rows => "rows",
        Op::State { .. } => "state",
        Op::Store { .. } => "store",
        Op::Product { .. } => "product",
        Op::Add { .. } => "add",
        Op::Scale { .. } => "scale",
        Op::Rate { .. } => "rate",
        Op::Offset { .. } => "offset",
        Op::Sign { .. } => "sign",
        Op::Select { .. } => "select",
        Op::Bit { .. } => "bit",
        Op::Function { .. } => "function",
        Op::Likelihoods { .. } => "likelihoods",
        Op::Sum { .. } => "sum",
        Op::Broadcast { .. } => "broadcast",
        Op::Window { .. } => "window",
        Op::Unwindow { .. } => "unwindow",
        Op::AveragePool { .. } => "average-pool",
        Op::Spread { .. } => "spread",
        Op::Reshape { .. } => "reshape",
        Op::Pad { .. } => "pad",
        Op::Crop { .. } => "crop",
        Op::Slice { .. } => "slice",
        Op::Concat { .. } => "concat",
        Op::Pattern { .. } => "pattern",
        Op::Drop { .. } => "drop",
    }
}
