//! The common form of data sets and inputs: samples of one shape, and their labels if they have any.

use std::ops::Range;

use thiserror::Error;

/// Samples of one shape, values as stored (pixels 0 to 255): scaling is the caller's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Samples {
    /// Shape of one sample, without the batch dimension: `[28, 28, 1]` (height, width, channels).
    pub shape: Vec<usize>,
    /// All samples, one after the other, row-major.
    pub data: Vec<f32>,
    /// One class per sample.
    pub labels: Option<Vec<u32>>,
}

/// Sizes that do not agree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// Values of another shape than the model's.
    #[error(
        "shape {got:?} where {wanted:?} is wanted (height, width, channels; more than one sample in a leading dimension)"
    )]
    Mismatch {
        /// The shape found.
        got: Vec<usize>,
        /// The shape of one sample as wanted.
        wanted: Vec<usize>,
    },
    /// An array without a dimension for the samples.
    #[error("shape {0:?} has no dimension for the samples and one for their values")]
    NoBatch(Vec<usize>),
    /// A shape with a zero, or too large for memory.
    #[error("shape {0:?} holds no values or too many")]
    Size(Vec<usize>),
    /// The data are no whole number of samples.
    #[error("{values} values are no whole number of samples of shape {shape:?}")]
    Ragged {
        /// Values found.
        values: usize,
        /// Shape of one sample.
        shape: Vec<usize>,
    },
    /// Not one label per sample.
    #[error("{labels} labels for {samples} samples")]
    Labels {
        /// Samples found.
        samples: usize,
        /// Labels found.
        labels: usize,
    },
}

impl Samples {
    /// Samples of `shape` over `data`, checked: a whole number of them and one label for each.
    pub fn new(shape: Vec<usize>, data: Vec<f32>, labels: Option<Vec<u32>>) -> Result<Self, ShapeError> {
        let Some(size) = volume(&shape) else { return Err(ShapeError::Size(shape)) };
        if !data.len().is_multiple_of(size) {
            return Err(ShapeError::Ragged { values: data.len(), shape });
        }
        let samples = data.len() / size;
        match &labels {
            Some(l) if l.len() != samples => Err(ShapeError::Labels { samples, labels: l.len() }),
            _ => Ok(Self { shape, data, labels }),
        }
    }

    /// The samples in an array of `[n, shape of one...]`; flat pictures `[n, h, w]` become `[h, w, 1]`.
    pub(crate) fn from_batch(shape: &[usize], data: Vec<f32>, labels: Option<Vec<u32>>) -> Result<Self, ShapeError> {
        match shape {
            [_, h, w] => Self::new(vec![*h, *w, 1], data, labels),
            [_, rest @ ..] if !rest.is_empty() => Self::new(rest.to_vec(), data, labels),
            _ => Err(ShapeError::NoBatch(shape.to_vec())),
        }
    }

    /// The samples in an array of `got`: one sample of the `wanted` shape or a batch of them.
    /// Dimensions of size one may be left out or added, and either shape may be flat.
    pub(crate) fn from_array(got: &[usize], data: Vec<f32>, wanted: &[usize]) -> Result<Self, ShapeError> {
        let fits = same_layout(got, wanted) || got.split_first().is_some_and(|(_, rest)| same_layout(rest, wanted));
        if !fits {
            return Err(ShapeError::Mismatch { got: got.to_vec(), wanted: wanted.to_vec() });
        }
        Self::new(wanted.to_vec(), data, None)
    }

    /// Values in one sample.
    pub fn sample_len(&self) -> usize {
        volume(&self.shape).unwrap_or(0)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.data.len().checked_div(self.sample_len()).unwrap_or(0)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of sample `i`; `None` past the end.
    pub fn sample(&self, i: usize) -> Option<&[f32]> {
        let size = self.sample_len();
        let start = i.checked_mul(size)?;
        self.data.get(start..start.checked_add(size)?).filter(|s| !s.is_empty())
    }

    /// The samples of a range, cut to those that exist.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let size = self.sample_len();
        Self {
            shape: self.shape.clone(),
            data: self.data[start * size..end * size].to_vec(),
            labels: self.labels.as_ref().map(|l| l.iter().skip(start).take(end - start).copied().collect()),
        }
    }

    /// The first `n` samples, or all if there are fewer.
    pub fn take(&self, n: usize) -> Self {
        self.slice(0..n)
    }

    /// The same values as samples of the `wanted` shape: `[28, 28]`, `[28, 28, 1]` and `[784]` are one layout.
    pub fn into_shape(self, wanted: &[usize]) -> Result<Self, ShapeError> {
        if !same_layout(&self.shape, wanted) {
            return Err(ShapeError::Mismatch { got: self.shape, wanted: wanted.to_vec() });
        }
        Self::new(wanted.to_vec(), self.data, self.labels)
    }
}

/// Values in an array of this shape; `None` if it holds none, or more than memory can.
pub(crate) fn volume(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n > 0)
}

/// Whether row-major arrays of both shapes are the same values in the same places.
fn same_layout(got: &[usize], wanted: &[usize]) -> bool {
    let without_ones = |s: &[usize]| s.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    let (g, w) = (without_ones(got), without_ones(wanted));
    g == w || (volume(got).is_some() && volume(got) == volume(wanted) && (g.len() == 1 || w.len() == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Samples {
        Samples::new(vec![2, 1], (0..6).map(|x| x as f32).collect(), Some(vec![7, 8, 9])).unwrap()
    }

    #[test]
    fn samples_and_slices_stop_at_the_end() {
        let s = three();
        assert_eq!((s.len(), s.sample(1), s.sample(3)), (3, Some(&[2.0, 3.0][..]), None));
        assert_eq!(s.sample(usize::MAX), None);
        let cut = s.slice(1..9);
        assert_eq!((cut.data, cut.labels), (vec![2.0, 3.0, 4.0, 5.0], Some(vec![8, 9])));
        assert_eq!((s.take(2).len(), s.take(0).len(), s.slice(5..6).len()), (2, 0, 0));
        assert!(Samples::default().is_empty());
    }

    #[test]
    fn sizes_that_do_not_agree_are_refused() {
        assert_eq!(Samples::new(vec![2], vec![0.0; 3], None), Err(ShapeError::Ragged { values: 3, shape: vec![2] }));
        assert_eq!(
            Samples::new(vec![2], vec![0.0; 4], Some(vec![1])),
            Err(ShapeError::Labels { samples: 2, labels: 1 })
        );
        assert_eq!(Samples::new(vec![0, 2], vec![], None), Err(ShapeError::Size(vec![0, 2])));
        assert_eq!(Samples::new(vec![usize::MAX, 2], vec![], None), Err(ShapeError::Size(vec![usize::MAX, 2])));
    }

    #[test]
    fn layouts_of_a_picture_are_recognised() {
        let wanted = [28, 28, 1];
        for (got, n) in [
            (&[28, 28][..], 1),
            (&[28, 28, 1], 1),
            (&[784], 1),
            (&[1, 28, 28, 1], 1),
            (&[3, 28, 28, 1], 3),
            (&[3, 28, 28], 3),
            (&[3, 784], 3),
        ] {
            let s = Samples::from_array(got, vec![0.0; 784 * n], &wanted).unwrap();
            assert_eq!((s.shape.as_slice(), s.len()), (&wanted[..], n), "{got:?}");
        }
        for got in [&[28, 27][..], &[2, 392], &[3, 28, 28, 3], &[], &[783], &[2, 3, 28, 28, 1]] {
            let e = Samples::from_array(got, vec![], &wanted).unwrap_err().to_string();
            assert!(e.contains(&format!("{got:?}")) && e.contains("[28, 28, 1]"), "{e}");
        }
        assert!(Samples::from_array(&[3, 32, 32], vec![0.0; 3072], &[32, 32, 3]).is_err(), "channels first");
        assert_eq!(three().into_shape(&[2]).unwrap().shape, [2]);
        assert!(three().into_shape(&[3]).is_err());
    }
}
