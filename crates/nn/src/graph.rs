//! A network as a graph of layers with clear weights: what importers build, passes edit and compilers read.
//!
//! Images are NHWC, shapes leave the batch dimension out. Weights are `f32` in Keras' layouts: dense
//! `[inputs, outputs]`, convolution `[kernel_h, kernel_w, in_channels / groups, out_channels]`.

use std::fmt;

use thiserror::Error;
use trefoil_mpc::program::MAX_ELEMENTS;
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

/// The largest alpha of an ELU: the error of its approximation is multiplied by it.
const MOST_ALPHA: f32 = 1024.0;

/// A clear tensor: shape and row-major values.
///
/// `Debug` shows the shape only: weights are their owner's secret.
#[derive(Clone, PartialEq, Default)]
pub struct Array {
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub data: Vec<f32>,
}

impl Array {
    /// An array of `shape` over `data`; `None` if the sizes do not agree.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Option<Self> {
        let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (n == data.len()).then_some(Self { shape, data })
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array{:?}", self.shape)
    }
}

/// Index of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// What a layer does.
#[derive(Debug, Clone, PartialEq)]
pub enum Layer {
    /// The one input. Only as node 0.
    Input {
        /// Shape of one sample.
        shape: Vec<usize>,
    },
    /// `x W + b` over the last dimension.
    Dense {
        /// `[inputs, outputs]`.
        kernel: Array,
        /// `[outputs]`.
        bias: Option<Array>,
    },
    /// Convolution; depthwise where `groups` equals the input channels.
    Conv2d {
        /// Sizes, padding made explicit.
        geometry: Conv2d,
        /// `[kernel_h, kernel_w, in_channels / groups, out_channels]`.
        kernel: Array,
        /// `[out_channels]`.
        bias: Option<Array>,
    },
    /// Per-channel (last dimension) `x * scale + shift`: batch normalisation at inference.
    ChannelAffine {
        /// `[channels]`.
        scale: Array,
        /// `[channels]`.
        shift: Array,
    },
    /// Maximum over windows.
    MaxPool(Pool2d),
    /// Average over windows, padding not counted.
    AveragePool(Pool2d),
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), ceiling).
    ClippedRelu {
        /// Largest output (6 for ReLU6).
        ceiling: f32,
    },
    /// x where x >= 0, `slope` x elsewhere.
    LeakyRelu {
        /// Slope for negative x.
        slope: f32,
    },
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `slope` x + 1/2 where that is within 0 and 1, else the nearer of them.
    HardSigmoid {
        /// Slope between the two ends: 1/6, or 0.2 in Keras 2.
        slope: f32,
    },
    /// ln(1 + e^x).
    Softplus,
    /// x where x >= 0, `alpha` (e^x - 1) elsewhere.
    Elu {
        /// What negative x tend to, but for its sign.
        alpha: f32,
    },
    /// x / (1 + e^-x), also called swish.
    Silu,
    /// x times the probability of a standard normal number below x.
    Gelu,
    /// Softmax of a vector.
    Softmax,
    /// Batch normalisation of each channel (last dimension): by the batch's statistics while it is trained, by the
    /// moving averages otherwise.
    BatchNorm(BatchNorm),
    /// In training, each element is zero with probability `rate`, the others are divided by 1 - `rate`.
    Dropout {
        /// Part that is dropped, 0 to below 1.
        rate: f32,
    },
    /// Sum of all inputs, of one shape.
    Add,
    /// Inputs joined along a dimension (0 is the first after the batch).
    Concat {
        /// The dimension.
        axis: usize,
    },
    /// The same elements under another shape (also Flatten).
    Reshape {
        /// New shape.
        shape: Vec<usize>,
    },
    /// Zeros around height and width.
    ZeroPad(Pads),
}

/// Parameters of a batch normalisation: `gamma (x - mean) / sqrt(variance + epsilon) + beta`, all `[channels]`.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNorm {
    /// Factor after normalising.
    pub gamma: Array,
    /// Offset after normalising.
    pub beta: Array,
    /// Moving average of the mean.
    pub mean: Array,
    /// Moving average of the variance.
    pub variance: Array,
    /// Added to the variance.
    pub epsilon: f32,
    /// Part of a moving average that a batch leaves as it is.
    pub momentum: f32,
}

impl BatchNorm {
    /// The scale and shift that it is by its moving averages.
    pub fn affine(&self) -> (Array, Array) {
        let (mut scale, mut shift) = (Vec::new(), Vec::new());
        let moments = self.mean.data.iter().zip(&self.variance.data);
        for ((&g, &b), (&m, &v)) in self.gamma.data.iter().zip(&self.beta.data).zip(moments) {
            let s = f64::from(g) / (f64::from(v) + f64::from(self.epsilon)).sqrt();
            scale.push(s as f32);
            shift.push((f64::from(b) - f64::from(m) * s) as f32);
        }
        let vector = |data: Vec<f32>| Array { shape: vec![data.len()], data };
        (vector(scale), vector(shift))
    }

    fn check(&self, channels: usize) -> Result<(), String> {
        let all = [("gamma", &self.gamma), ("beta", &self.beta), ("mean", &self.mean), ("variance", &self.variance)];
        for (what, array) in all {
            check_vector(what, Some(array), channels)?;
        }
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite() && (0.0..=1.0).contains(&self.momentum)) {
            return Err(format!("epsilon {} or momentum {}", self.epsilon, self.momentum));
        }
        if self.variance.data.iter().any(|v| v.is_nan() || *v < 0.0) {
            return Err("a negative variance".into());
        }
        Ok(())
    }
}

/// A layer in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The layer's name in the model file.
    pub name: String,
    /// What it does.
    pub layer: Layer,
    /// Where its inputs come from: earlier nodes.
    pub inputs: Vec<NodeId>,
}

/// Units in which the bound of a squared distance is said.
const BOUND_UNIT: f64 = 65536.0;

/// What the client applies to the logits it receives: never run on the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Post {
    /// Nothing: the network ends without an activation.
    #[default]
    None,
    /// Softmax over the last dimension.
    Softmax,
    /// Logistic sigmoid of each output.
    Sigmoid,
    /// Of a pair: how far apart is what the network makes of two inputs. The root of the squared distance is taken.
    ///
    /// Where there is a bound, a program's output is the bound less the squared distance, so that its label is 1 for
    /// similar pairs and 0 for others.
    Distance {
        /// The bound: similar are pairs of a smaller squared distance, in units of 2^-16; 0: nothing is said of them.
        similar: u64,
    },
}

impl Post {
    /// The distance of pairs, similar below `bound`; with a bound of 0 nothing is said of them.
    pub fn distance(bound: f64) -> Self {
        Post::Distance { similar: (bound * bound * BOUND_UNIT).round() as u64 }
    }

    /// What [`Graph::answers`] would give, from a program's output.
    pub fn answer(&self, output: f64) -> f64 {
        match self {
            Post::Distance { similar: bound @ 1.. } => *bound as f64 / BOUND_UNIT - output,
            _ => output,
        }
    }

    /// The bound in units of a squared distance at `scale`, if there is one and such a value can be more and less.
    pub fn bound(&self, scale: u32) -> Option<i64> {
        let Post::Distance { similar: bound @ 1.. } = self else { return None };
        let units = (*bound as f64 / BOUND_UNIT * f64::from(scale).exp2()).round();
        (1.0..61f64.exp2()).contains(&units).then_some(units as i64)
    }

    /// The distance below which pairs are similar, if there is one.
    pub fn similar_below(&self) -> Option<f64> {
        match self {
            Post::Distance { similar: bound @ 1.. } => Some((*bound as f64 / BOUND_UNIT).sqrt()),
            _ => None,
        }
    }

    /// Whether answers are verdicts on pairs: similar or not.
    pub fn judges(&self) -> bool {
        matches!(self, Post::Distance { similar: 1.. })
    }

    /// Whether a pair of this squared distance is similar, if that is what is asked.
    pub fn is_similar(&self, squared: f32) -> Option<bool> {
        match self {
            Post::Distance { similar: bound @ 1.. } => Some(f64::from(squared) * BOUND_UNIT < *bound as f64),
            _ => None,
        }
    }
}

/// A network: nodes in topological order, one input (node 0), one output (the last node).
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Left to the client. A distance is that of two inputs to the network.
    pub post: Post,
}

/// A graph that makes no sense, naming the layer where it is one layer's fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{reason}", named(.layer))]
pub struct GraphError {
    /// Name of the layer; empty where it is the network as a whole.
    pub layer: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The layer in front of what is wrong with it.
pub(crate) fn named(layer: &str) -> String {
    if layer.is_empty() { String::new() } else { format!("layer {layer}: ") }
}

impl Graph {
    /// How many inputs a sample holds for private prediction, each of them through the whole network.
    pub fn towers(&self) -> usize {
        if matches!(self.post, Post::Distance { .. }) { 2 } else { 1 }
    }

    /// Checks the graph and gives the shape of every node's output.
    pub fn shapes(&self) -> Result<Vec<Vec<usize>>, GraphError> {
        let mut shapes: Vec<Vec<usize>> = Vec::with_capacity(self.nodes.len());
        for (i, node) in self.nodes.iter().enumerate() {
            let shape = node.shape(i, &shapes)?;
            shapes.push(shape);
        }
        if shapes.is_empty() {
            return Err(GraphError { layer: String::new(), reason: "the network has no layers".into() });
        }
        Ok(shapes)
    }
}

impl Node {
    /// Shape of the output of this node, number `id`, behind nodes of these shapes.
    pub(crate) fn shape(&self, id: NodeId, before: &[Vec<usize>]) -> Result<Vec<usize>, GraphError> {
        let fail = |reason: String| GraphError { layer: self.name.clone(), reason };
        if matches!(self.layer, Layer::Input { .. }) != (id == 0) {
            return Err(fail("the input is the first node and only the first node".into()));
        }
        let inputs = self
            .inputs
            .iter()
            .map(|&id| before.get(id).ok_or_else(|| fail(format!("its input {id} does not come before it"))))
            .collect::<Result<Vec<_>, _>>()?;
        let shape = self.layer.output_shape(&inputs).map_err(fail)?;
        let n = trefoil_ring::tensor::elements(&shape).map_err(|e| fail(e.to_string()))?;
        if n == 0 || n > MAX_ELEMENTS {
            return Err(fail(format!("output of shape {shape:?}: must have 1 to {MAX_ELEMENTS} elements")));
        }
        Ok(shape)
    }
}

impl Layer {
    /// Shape of the output for the given input shapes, or what is wrong.
    pub fn output_shape(&self, inputs: &[&Vec<usize>]) -> Result<Vec<usize>, String> {
        let wanted = match self {
            Layer::Input { .. } => 0,
            Layer::Add | Layer::Concat { .. } => inputs.len().max(1),
            _ => 1,
        };
        if inputs.len() != wanted {
            return Err(format!("{} inputs, must have {wanted}", inputs.len()));
        }
        match self {
            Layer::Input { shape } => Ok(shape.clone()),
            Layer::Dense { kernel, bias } => {
                let x = inputs[0];
                check_array("kernel", kernel)?;
                let [i, o] = kernel.shape[..] else { return Err(format!("kernel of shape {:?}", kernel.shape)) };
                if x.last() != Some(&i) {
                    return Err(format!("kernel {:?} does not fit an input of shape {x:?}", kernel.shape));
                }
                check_vector("bias", bias.as_ref(), o)?;
                let mut s = x.clone();
                s.pop();
                s.push(o);
                Ok(s)
            }
            Layer::Conv2d { geometry, kernel, bias } => {
                let (h, w) = geometry.output().map_err(|e| e.to_string())?;
                if *inputs[0] != [geometry.input.0, geometry.input.1, geometry.in_channels] {
                    return Err(format!("{geometry:?} does not fit an input of shape {:?}", inputs[0]));
                }
                if kernel.shape != geometry.kernel_shape() {
                    return Err(format!(
                        "kernel has shape {:?}, must have {:?}",
                        kernel.shape,
                        geometry.kernel_shape()
                    ));
                }
                check_array("kernel", kernel)?;
                check_vector("bias", bias.as_ref(), geometry.out_channels)?;
                Ok(vec![h, w, geometry.out_channels])
            }
            Layer::ChannelAffine { scale, shift } => {
                let c = *inputs[0].last().ok_or("a scalar has no channels")?;
                check_vector("scale", Some(scale), c)?;
                check_vector("shift", Some(shift), c)?;
                Ok(inputs[0].clone())
            }
            Layer::MaxPool(p) | Layer::AveragePool(p) => {
                let (h, w) = p.output().map_err(|e| e.to_string())?;
                if *inputs[0] != [p.input.0, p.input.1, p.channels] {
                    return Err(format!("{p:?} does not fit an input of shape {:?}", inputs[0]));
                }
                Ok(vec![h, w, p.channels])
            }
            Layer::HardSigmoid { slope } if !(0.0625..=16.0).contains(slope) => {
                Err(format!("slope {slope}: must be 1/16 to 16"))
            }
            Layer::Elu { alpha } if !(-MOST_ALPHA..=MOST_ALPHA).contains(alpha) => {
                Err(format!("alpha {alpha}: must lie between -{MOST_ALPHA} and {MOST_ALPHA}"))
            }
            Layer::Relu | Layer::ClippedRelu { .. } | Layer::LeakyRelu { .. } | Layer::Sigmoid | Layer::Tanh => {
                Ok(inputs[0].clone())
            }
            Layer::HardSigmoid { .. } | Layer::Softplus | Layer::Elu { .. } | Layer::Silu | Layer::Gelu => {
                Ok(inputs[0].clone())
            }
            Layer::Softmax => match inputs[0][..] {
                [_] => Ok(inputs[0].clone()),
                _ => Err(format!("softmax of shape {:?}: must be a vector", inputs[0])),
            },
            Layer::BatchNorm(norm) => {
                norm.check(*inputs[0].last().ok_or("a scalar has no channels")?)?;
                Ok(inputs[0].clone())
            }
            Layer::Dropout { rate } => {
                if (0.0..1.0).contains(rate) {
                    Ok(inputs[0].clone())
                } else {
                    Err(format!("rate {rate}: must be 0 to below 1"))
                }
            }
            Layer::Add => {
                if inputs.len() < 2 || inputs.iter().any(|s| *s != inputs[0]) {
                    return Err(format!("needs two or more inputs of one shape, has {inputs:?}"));
                }
                Ok(inputs[0].clone())
            }
            Layer::Concat { axis } => {
                let mut s = (*inputs.first().ok_or("nothing to join")?).clone();
                if *axis >= s.len() {
                    return Err(format!("axis {axis} of inputs of shape {s:?}"));
                }
                for x in &inputs[1..] {
                    if x.len() != s.len() || x.iter().zip(&s).enumerate().any(|(d, (a, b))| d != *axis && a != b) {
                        return Err(format!("inputs of shapes {inputs:?} cannot be joined along {axis}"));
                    }
                    s[*axis] = s[*axis].checked_add(x[*axis]).ok_or("too large")?;
                }
                Ok(s)
            }
            Layer::Reshape { shape } => {
                let n = |s: &[usize]| trefoil_ring::tensor::elements(s).map_err(|e| e.to_string());
                if n(shape)? != n(inputs[0])? {
                    return Err(format!("shape {:?} cannot become {shape:?}", inputs[0]));
                }
                Ok(shape.clone())
            }
            Layer::ZeroPad(p) => {
                let [h, w, c] = inputs[0][..] else {
                    return Err(format!("an image is needed, got shape {:?}", inputs[0]));
                };
                let grown =
                    |n: usize, a: usize, b: usize| n.checked_add(a).and_then(|v| v.checked_add(b)).ok_or("too large");
                Ok(vec![grown(h, p.top, p.bottom)?, grown(w, p.left, p.right)?, c])
            }
        }
    }
}

fn check_array(what: &str, a: &Array) -> Result<(), String> {
    match trefoil_ring::tensor::elements(&a.shape) {
        Ok(n) if n == a.data.len() => Ok(()),
        _ => Err(format!("{what} of shape {:?} has {} elements", a.shape, a.data.len())),
    }
}

fn check_vector(what: &str, v: Option<&Array>, n: usize) -> Result<(), String> {
    match v {
        Some(a) if a.shape != [n] => Err(format!("{what} has shape {:?}, must have [{n}]", a.shape)),
        Some(a) => check_array(what, a),
        None => Ok(()),
    }
}
