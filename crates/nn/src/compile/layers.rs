//! What each layer becomes.

use trefoil_mpc::Compare;
use trefoil_mpc::program::{Linear, Op, Program, WeightSpec};
use trefoil_ring::Tensor;
use trefoil_ring::fixed::encode_one;
use trefoil_ring::geometry::Pool2d;

use super::functions::{GELU, SIGMOID, SILU, SOFTPLUS, TANH};
use super::wires::{Local, WireId, Wires};
use super::{CompileError, CompileOptions};
use crate::graph::{Array, Layer, Node, NodeId, Post};

/// Most fraction bits that a public factor may add.
const MOST_EXTRA: u32 = 20;
/// Most fraction bits of a value within -1 and 1 that nothing but a truncation reads.
const MOST_SCALE: u32 = 60;
/// Fraction bits beyond the size of its window that an average pool's factor is given where windows differ.
const AVERAGE_BITS: u32 = 8;

/// The program under construction.
pub(super) struct Lowering {
    pub(super) options: CompileOptions,
    /// Shapes of one input's values.
    pub(super) shapes: Vec<Vec<usize>>,
    /// How many inputs the network is applied to: their values lie side by side in the last dimension.
    pub(super) towers: usize,
    pub(super) wires: Wires,
    /// The wire of each node's output.
    outputs: Vec<WireId>,
    specs: Vec<WeightSpec>,
    weights: Vec<Tensor>,
    /// What each weight was multiplied with.
    factors: Vec<f64>,
    /// What is approximated.
    pub(super) notes: Vec<String>,
}

impl Lowering {
    pub(super) fn new(options: CompileOptions, shapes: Vec<Vec<usize>>, towers: usize) -> Self {
        let (wires, outputs, specs) = (Wires::new(options.fraction_bits), Vec::new(), Vec::new());
        let (weights, factors, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { options, shapes, towers, wires, outputs, specs, weights, factors, notes }
    }

    /// Ends the program with the last layer's value, additive; of two towers with what there is to say of their distance.
    /// The program, its weights, and what each was multiplied with.
    pub(super) fn finish(mut self, post: Post) -> Result<(Program, Vec<Tensor>, Vec<f64>), CompileError> {
        let last = self.outputs.len() - 1;
        let mut shape = self.shapes[last].clone();
        let mut wire = self.outputs[last];
        if self.towers > 1 {
            (wire, shape) = (self.distance(wire, post)?, vec![1]);
        }
        let wire = self.without_gain(wire);
        let wire = self.comparable(wire);
        let program = Program {
            fraction_bits: self.options.fraction_bits,
            input_shape: self.input_shape(),
            weights: self.specs,
            states: vec![],
            rates: 0,
            steps: self.wires.finish(wire, &shape),
        };
        program.infer()?;
        Ok((program, self.weights, self.factors))
    }

    /// Adds the steps of one layer.
    pub(super) fn layer(&mut self, id: NodeId, node: &Node) -> Result<(), CompileError> {
        let name = node.name.as_str();
        let mut inputs: Vec<WireId> = node.inputs.iter().map(|&i| self.outputs[i]).collect();
        if !takes_any_scale(&node.layer) {
            inputs.iter_mut().for_each(|w| *w = self.comparable(*w));
        }
        let wire = match &node.layer {
            Layer::Input { .. } => self.input(name),
            Layer::Dense { kernel, bias } => {
                let map = Linear::Dense { inputs: kernel.shape[0], outputs: kernel.shape[1] };
                self.linear((id, node), inputs[0], map, kernel, bias.as_ref())?
            }
            Layer::Conv2d { geometry, kernel, bias } => {
                self.linear((id, node), inputs[0], Linear::Conv(*geometry), kernel, bias.as_ref())?
            }
            Layer::ChannelAffine { .. } | Layer::BatchNorm(_) | Layer::Dropout { .. } => {
                return Err(fault(name, "the passes left a layer that they take out".into()));
            }
            Layer::Sigmoid => self.fitted(name, inputs[0], &SIGMOID)?,
            Layer::Tanh => self.fitted(name, inputs[0], &TANH)?,
            Layer::HardSigmoid { slope } => self.hard_sigmoid(name, inputs[0], f64::from(*slope))?,
            Layer::Softplus => self.fitted(name, inputs[0], &SOFTPLUS)?,
            Layer::Elu { alpha } => self.elu(name, inputs[0], f64::from(*alpha))?,
            Layer::Silu => self.fitted(name, inputs[0], &SILU)?,
            Layer::Gelu => self.fitted(name, inputs[0], &GELU)?,
            Layer::Softmax => {
                let reason =
                    "private prediction computes no softmax; one at the end of a network is left to the client";
                return Err(fault(name, reason.into()));
            }
            Layer::MaxPool(pool) => {
                let pool = self.wide(pool);
                let (scale, gain) = (self.wires.scale(inputs[0]), self.wires.gain(inputs[0]));
                let x = self.wires.masked(inputs[0]);
                let window = self.options.difference_window(scale);
                self.wires.emit(name, Op::MaxPool { x, pool, window, compare: Compare::default() }, scale, gain)
            }
            Layer::AveragePool(pool) => {
                self.average(name, inputs[0], pool, (self.shapes[id][0], self.shapes[id][1]))?
            }
            Layer::Relu => self.relu(name, inputs[0]),
            Layer::ClippedRelu { ceiling } => self.clipped_relu(name, inputs[0], f64::from(*ceiling))?,
            Layer::LeakyRelu { slope } => self.leaky_relu(name, inputs[0], f64::from(*slope))?,
            Layer::Add => self.sum(name, &inputs),
            Layer::Concat { axis } => {
                let (inputs, scale, gain) = self.aligned(&inputs);
                self.each(name, &Local::Concat(*axis), (&inputs, &node.inputs), (scale, gain), id)
            }
            Layer::Reshape { shape } => {
                let as_it_is = (self.wires.scale(inputs[0]), self.wires.gain(inputs[0]));
                self.each(name, &Local::Reshape(shape.clone()), (&inputs, &node.inputs), as_it_is, id)
            }
            Layer::ZeroPad(pads) => self.moved(name, Local::Pad(*pads), inputs[0]),
        };
        self.outputs.push(wire);
        Ok(())
    }

    /// A product: from any scale that leaves room for its result, else from f.
    fn linear(
        &mut self,
        (id, node): (NodeId, &Node),
        x: WireId,
        map: Linear,
        kernel: &Array,
        bias: Option<&Array>,
    ) -> Result<WireId, CompileError> {
        let (name, f) = (node.name.as_str(), self.options.fraction_bits);
        let room = self.wires.scale(x) + f <= self.options.largest_scale();
        let x = if room { x } else { self.wires.truncated(x) };
        let scale = self.wires.scale(x) + f;
        let weights = self.weight(name, "kernel", kernel, 1.0 / self.wires.gain(x), f)?;
        let bias = bias.map(|b| self.weight(name, "bias", b, 1.0, scale)).transpose()?;
        let parts = self.apart(name, x, node.inputs[0]);
        let product = |x| {
            let x = self.wires.masked(x);
            self.wires.emit(name, Op::Linear { x, weights, bias, map }, scale, 1.0)
        };
        let products = parts.into_iter().map(product).collect();
        Ok(self.together(name, products, id))
    }

    /// Encodes a weight times `factor` and gives its index.
    fn weight(
        &mut self,
        layer: &str,
        what: &'static str,
        array: &Array,
        factor: f64,
        scale: u32,
    ) -> Result<usize, CompileError> {
        let one =
            |(i, &v): (usize, &f32)| encode_one(i, f64::from(v) * factor, scale, f64::NEG_INFINITY, f64::INFINITY);
        let encoded: Result<Vec<u64>, _> = array.data.iter().enumerate().map(one).collect();
        let encoded = encoded.map_err(|source| CompileError::Weight { layer: layer.into(), what, source })?;
        let tensor = Tensor::new(array.shape.clone(), encoded).map_err(|e| fault(layer, e.to_string()))?;
        self.weights.push(tensor);
        self.factors.push(factor);
        self.specs.push(WeightSpec { name: format!("{layer}/{what}"), shape: array.shape.clone(), scale });
        Ok(self.weights.len() - 1)
    }

    fn moved(&mut self, name: &str, local: Local, wire: WireId) -> WireId {
        let (scale, gain) = (self.wires.scale(wire), self.wires.gain(wire));
        self.wires.local(name, local, vec![wire], scale, gain)
    }

    pub(super) fn relu(&mut self, name: &str, wire: WireId) -> WireId {
        let (scale, gain) = (self.wires.scale(wire), self.wires.gain(wire));
        let shift = scale - self.options.fraction_bits;
        let x = self.wires.masked(wire);
        self.wires.emit(
            name,
            Op::Relu { x, shift, window: self.options.window(scale), compare: Compare::default() },
            scale - shift,
            gain,
        )
    }

    /// min(max(x, 0), c) = relu(x) - relu(x - c).
    fn clipped_relu(&mut self, name: &str, wire: WireId, ceiling: f64) -> Result<WireId, CompileError> {
        let f = self.options.fraction_bits;
        let (scale, gain) = (self.wires.scale(wire), self.wires.gain(wire));
        let most = (f64::from(self.options.window_bits) - 1.0 - f64::from(f)).exp2();
        if !(ceiling > 0.0 && ceiling < most) {
            return Err(fault(name, format!("ceiling {ceiling}: must lie between 0 and {most}")));
        }
        let whole = self.relu(name, wire);
        let x = self.wires.masked(wire);
        let x = self.wires.push(name, Op::Offset { x, units: units(-ceiling * gain, scale) });
        let op = Op::Relu { x, shift: scale - f, window: self.options.window(scale), compare: Compare::default() };
        let above = self.wires.emit(name, op, f, gain);
        let below = self.wires.local(name, Local::Scale(-1, 0), vec![above], f, gain);
        Ok(self.wires.local(name, Local::Add, vec![whole, below], f, gain))
    }

    /// x where x >= 0, else slope x: (1 - slope) relu(x) + slope x.
    fn leaky_relu(&mut self, name: &str, wire: WireId, slope: f64) -> Result<WireId, CompileError> {
        if slope.is_nan() || slope.abs() > 1024.0 {
            return Err(fault(name, format!("slope {slope}: must lie between -1024 and 1024")));
        }
        let positive = self.relu(name, wire);
        let all = self.wires.truncated(wire);
        Ok(self.mixed(name, (all, slope), positive))
    }

    /// part times y + (1 - part) times z, of values at f fraction bits and of one gain.
    pub(super) fn mixed(&mut self, name: &str, (y, part): (WireId, f64), z: WireId) -> WireId {
        let f = self.options.fraction_bits;
        let (gain, low) = (self.wires.gain(z), units(part, f));
        let z = self.wires.local(name, Local::Scale((1 << f) - low, f), vec![z], 2 * f, gain);
        let y = self.wires.local(name, Local::Scale(low, f), vec![y], 2 * f, gain);
        self.wires.local(name, Local::Add, vec![z, y], 2 * f, gain)
    }

    /// An average: its factor's fraction bits go into the next truncation, its rounding into the next weights.
    fn average(
        &mut self,
        name: &str,
        wire: WireId,
        pool: &Pool2d,
        out: (usize, usize),
    ) -> Result<WireId, CompileError> {
        let (fewest, most) = counts(pool, out);
        let size = most.next_power_of_two().trailing_zeros();
        let even = fewest == most;
        let exact = even && most.is_power_of_two();
        let pool = &self.wide(pool);
        let (scale, gain) = (self.wires.scale(wire), self.wires.gain(wire));
        if exact && scale > self.options.largest_scale() && scale + size <= MOST_SCALE {
            return Ok(self.wires.local(name, Local::Average(*pool, size), vec![wire], scale + size, gain));
        }
        let wanted = if even { size } else { size + AVERAGE_BITS };
        let before_product = self.room(self.wires.scale(wire).max(2 * self.options.fraction_bits));
        let roomy = before_product >= wanted;
        let wire = if roomy { wire } else { self.wires.truncated(wire) };
        let scale = self.wires.scale(wire);
        let room = self.room(scale);
        let extra = if exact {
            size
        } else if roomy {
            before_product
        } else {
            room
        };
        if extra > room || extra < size {
            let reason = format!("an average over {most} elements needs {size} more fraction bits, {room} are free");
            return Err(fault(name, reason));
        }
        let factor = f64::from(extra).exp2();
        let gain = if even { (factor / most as f64).round() * most as f64 / factor } else { 1.0 };
        let gain = self.wires.gain(wire) * gain;
        Ok(self.wires.local(name, Local::Average(*pool, extra), vec![wire], scale + extra, gain))
    }

    /// Fraction bits that a factor may add to a value at `scale`.
    fn room(&self, scale: u32) -> u32 {
        self.options.largest_scale().saturating_sub(scale).min(MOST_EXTRA)
    }

    pub(super) fn without_gain(&mut self, wire: WireId) -> WireId {
        let room = self.room(self.wires.scale(wire));
        if room < AVERAGE_BITS { wire } else { self.wires.without_gain(wire, room) }
    }

    fn sum(&mut self, name: &str, inputs: &[WireId]) -> WireId {
        let (inputs, scale, gain) = self.aligned(inputs);
        let mut sum = inputs[0];
        for &x in &inputs[1..] {
            sum = self.wires.local(name, Local::Add, vec![sum, x], scale, gain);
        }
        sum
    }

    /// The wires at the largest of their scales and with one gain.
    fn aligned(&mut self, inputs: &[WireId]) -> (Vec<WireId>, u32, f64) {
        let gain = self.wires.gain(inputs[0]);
        let alike = inputs.iter().all(|&w| self.wires.gain(w) == gain);
        let inputs: Vec<WireId> = inputs.iter().map(|&w| if alike { w } else { self.without_gain(w) }).collect();
        let scale = inputs.iter().map(|&w| self.wires.scale(w)).max().unwrap_or_default();
        let gain = if alike { gain } else { 1.0 };
        (inputs.iter().map(|&w| self.wires.raised(w, scale)).collect(), scale, gain)
    }
}

/// A constant in units of `scale`.
fn units(v: f64, scale: u32) -> i64 {
    (v * f64::from(scale).exp2()).round() as i64
}

/// The fewest and the most elements that a window covers.
fn counts(pool: &Pool2d, out: (usize, usize)) -> (usize, usize) {
    let bounds =
        |lengths: &mut dyn Iterator<Item = usize>| lengths.fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
    let (h0, h1) = bounds(&mut (0..out.0).map(|o| pool.covered(o, 0).0.len()));
    let (w0, w1) = bounds(&mut (0..out.1).map(|o| pool.covered(0, o).1.len()));
    (h0 * w0, h1 * w1)
}

/// Whether the layer takes values that are too fine to be compared.
fn takes_any_scale(layer: &Layer) -> bool {
    use Layer::{AveragePool, Conv2d, Dense, Elu, Gelu, HardSigmoid, Reshape, Sigmoid, Silu, Softplus, Tanh, ZeroPad};
    let fitted = matches!(layer, Elu { .. } | Gelu | HardSigmoid { .. } | Sigmoid | Silu | Softplus | Tanh);
    fitted || matches!(layer, AveragePool(_) | Conv2d { .. } | Dense { .. } | Reshape { .. } | ZeroPad(_))
}

pub(super) fn fault(layer: &str, reason: String) -> CompileError {
    CompileError::Layer { layer: layer.into(), reason }
}
