//! Layers as they are described before their place in a network is known: shapes and weights follow from what they read.

use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

use crate::graph::{Array, BatchNorm, Layer};

/// Most weights of a network.
pub(super) const MOST_WEIGHTS: usize = 1 << 28;
/// The widest side of a kernel or window, and the longest stride.
const WIDEST: usize = 1 << 12;

/// Height and width: one number for both, or one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides(pub usize, pub usize);

impl From<usize> for Sides {
    fn from(n: usize) -> Self {
        Self(n, n)
    }
}

impl From<(usize, usize)> for Sides {
    fn from((height, width): (usize, usize)) -> Self {
        Self(height, width)
    }
}

/// What a layer applies to its own output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// x/6 + 1/2 within 0 and 1.
    HardSigmoid,
    /// ln(1 + e^x).
    Softplus,
    /// x where x >= 0, e^x - 1 elsewhere.
    Elu,
    /// x / (1 + e^-x), also called swish.
    Silu,
    /// x times the standard normal distribution function.
    Gelu,
    /// Softmax, of the last layer only: it is left to whoever receives the answer.
    Softmax,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Dense(usize),
    Conv(usize, Sides),
    Depthwise(Sides),
    MaxPool(Sides),
    AveragePool(Sides),
    GlobalAveragePool,
    BatchNorm { epsilon: f32, momentum: f32 },
    Dropout(f32),
    Flatten,
    Reshape(Vec<usize>),
    Relu,
    ClippedRelu(f32),
    LeakyRelu(f32),
    Sigmoid,
    Tanh,
    HardSigmoid,
    Softplus,
    Elu(f32),
    Silu,
    Gelu,
}

/// A layer to add to a [`Sequential`](super::Sequential).
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    kind: Kind,
    stride: Option<Sides>,
    same: bool,
    bias: bool,
    pub(super) name: Option<String>,
    pub(super) activation: Activation,
}

fn of(kind: Kind) -> LayerSpec {
    LayerSpec { kind, stride: None, same: false, bias: true, name: None, activation: Activation::None }
}

/// x W + b: `units` outputs of a vector.
pub fn dense(units: usize) -> LayerSpec {
    of(Kind::Dense(units))
}

/// A convolution with `filters` outputs.
pub fn conv(filters: usize, kernel: impl Into<Sides>) -> LayerSpec {
    of(Kind::Conv(filters, kernel.into()))
}

/// A convolution of each channel by itself.
pub fn depthwise_conv(kernel: impl Into<Sides>) -> LayerSpec {
    of(Kind::Depthwise(kernel.into()))
}

/// Maximum over windows that lie side by side unless a stride is given.
pub fn max_pool(window: impl Into<Sides>) -> LayerSpec {
    of(Kind::MaxPool(window.into()))
}

/// Average over windows that lie side by side unless a stride is given; padding is not counted.
pub fn average_pool(window: impl Into<Sides>) -> LayerSpec {
    of(Kind::AveragePool(window.into()))
}

/// The average of each channel, as a vector.
pub fn global_average_pool() -> LayerSpec {
    of(Kind::GlobalAveragePool)
}

/// Batch normalisation of each channel, as Keras has it: epsilon 0.001, momentum 0.99.
pub fn batch_norm() -> LayerSpec {
    batch_norm_with(1e-3, 0.99)
}

/// Batch normalisation with an addend to the variance, and the part of a moving average that a batch leaves as it is.
pub fn batch_norm_with(epsilon: f32, momentum: f32) -> LayerSpec {
    of(Kind::BatchNorm { epsilon, momentum })
}

/// In training, drops each element with probability `rate`.
pub fn dropout(rate: f32) -> LayerSpec {
    of(Kind::Dropout(rate))
}

/// All elements as a vector.
pub fn flatten() -> LayerSpec {
    of(Kind::Flatten)
}

/// The same elements under another shape.
pub fn reshape(shape: &[usize]) -> LayerSpec {
    of(Kind::Reshape(shape.to_vec()))
}

/// max(x, 0).
pub fn relu() -> LayerSpec {
    of(Kind::Relu)
}

/// min(max(x, 0), ceiling).
pub fn clipped_relu(ceiling: f32) -> LayerSpec {
    of(Kind::ClippedRelu(ceiling))
}

/// x where x >= 0, `slope` x elsewhere.
pub fn leaky_relu(slope: f32) -> LayerSpec {
    of(Kind::LeakyRelu(slope))
}

/// 1 / (1 + e^-x).
pub fn sigmoid() -> LayerSpec {
    of(Kind::Sigmoid)
}

/// Hyperbolic tangent.
pub fn tanh() -> LayerSpec {
    of(Kind::Tanh)
}

/// x/6 + 1/2 within 0 and 1, as Keras 3 has it.
pub fn hard_sigmoid() -> LayerSpec {
    of(Kind::HardSigmoid)
}

/// ln(1 + e^x).
pub fn softplus() -> LayerSpec {
    of(Kind::Softplus)
}

/// x where x >= 0, `alpha` (e^x - 1) elsewhere.
pub fn elu(alpha: f32) -> LayerSpec {
    of(Kind::Elu(alpha))
}

/// x / (1 + e^-x), also called swish.
pub fn silu() -> LayerSpec {
    of(Kind::Silu)
}

/// x times the standard normal distribution function.
pub fn gelu() -> LayerSpec {
    of(Kind::Gelu)
}

impl LayerSpec {
    /// The step from one window to the next.
    pub fn stride(self, stride: impl Into<Sides>) -> Self {
        Self { stride: Some(stride.into()), ..self }
    }

    /// Padding by which, at stride 1, the output is as large as the input ("same", as TensorFlow pads).
    pub fn same(self) -> Self {
        Self { same: true, ..self }
    }

    /// Without a bias.
    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// Under this name, which no other layer may have. Layers without one are called by their kind, and numbered.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Followed by an activation.
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// What the layer is called if it has no name of its own.
    pub(super) fn word(&self) -> &'static str {
        match self.kind {
            Kind::Dense(_) => "dense",
            Kind::Conv(..) => "conv",
            Kind::Depthwise(_) => "depthwise_conv",
            Kind::MaxPool(_) => "max_pool",
            Kind::AveragePool(_) => "average_pool",
            Kind::GlobalAveragePool => "global_average_pool",
            Kind::BatchNorm { .. } => "batch_norm",
            Kind::Dropout(_) => "dropout",
            Kind::Flatten => "flatten",
            Kind::Reshape(_) => "reshape",
            Kind::Relu => "relu",
            Kind::ClippedRelu(_) => "clipped_relu",
            Kind::LeakyRelu(_) => "leaky_relu",
            Kind::Sigmoid => "sigmoid",
            Kind::Tanh => "tanh",
            Kind::HardSigmoid => "hard_sigmoid",
            Kind::Softplus => "softplus",
            Kind::Elu(_) => "elu",
            Kind::Silu => "silu",
            Kind::Gelu => "gelu",
        }
    }

    /// The layer on an input of `shape`, its weights zero and at most `left` in a tensor; or what is wrong with it.
    pub(super) fn on(&self, shape: &[usize], left: usize) -> Result<Layer, String> {
        let windows =
            matches!(self.kind, Kind::Conv(..) | Kind::Depthwise(_) | Kind::MaxPool(_) | Kind::AveragePool(_));
        if !windows && (self.same || self.stride.is_some()) {
            return Err("it has no windows: neither stride nor padding".into());
        }
        if !self.bias && !matches!(self.kind, Kind::Dense(_) | Kind::Conv(..) | Kind::Depthwise(_)) {
            return Err("it has no bias to leave out".into());
        }
        Ok(match &self.kind {
            Kind::Dense(units) => {
                let [inputs] = *shape else {
                    return Err(format!("dense takes a vector, not {shape:?}: flatten first"));
                };
                let kernel = zeros(vec![inputs, at_least_one("units", *units)?], left)?;
                Layer::Dense { kernel, bias: self.biases(*units, left)? }
            }
            Kind::Conv(filters, kernel) => {
                self.convolution(shape, at_least_one("filters", *filters)?, *kernel, (1, left))?
            }
            Kind::Depthwise(kernel) => {
                let (_, _, channels) = self.image(shape)?;
                self.convolution(shape, channels, *kernel, (channels, left))?
            }
            Kind::MaxPool(window) => Layer::MaxPool(self.pool(shape, *window)?),
            Kind::AveragePool(window) => Layer::AveragePool(self.pool(shape, *window)?),
            Kind::GlobalAveragePool => {
                let (h, w, _) = self.image(shape)?;
                Layer::AveragePool(self.pool(shape, Sides(h, w))?)
            }
            Kind::BatchNorm { epsilon, momentum } => {
                let channels = *shape.last().ok_or("a scalar has no channels")?;
                let filled = |v: f32| Array { shape: vec![channels], data: vec![v; channels] };
                let (gamma, beta, mean, variance) = (filled(1.0), filled(0.0), filled(0.0), filled(1.0));
                let (epsilon, momentum) = (*epsilon, *momentum);
                Layer::BatchNorm(BatchNorm { gamma, beta, mean, variance, epsilon, momentum })
            }
            Kind::Dropout(rate) => Layer::Dropout { rate: *rate },
            Kind::Flatten => Layer::Reshape { shape: vec![shape.iter().product()] },
            Kind::Reshape(to) => Layer::Reshape { shape: to.clone() },
            Kind::Relu => Layer::Relu,
            Kind::ClippedRelu(ceiling) if *ceiling > 0.0 && ceiling.is_finite() => {
                Layer::ClippedRelu { ceiling: *ceiling }
            }
            Kind::ClippedRelu(ceiling) => return Err(format!("a ceiling of {ceiling}: must be positive")),
            Kind::LeakyRelu(slope) if slope.is_finite() => Layer::LeakyRelu { slope: *slope },
            Kind::LeakyRelu(slope) => return Err(format!("a slope of {slope}")),
            Kind::Sigmoid => Layer::Sigmoid,
            Kind::Tanh => Layer::Tanh,
            Kind::HardSigmoid => Layer::HardSigmoid { slope: 1.0 / 6.0 },
            Kind::Softplus => Layer::Softplus,
            Kind::Elu(alpha) => Layer::Elu { alpha: *alpha },
            Kind::Silu => Layer::Silu,
            Kind::Gelu => Layer::Gelu,
        })
    }

    /// Whether its output is an image that becomes a vector.
    pub(super) fn flattens(&self) -> bool {
        self.kind == Kind::GlobalAveragePool
    }

    fn image(&self, shape: &[usize]) -> Result<(usize, usize, usize), String> {
        match *shape {
            [h, w, c] => Ok((h, w, c)),
            _ => Err(format!("{} takes an image (height, width, channels), not {shape:?}", self.word())),
        }
    }

    fn convolution(
        &self,
        shape: &[usize],
        filters: usize,
        kernel: Sides,
        (groups, left): (usize, usize),
    ) -> Result<Layer, String> {
        let (h, w, in_channels) = self.image(shape)?;
        let (input, kernel) = ((h, w), within("kernel", kernel)?);
        let stride = within("stride", self.stride.unwrap_or(Sides(1, 1)))?;
        let dilation = (1, 1);
        let pads = if self.same { Pads::same(input, kernel, stride, dilation) } else { Pads::default() };
        let geometry = Conv2d { input, in_channels, out_channels: filters, kernel, stride, dilation, pads, groups };
        geometry.output().map_err(|e| e.to_string())?;
        Ok(Layer::Conv2d { geometry, kernel: zeros(geometry.kernel_shape(), left)?, bias: self.biases(filters, left)? })
    }

    fn pool(&self, shape: &[usize], window: Sides) -> Result<Pool2d, String> {
        let (h, w, channels) = self.image(shape)?;
        let (input, window) = ((h, w), within("window", window)?);
        let stride = self.stride.map_or(Ok(window), |s| within("stride", s))?;
        let pads = if self.same { Pads::same(input, window, stride, (1, 1)) } else { Pads::default() };
        Ok(Pool2d { input, channels, window, stride, pads })
    }

    fn biases(&self, outputs: usize, left: usize) -> Result<Option<Array>, String> {
        if self.bias { zeros(vec![outputs], left).map(Some) } else { Ok(None) }
    }
}

impl Activation {
    /// The layer that it is, if it is one.
    pub(super) fn layer(self) -> Option<LayerSpec> {
        match self {
            Activation::None | Activation::Softmax => None,
            Activation::Relu => Some(relu()),
            Activation::Sigmoid => Some(sigmoid()),
            Activation::Tanh => Some(tanh()),
            Activation::HardSigmoid => Some(hard_sigmoid()),
            Activation::Softplus => Some(softplus()),
            Activation::Elu => Some(elu(1.0)),
            Activation::Silu => Some(silu()),
            Activation::Gelu => Some(gelu()),
        }
    }
}

fn at_least_one(what: &str, n: usize) -> Result<usize, String> {
    if n == 0 { Err(format!("0 {what}: at least one is due")) } else { Ok(n) }
}

fn within(what: &str, Sides(h, w): Sides) -> Result<(usize, usize), String> {
    let fits = |n: usize| (1..=WIDEST).contains(&n);
    if fits(h) && fits(w) { Ok((h, w)) } else { Err(format!("a {what} of {h} x {w}: each side is 1 to {WIDEST}")) }
}

fn zeros(shape: Vec<usize>, left: usize) -> Result<Array, String> {
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= left);
    let n = n.ok_or_else(|| too_many(&format!("weights of shape {shape:?}"), left))?;
    Ok(Array { shape, data: vec![0.0; n] })
}

/// What is said of `what` when only `left` of a network's weights may still be added.
pub(super) fn too_many(what: &str, left: usize) -> String {
    format!("{what}: at most {left} more, a network has at most {MOST_WEIGHTS}")
}
