//! The operations of a tape.

use trefoil_mpc::program::Shown;
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

use super::ValueId;

/// A product of two values: the sum over some indices of x times y.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Map {
    /// Element by element. The shape of y is that of x or its trailing part.
    Elementwise,
    /// x W over the last dimension, W of `[inputs, outputs]`.
    Dense,
    /// dy W^T: the adjoint of [`Map::Dense`] for its left operand.
    DenseInput,
    /// x^T dy summed over the batch and all outer dimensions: the adjoint for its right operand.
    DenseWeights,
    /// x convolved with a kernel.
    Conv(Conv2d),
    /// The adjoint of [`Map::Conv`] for the image: (dy, kernel).
    ConvInput(Conv2d),
    /// The adjoint of [`Map::Conv`] for the kernel, summed over the batch: (x, dy).
    ConvWeights(Conv2d),
}

/// A function of one number, applied to every element. What computes it on shares approximates it on its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// 1 / (1 + e^-x), for every x; flat beyond +-16.
    Sigmoid,
    /// For every x; flat beyond +-8.
    Tanh,
    /// e^x, for x <= 0.
    Exp,
    /// 1 / x, for x >= 1.
    Reciprocal,
    /// 1 / sqrt(x), for x > 0.
    InverseSqrt,
    /// ln x, for x >= 1.
    Log,
    /// ln(1 + e^x), for every x; max(x, 0) beyond +-16.
    Softplus,
    /// x where x >= 0, e^x - 1 elsewhere, for every x; -1 below -16.
    Elu,
    /// x / (1 + e^-x), for every x; max(x, 0) beyond +-16.
    Silu,
    /// x times the standard normal distribution function, for every x; max(x, 0) beyond +-8.
    Gelu,
    /// The derivative of [`Function::Gelu`], for every x; flat beyond +-8. It has none itself.
    GeluSlope,
}

impl Function {
    /// The function itself.
    pub fn of(self, x: f64) -> f64 {
        match self {
            Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Function::Tanh => x.tanh(),
            Function::Exp => x.exp(),
            Function::Reciprocal => x.recip(),
            Function::InverseSqrt => x.sqrt().recip(),
            Function::Log => x.ln(),
            Function::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Function::Elu => x.max(0.0) + x.min(0.0).exp_m1(),
            Function::Silu => x / (1.0 + (-x).exp()),
            Function::Gelu => x * normal(x),
            Function::GeluSlope => normal(x) + x * density(x),
        }
    }
}

/// Density of the standard normal distribution.
fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Standard normal distribution function, to 1e-15: the density times x + x^3/3 + x^5/(3 5) + ... (Marsaglia 2004).
fn normal(x: f64) -> f64 {
    if x.abs() > 9.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * density(x)
}

/// One operation. `x` and the like name earlier values.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The record of each sample: features, then labels, as one vector. Only as value 0.
    Rows,
    /// A state as it was before this step.
    State {
        /// Index in [`Tape::states`](super::Tape::states).
        slot: usize,
    },
    /// What a state is after this step.
    Store {
        /// Index in [`Tape::states`](super::Tape::states); stored once at most.
        slot: usize,
        /// Operand: one row, of the state's shape.
        x: ValueId,
    },
    /// A product.
    Product {
        /// Left operand.
        x: ValueId,
        /// Right operand.
        y: ValueId,
        /// Which product.
        map: Map,
    },
    /// x + y. The shape of y is that of x or its trailing part; one row of it may serve all samples.
    Add {
        /// Left operand.
        x: ValueId,
        /// Right operand.
        y: ValueId,
    },
    /// Product with a public constant.
    Scale {
        /// Operand.
        x: ValueId,
        /// The constant.
        factor: f64,
    },
    /// Product with a public number given anew for each step.
    Rate {
        /// Operand.
        x: ValueId,
        /// Which number.
        rate: usize,
    },
    /// Sum with a public constant.
    Offset {
        /// Operand.
        x: ValueId,
        /// The constant.
        by: f64,
    },
    /// The bits [x >= 0]. No gradient.
    Sign {
        /// Operand.
        x: ValueId,
    },
    /// x where the bit is one, zero elsewhere.
    Select {
        /// The bits: of an [`Op::Sign`] of the same shape.
        bit: ValueId,
        /// Operand.
        x: ValueId,
    },
    /// Bits as numbers 0 and 1. No gradient.
    Bit {
        /// The bits.
        bit: ValueId,
    },
    /// A function of every element.
    Function {
        /// Operand.
        x: ValueId,
        /// Which function.
        function: Function,
    },
    /// Sum over all dimensions but the last `keep` (none: the shape becomes `[1]`), and over the batch if `batch`.
    Sum {
        /// Operand.
        x: ValueId,
        /// Dimensions kept.
        keep: usize,
        /// Whether the rows of the batch are added up as well.
        batch: bool,
    },
    /// The adjoint of [`Op::Sum`]: repeated over new leading dimensions, and for every sample if `batch`.
    Broadcast {
        /// Operand: its shape is the trailing part of `shape`.
        x: ValueId,
        /// New shape.
        shape: Vec<usize>,
        /// Whether each sample gets a row of its own.
        batch: bool,
    },
    /// Element number `index` (row-major) of each window of a pool without padding.
    Window {
        /// Operand, `[h, w, channels]`.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Which element.
        index: usize,
    },
    /// The adjoint of [`Op::Window`]: each element added where it would be taken.
    Unwindow {
        /// Operand, of the pool's output shape.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
        /// Which element.
        index: usize,
    },
    /// Average over each window, padding not counted.
    AveragePool {
        /// Operand, `[h, w, channels]`.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
    },
    /// The adjoint of [`Op::AveragePool`].
    Spread {
        /// Operand, of the pool's output shape.
        x: ValueId,
        /// The pool.
        pool: Pool2d,
    },
    /// The same elements under another shape.
    Reshape {
        /// Operand.
        x: ValueId,
        /// New shape.
        shape: Vec<usize>,
    },
    /// Zeros around height and width of `[h, w, channels]`.
    Pad {
        /// Operand.
        x: ValueId,
        /// Zeros added.
        pads: Pads,
    },
    /// The adjoint of [`Op::Pad`]: height and width without their margins.
    Crop {
        /// Operand.
        x: ValueId,
        /// What is cut off.
        pads: Pads,
    },
    /// Elements `start .. start + len` along `axis` (0 is the first dimension after the batch).
    Slice {
        /// Operand.
        x: ValueId,
        /// Dimension that is cut.
        axis: usize,
        /// First index.
        start: usize,
        /// How many.
        len: usize,
    },
    /// Operands joined along `axis`.
    Concat {
        /// Operands, all with one row per sample or all with one row.
        xs: Vec<ValueId>,
        /// Dimension along which they are joined.
        axis: usize,
    },
    /// Softmax of each sample's vector x of n numbers, `[3, n]`: p, -ln p, and one where p is largest (the first of
    /// several). On shares one server computes it in the clear, and learns it. No gradient.
    Likelihoods {
        /// Operand: one row for each sample.
        x: ValueId,
        /// Which server.
        shown: Shown,
    },
    /// Random bits that all servers know, each one with probability `keep / 2^16`, fresh for every sample and step.
    Pattern {
        /// Shape of one sample.
        shape: Vec<usize>,
        /// How often a bit is one, of 65,536 times.
        keep: u32,
    },
    /// x where the pattern is one, zero elsewhere.
    Drop {
        /// Operand.
        x: ValueId,
        /// The pattern, of the same shape.
        pattern: ValueId,
    },
}

impl Op {
    /// The values this one reads.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            Op::Rows | Op::State { .. } | Op::Pattern { .. } => Vec::new(),
            Op::Concat { xs, .. } => xs.clone(),
            Op::Add { x, y } | Op::Product { x, y, .. } => vec![*x, *y],
            Op::Select { bit, x } => vec![*bit, *x],
            Op::Drop { x, pattern } => vec![*x, *pattern],
            Op::Bit { bit } => vec![*bit],
            Op::Store { x, .. }
            | Op::Scale { x, .. }
            | Op::Rate { x, .. }
            | Op::Offset { x, .. }
            | Op::Sign { x }
            | Op::Function { x, .. }
            | Op::Likelihoods { x, .. }
            | Op::Sum { x, .. }
            | Op::Broadcast { x, .. }
            | Op::Window { x, .. }
            | Op::Unwindow { x, .. }
            | Op::AveragePool { x, .. }
            | Op::Spread { x, .. }
            | Op::Reshape { x, .. }
            | Op::Pad { x, .. }
            | Op::Crop { x, .. }
            | Op::Slice { x, .. } => vec![*x],
        }
    }

    /// The same operation on other values.
    pub(super) fn renamed(mut self, name: impl Fn(ValueId) -> ValueId) -> Self {
        match &mut self {
            Op::Rows | Op::State { .. } | Op::Pattern { .. } => {}
            Op::Concat { xs, .. } => xs.iter_mut().for_each(|x| *x = name(*x)),
            Op::Add { x, y } | Op::Product { x, y, .. } | Op::Select { bit: y, x } | Op::Drop { x, pattern: y } => {
                (*x, *y) = (name(*x), name(*y));
            }
            Op::Bit { bit: x }
            | Op::Store { x, .. }
            | Op::Scale { x, .. }
            | Op::Rate { x, .. }
            | Op::Offset { x, .. }
            | Op::Sign { x }
            | Op::Function { x, .. }
            | Op::Likelihoods { x, .. }
            | Op::Sum { x, .. }
            | Op::Broadcast { x, .. }
            | Op::Window { x, .. }
            | Op::Unwindow { x, .. }
            | Op::AveragePool { x, .. }
            | Op::Spread { x, .. }
            | Op::Reshape { x, .. }
            | Op::Pad { x, .. }
            | Op::Crop { x, .. }
            | Op::Slice { x, .. } => *x = name(*x),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The integral of `f` from 0 to x by Simpson's rule.
    fn integral(f: impl Fn(f64) -> f64, x: f64) -> f64 {
        let (n, mut sum) = (2000, 0.0);
        for i in 0..=n {
            let weight = if i == 0 || i == n { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
            sum += weight * f(x * f64::from(i) / f64::from(n));
        }
        sum * x / f64::from(n) / 3.0
    }

    #[test]
    fn the_normal_distribution_is_the_integral_of_its_density() {
        for x in (-90..=90).map(|i| f64::from(i) / 10.0) {
            assert!((normal(x) - 0.5 - integral(density, x)).abs() < 1e-12, "{x}");
            let gelu = integral(|x| Function::GeluSlope.of(x), x);
            assert!((Function::Gelu.of(x) - gelu).abs() < 1e-11, "{x}");
        }
        assert_eq!([normal(-1e9), normal(0.0), normal(1e9)], [0.0, 0.5, 1.0]);
        assert_eq!(Function::Gelu.of(-1e30), 0.0);
    }
}
