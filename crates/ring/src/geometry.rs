//! Shapes of convolutions and pools (NHWC), checked once and then trusted by the kernels.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A convolution or pool that makes no sense, naming the numbers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// A size that must be positive is zero.
    #[error("{0} must be positive")]
    Zero(&'static str),
    /// The window is larger than the padded input.
    #[error("a window of {window:?} does not fit an input of {input:?} (padding counted)")]
    WindowTooLarge {
        /// Window height and width, dilation counted.
        window: (usize, usize),
        /// Input height and width, padding counted.
        input: (usize, usize),
    },
    /// Channels cannot be divided into the groups.
    #[error("{in_channels} input and {out_channels} output channels do not divide into {groups} groups")]
    Groups {
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Groups.
        groups: usize,
    },
    /// A pool window that holds padding only.
    #[error("padding {0:?} leaves pool windows that hold no input")]
    EmptyWindow(Pads),
    /// A size too large to compute with.
    #[error("the sizes overflow")]
    Overflow,
}

/// Longest stride of a convolution: kernels step by it in whole images.
const MAX_STRIDE: usize = 1 << 20;

/// Zeros around the height and width of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Pads {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Pads {
    /// Keras' and TensorFlow's "same": as many outputs as `ceil(input / stride)`, the odd zero below and right.
    pub fn same(
        input: (usize, usize),
        kernel: (usize, usize),
        stride: (usize, usize),
        dilation: (usize, usize),
    ) -> Self {
        let along = |n: usize, k: usize, s: usize, d: usize| {
            let s = s.max(1);
            let effective = k.saturating_sub(1) * d + 1;
            let total = (n.div_ceil(s).saturating_sub(1) * s + effective).saturating_sub(n);
            (total / 2, total - total / 2)
        };
        let (top, bottom) = along(input.0, kernel.0, stride.0, dilation.0);
        let (left, right) = along(input.1, kernel.1, stride.1, dilation.1);
        Self { top, bottom, left, right }
    }

    /// Whether there is no padding at all.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

fn outputs(
    input: (usize, usize),
    kernel: (usize, usize),
    stride: (usize, usize),
    dilation: (usize, usize),
    pads: Pads,
) -> Result<(usize, usize), GeometryError> {
    let along = |n: usize, k: usize, s: usize, d: usize, before: usize, after: usize| {
        let padded = n.checked_add(before).and_then(|v| v.checked_add(after)).ok_or(GeometryError::Overflow)?;
        let effective = (k - 1).checked_mul(d).and_then(|v| v.checked_add(1)).ok_or(GeometryError::Overflow)?;
        Ok::<_, GeometryError>((padded, effective, padded.checked_sub(effective).map(|v| v / s + 1)))
    };
    let (ph, eh, oh) = along(input.0, kernel.0, stride.0, dilation.0, pads.top, pads.bottom)?;
    let (pw, ew, ow) = along(input.1, kernel.1, stride.1, dilation.1, pads.left, pads.right)?;
    match (oh, ow) {
        (Some(h), Some(w)) => Ok((h, w)),
        _ => Err(GeometryError::WindowTooLarge { window: (eh, ew), input: (ph, pw) }),
    }
}

fn positive(what: &'static str, sizes: &[usize]) -> Result<(), GeometryError> {
    if sizes.contains(&0) { Err(GeometryError::Zero(what)) } else { Ok(()) }
}

/// A two-dimensional convolution (cross-correlation, as every framework calls convolution).
///
/// Input `[batch, in_h, in_w, in_c]`, kernel `[kernel_h, kernel_w, in_c / groups, out_c]`, output
/// `[batch, out_h, out_w, out_c]`. Output channel `o` belongs to group `o / (out_c / groups)` and reads the
/// input channels of that group. A depthwise convolution has `groups = in_c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Conv2d {
    /// Input height and width.
    pub input: (usize, usize),
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Kernel height and width.
    pub kernel: (usize, usize),
    /// Vertical and horizontal stride.
    pub stride: (usize, usize),
    /// Vertical and horizontal dilation (1: none).
    pub dilation: (usize, usize),
    /// Zeros around the input.
    pub pads: Pads,
    /// Groups of channels.
    pub groups: usize,
}

impl Conv2d {
    /// Checks the sizes and gives the output's height and width.
    pub fn output(&self) -> Result<(usize, usize), GeometryError> {
        positive("input size", &[self.input.0, self.input.1])?;
        positive("channels and groups", &[self.in_channels, self.out_channels, self.groups])?;
        positive("kernel size", &[self.kernel.0, self.kernel.1])?;
        positive("stride", &[self.stride.0, self.stride.1])?;
        positive("dilation", &[self.dilation.0, self.dilation.1])?;
        if self.stride.0.max(self.stride.1) > MAX_STRIDE {
            return Err(GeometryError::Overflow);
        }
        if !self.in_channels.is_multiple_of(self.groups) || !self.out_channels.is_multiple_of(self.groups) {
            return Err(GeometryError::Groups {
                in_channels: self.in_channels,
                out_channels: self.out_channels,
                groups: self.groups,
            });
        }
        outputs(self.input, self.kernel, self.stride, self.dilation, self.pads)
    }

    /// Shape of the kernel: `[kernel_h, kernel_w, in_c / groups, out_c]`.
    pub fn kernel_shape(&self) -> Vec<usize> {
        vec![self.kernel.0, self.kernel.1, self.in_channels / self.groups.max(1), self.out_channels]
    }
}

/// A two-dimensional pool over each channel of `[batch, in_h, in_w, channels]`.
///
/// Padding is never part of a maximum, nor of an average's count (Keras' and TensorFlow's rule).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pool2d {
    /// Input height and width.
    pub input: (usize, usize),
    /// Channels.
    pub channels: usize,
    /// Window height and width.
    pub window: (usize, usize),
    /// Vertical and horizontal stride.
    pub stride: (usize, usize),
    /// Padding around the input.
    pub pads: Pads,
}

impl Pool2d {
    /// Checks the sizes and gives the output's height and width.
    pub fn output(&self) -> Result<(usize, usize), GeometryError> {
        positive("input size", &[self.input.0, self.input.1])?;
        positive("channels", &[self.channels])?;
        positive("pool size", &[self.window.0, self.window.1])?;
        positive("stride", &[self.stride.0, self.stride.1])?;
        let p = self.pads;
        if p.top.max(p.bottom) >= self.window.0 || p.left.max(p.right) >= self.window.1 {
            return Err(GeometryError::EmptyWindow(p));
        }
        outputs(self.input, self.window, self.stride, (1, 1), self.pads)
    }

    /// The input positions (row, column) that output position (`oy`, `ox`) covers, padding left out.
    pub fn covered(&self, oy: usize, ox: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let along = |o: usize, s: usize, before: usize, k: usize, n: usize| {
            let start = o * s;
            start.saturating_sub(before)..(start + k).saturating_sub(before).min(n)
        };
        (
            along(oy, self.stride.0, self.pads.top, self.window.0, self.input.0),
            along(ox, self.stride.1, self.pads.left, self.window.1, self.input.1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_is_tensorflows() {
        let p = Pads::same((28, 28), (5, 5), (2, 2), (1, 1));
        assert_eq!(p, Pads { top: 1, bottom: 2, left: 1, right: 2 });
        assert_eq!(Pads::same((28, 28), (3, 3), (1, 1), (1, 1)), Pads { top: 1, bottom: 1, left: 1, right: 1 });
        assert_eq!(Pads::same((5, 5), (2, 2), (2, 2), (1, 1)), Pads { top: 0, bottom: 1, left: 0, right: 1 });
    }

    #[test]
    fn output_sizes_and_refusals() {
        let mut c = Conv2d {
            input: (28, 28),
            in_channels: 1,
            out_channels: 5,
            kernel: (5, 5),
            stride: (2, 2),
            dilation: (1, 1),
            pads: Pads { top: 1, bottom: 2, left: 1, right: 2 },
            groups: 1,
        };
        assert_eq!(c.output(), Ok((14, 14)));
        c.kernel = (40, 5);
        assert!(matches!(c.output(), Err(GeometryError::WindowTooLarge { .. })));
        c.stride = (0, 1);
        assert_eq!(c.output(), Err(GeometryError::Zero("stride")));
        (c.kernel, c.stride) = ((5, 5), (usize::MAX, 1));
        assert_eq!(c.output(), Err(GeometryError::Overflow));
    }

    #[test]
    fn a_pool_window_always_holds_input() {
        let p = Pool2d {
            input: (5, 5),
            channels: 1,
            window: (2, 2),
            stride: (2, 2),
            pads: Pads { top: 0, bottom: 1, left: 0, right: 1 },
        };
        assert_eq!(p.output(), Ok((3, 3)));
        assert_eq!(p.covered(2, 2), (4..5, 4..5));
        assert!(matches!(
            Pool2d { pads: Pads { top: 2, ..Pads::default() }, ..p }.output(),
            Err(GeometryError::EmptyWindow(_))
        ));
    }
}
