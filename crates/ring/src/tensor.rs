//! Contiguous, shape-checked tensors over Z_2^64, erased on drop.

use std::fmt;

use thiserror::Error;

/// A shape that does not fit the data or the operation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// The number of elements given is not the product of the shape.
    #[error("shape {shape:?} needs {expected} elements, got {got}")]
    Elements {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Its product.
        expected: usize,
        /// How many elements were given.
        got: usize,
    },
    /// Two operands that must have one shape do not.
    #[error("{op}: shapes {left:?} and {right:?} differ")]
    Mismatch {
        /// The operation.
        op: &'static str,
        /// Left operand's shape.
        left: Vec<usize>,
        /// Right operand's shape.
        right: Vec<usize>,
    },
    /// The product of a shape does not fit the address space.
    #[error("shape {0:?} has too many elements")]
    Overflow(Vec<usize>),
}

/// Number of elements of a shape, or an error if the product overflows.
pub fn elements(shape: &[usize]) -> Result<usize, ShapeError> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(|| ShapeError::Overflow(shape.to_vec()))
}

/// A tensor over Z_2^64 in row-major order. Arithmetic wraps. Erased when dropped; `Debug` shows no element.
#[derive(Clone, Default)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<u64>,
}

impl Tensor {
    /// A tensor of `shape` over `data` (row-major).
    pub fn new(shape: Vec<usize>, data: Vec<u64>) -> Result<Self, ShapeError> {
        let expected = elements(&shape)?;
        if expected != data.len() {
            return Err(ShapeError::Elements { shape, expected, got: data.len() });
        }
        Ok(Self { shape, data })
    }

    /// A one-dimensional tensor over `data`.
    pub fn from_vec(data: Vec<u64>) -> Self {
        Self { shape: vec![data.len()], data }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: Vec<usize>) -> Result<Self, ShapeError> {
        let n = elements(&shape)?;
        Ok(Self { shape, data: vec![0; n] })
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[u64] {
        &self.data
    }

    /// The elements in row-major order, to change in place.
    pub fn data_mut(&mut self) -> &mut [u64] {
        &mut self.data
    }

    /// The elements, taken out: the caller now answers for erasing them.
    pub fn into_vec(mut self) -> Vec<u64> {
        std::mem::take(&mut self.data)
    }

    /// The same elements under another shape of the same size.
    pub fn reshaped(mut self, shape: Vec<usize>) -> Result<Self, ShapeError> {
        let expected = elements(&shape)?;
        if expected != self.data.len() {
            return Err(ShapeError::Elements { shape, expected, got: self.data.len() });
        }
        self.shape = shape;
        Ok(self)
    }

    /// Adds `other` element by element, wrapping.
    pub fn add_assign(&mut self, other: &Tensor) -> Result<(), ShapeError> {
        self.check("add", other)?;
        for (a, b) in self.data.iter_mut().zip(&other.data) {
            *a = a.wrapping_add(*b);
        }
        Ok(())
    }

    /// Subtracts `other` element by element, wrapping.
    pub fn sub_assign(&mut self, other: &Tensor) -> Result<(), ShapeError> {
        self.check("subtract", other)?;
        for (a, b) in self.data.iter_mut().zip(&other.data) {
            *a = a.wrapping_sub(*b);
        }
        Ok(())
    }

    fn check(&self, op: &'static str, other: &Tensor) -> Result<(), ShapeError> {
        if self.shape == other.shape {
            return Ok(());
        }
        Err(ShapeError::Mismatch { op, left: self.shape.clone(), right: other.shape.clone() })
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        crate::words::erase(&mut self.data);
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?}", self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_data_must_agree() {
        assert_eq!(
            Tensor::new(vec![2, 3], vec![0; 5]).unwrap_err(),
            ShapeError::Elements { shape: vec![2, 3], expected: 6, got: 5 }
        );
        assert!(matches!(Tensor::zeros(vec![usize::MAX, 2]), Err(ShapeError::Overflow(_))));
    }

    #[test]
    fn arithmetic_wraps() {
        let mut a = Tensor::from_vec(vec![u64::MAX, 1]);
        a.add_assign(&Tensor::from_vec(vec![1, 1])).unwrap();
        assert_eq!(a.data(), [0, 2]);
        a.sub_assign(&Tensor::from_vec(vec![1, 3])).unwrap();
        assert_eq!(a.data(), [u64::MAX, u64::MAX]);
    }

    #[test]
    fn debug_shows_no_element() {
        assert_eq!(format!("{:?}", Tensor::from_vec(vec![12345])), "Tensor[1]");
    }
}
