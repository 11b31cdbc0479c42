//! Local operations that only move, repeat or add up elements.

use trefoil_ring::Words;
use trefoil_ring::geometry::Pads;

/// Joins values of the given shapes along `axis`, row by row.
pub(crate) fn concat(xs: &[(&[u64], &[usize])], rows: usize, axis: usize) -> Words {
    let Some((_, first)) = xs.first() else { return Words::default() };
    let outer = rows * first[..axis].iter().product::<usize>();
    let runs: Vec<usize> = xs.iter().map(|(_, s)| s[axis..].iter().product()).collect();
    let mut out = Words::with_capacity(outer * runs.iter().sum::<usize>());
    for o in 0..outer {
        for ((x, _), run) in xs.iter().zip(&runs) {
            out.extend(&x[o * run..(o + 1) * run]);
        }
    }
    out
}

/// Elements `start .. start + len` along `axis` of rows of the given shape.
pub(super) fn slice(x: &[u64], shape: &[usize], axis: usize, start: usize, len: usize) -> Words {
    let inner: usize = shape[axis + 1..].iter().product();
    let run = shape[axis] * inner;
    let mut out = Words::with_capacity(x.len() / shape[axis] * len);
    for s in x.chunks_exact(run) {
        out.extend(&s[start * inner..(start + len) * inner]);
    }
    out
}

/// Zeros around height and width.
pub(super) fn pad(x: &[u64], rows: usize, shape: &[usize], pads: &Pads) -> Words {
    let (h, w, c) = (shape[0], shape[1], shape[2]);
    let (oh, ow) = (h + pads.top + pads.bottom, w + pads.left + pads.right);
    let mut out = Words::zeros(rows * oh * ow * c);
    for b in 0..rows {
        for y in 0..h {
            let from = (b * h + y) * w * c;
            let to = ((b * oh + y + pads.top) * ow + pads.left) * c;
            out[to..to + w * c].copy_from_slice(&x[from..from + w * c]);
        }
    }
    out
}

/// Height and width without their margins.
pub(super) fn crop(x: &[u64], rows: usize, shape: &[usize], pads: &Pads) -> Words {
    let (h, w, c) = (shape[0], shape[1], shape[2]);
    let (oh, ow) = (h - pads.top - pads.bottom, w - pads.left - pads.right);
    let mut out = Words::with_capacity(rows * oh * ow * c);
    for b in 0..rows {
        for y in 0..oh {
            let from = ((b * h + y + pads.top) * w + pads.left) * c;
            out.extend(&x[from..from + ow * c]);
        }
    }
    out
}

/// The sum of each `inner` neighbouring elements' counterparts: `out` has `inner` elements for each of its rows.
pub(super) fn sum(x: &[u64], inner: usize, out: &mut [u64]) {
    let row = x.len() / (out.len() / inner);
    for (o, x) in out.chunks_exact_mut(inner).zip(x.chunks_exact(row)) {
        for part in x.chunks_exact(inner) {
            super::add(o, part);
        }
    }
}

/// Each of `rows` rows `times` times, and all of that `copies` times.
pub(super) fn repeat(x: &[u64], rows: usize, times: usize, copies: usize) -> Words {
    let mut out = Words::with_capacity(x.len() * times * copies);
    for _ in 0..copies {
        for row in x.chunks_exact(x.len() / rows) {
            (0..times).for_each(|_| out.extend(row));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concat_along_each_axis() {
        let (a, b) = ([1, 2, 3, 4], [5, 6]);
        assert_eq!(&concat(&[(&a, &[2, 2]), (&b, &[2, 1])], 1, 1)[..], [1, 2, 5, 3, 4, 6]);
        assert_eq!(&concat(&[(&a, &[2, 2]), (&b, &[1, 2])], 1, 0)[..], [1, 2, 3, 4, 5, 6]);
        assert_eq!(&concat(&[(&a, &[2]), (&b, &[1])], 2, 0)[..], [1, 2, 5, 3, 4, 6]);
    }

    #[test]
    fn slices_along_each_axis() {
        let x: Vec<u64> = (0..12).collect();
        assert_eq!(&slice(&x, &[3, 2], 0, 1, 1)[..], [2, 3, 8, 9]);
        assert_eq!(&slice(&x, &[3, 2], 1, 1, 1)[..], [1, 3, 5, 7, 9, 11]);
        assert_eq!(&slice(&x, &[2, 3, 2], 1, 0, 2)[..], [0, 1, 2, 3, 6, 7, 8, 9]);
    }

    #[test]
    fn cropping_undoes_padding() {
        let x: Vec<u64> = (1..13).collect();
        let pads = Pads { top: 1, bottom: 2, left: 0, right: 3 };
        let padded = pad(&x, 2, &[1, 3, 2], &pads);
        assert_eq!(padded.iter().sum::<u64>(), 78);
        assert_eq!(&crop(&padded, 2, &[4, 6, 2], &pads)[..], x);
    }

    #[test]
    fn sums_and_repetitions() {
        let x = [1, 2, 3, 4, 5, 6, 7, 8];
        let total = |inner, rows: usize| {
            let mut out = vec![0; inner * rows];
            sum(&x, inner, &mut out);
            out
        };
        assert_eq!(total(2, 1), [16, 20]);
        assert_eq!(total(2, 2), [4, 6, 12, 14]);
        assert_eq!(total(1, 2), [10, 26]);
        assert_eq!(&repeat(&[1, 2, 3, 4], 2, 2, 1)[..], [1, 2, 1, 2, 3, 4, 3, 4]);
        assert_eq!(&repeat(&[1, 2], 1, 1, 3)[..], [1, 2, 1, 2, 1, 2]);
    }
}
