//! Linear steps that are local: the same arithmetic on deltas, on masks and on additive shares.

use trefoil_ring::Words;
use trefoil_ring::geometry::{Pads, Pool2d};

/// Reads one input row of `stride` words per output position, in output order.
fn windows(batch: usize, pool: &Pool2d, mut visit: impl FnMut(usize, usize, usize)) {
    let Ok((oh, ow)) = pool.output() else { return };
    let (ih, iw) = pool.input;
    let mut out = 0;
    for b in 0..batch {
        for oy in 0..oh {
            for ox in 0..ow {
                let (ys, xs) = pool.covered(oy, ox);
                let count = ys.len() * xs.len();
                for y in ys {
                    for x in xs.clone() {
                        visit(out, ((b * ih + y) * iw + x) * pool.channels, count);
                    }
                }
                out += pool.channels;
            }
        }
    }
}

/// Sum over each window times round(2^extra / covered).
pub(crate) fn average_pool(x: &[u64], batch: usize, pool: &Pool2d, extra: u32, out: &mut [u64]) {
    let c = pool.channels;
    windows(batch, pool, |o, i, count| {
        let factor = average_factor(count, extra);
        for (a, v) in out[o..o + c].iter_mut().zip(&x[i..i + c]) {
            *a = a.wrapping_add(v.wrapping_mul(factor));
        }
    });
}

/// round(2^extra / count): what a sum over `count` elements is multiplied by.
pub(crate) fn average_factor(count: usize, extra: u32) -> u64 {
    let count = count as u64;
    ((1 << extra) + count / 2) / count
}

/// Element number `slot` of each window; where padding leaves a window short, its first element again.
pub(crate) fn window_slot(x: &[u64], batch: usize, pool: &Pool2d, slot: usize, out: &mut [u64]) {
    let Ok((oh, ow)) = pool.output() else { return };
    let (ih, iw) = pool.input;
    let c = pool.channels;
    let (dy, dx) = (slot / pool.window.1, slot % pool.window.1);
    let mut rows = out.chunks_exact_mut(c);
    for b in 0..batch {
        for oy in 0..oh {
            for ox in 0..ow {
                let (ys, xs) = pool.covered(oy, ox);
                let inside = dy < ys.len() && dx < xs.len();
                let (y, x0) = if inside { (ys.start + dy, xs.start + dx) } else { (ys.start, xs.start) };
                let i = ((b * ih + y) * iw + x0) * c;
                if let Some(row) = rows.next() {
                    row.copy_from_slice(&x[i..i + c]);
                }
            }
        }
    }
}

/// Product with a public integer.
pub(crate) fn scale(x: &mut [u64], factor: i64) {
    x.iter_mut().for_each(|v| *v = v.wrapping_mul(factor as u64));
}

/// Adds a public integer to every element.
pub(crate) fn offset(x: &mut [u64], units: u64) {
    x.iter_mut().for_each(|v| *v = v.wrapping_add(units));
}

/// Element-wise sum.
pub(crate) fn add(x: &mut [u64], y: &[u64]) {
    x.iter_mut().zip(y).for_each(|(a, b)| *a = a.wrapping_add(*b));
}

/// Joins values of the given per-sample shapes along `axis`.
pub(crate) fn concat(xs: &[(&[u64], &[usize])], batch: usize, axis: usize) -> Words {
    let Some((_, first)) = xs.first() else { return Words::default() };
    let outer = batch * first[..axis].iter().product::<usize>();
    let rows: Vec<usize> = xs.iter().map(|(_, s)| s[axis..].iter().product()).collect();
    let mut out = Words::with_capacity(outer * rows.iter().sum::<usize>());
    for o in 0..outer {
        for ((x, _), row) in xs.iter().zip(&rows) {
            out.extend(&x[o * row..(o + 1) * row]);
        }
    }
    out
}

/// Elements `start .. start + len` along the first dimension of values of the given per-sample shape.
pub(crate) fn slice(x: &[u64], shape: &[usize], start: usize, len: usize) -> Words {
    let sample: usize = shape.iter().product();
    let row: usize = shape[1..].iter().product();
    let mut out = Words::with_capacity(x.len() / shape[0] * len);
    for s in x.chunks_exact(sample) {
        out.extend(&s[start * row..(start + len) * row]);
    }
    out
}

/// Zeros around height and width.
pub(crate) fn pad(x: &[u64], batch: usize, shape: &[usize], pads: &Pads) -> Words {
    let (h, w, c) = (shape[0], shape[1], shape[2]);
    let (oh, ow) = (h + pads.top + pads.bottom, w + pads.left + pads.right);
    let mut out = Words::zeros(batch * oh * ow * c);
    for b in 0..batch {
        for y in 0..h {
            let from = (b * h + y) * w * c;
            let to = ((b * oh + y + pads.top) * ow + pads.left) * c;
            out[to..to + w * c].copy_from_slice(&x[from..from + w * c]);
        }
    }
    out
}

/// Column `i` of `[batch, n]`, without its low bits.
pub(crate) fn shifted_column(x: &[u64], n: usize, i: usize, lo: u32, sample: usize) -> u64 {
    x[sample * n + i] >> lo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_factor_is_exact_for_full_power_of_two_windows() {
        assert_eq!(average_factor(4, 2), 1);
        assert_eq!(average_factor(9, 10), 114);
        assert_eq!(average_factor(2, 2), 2);
    }

    #[test]
    fn concat_along_each_axis() {
        let (a, b) = ([1, 2, 3, 4], [5, 6]);
        assert_eq!(&concat(&[(&a, &[2, 2]), (&b, &[2, 1])], 1, 1)[..], [1, 2, 5, 3, 4, 6]);
        assert_eq!(&concat(&[(&a, &[2, 2]), (&b, &[1, 2])], 1, 0)[..], [1, 2, 3, 4, 5, 6]);
        assert_eq!(&concat(&[(&a, &[2]), (&b, &[1])], 2, 0)[..], [1, 2, 5, 3, 4, 6]);
    }

    #[test]
    fn window_slots_stay_inside() {
        let pool = Pool2d {
            input: (3, 3),
            channels: 1,
            window: (2, 2),
            stride: (2, 2),
            pads: Pads { top: 0, bottom: 1, left: 0, right: 1 },
        };
        let x: Vec<u64> = (0..9).collect();
        let slots: Vec<Vec<u64>> = (0..4)
            .map(|s| {
                let mut o = vec![0; 4];
                window_slot(&x, 1, &pool, s, &mut o);
                o
            })
            .collect();
        assert_eq!(slots, [[0, 2, 6, 8], [1, 2, 7, 8], [3, 5, 6, 8], [4, 2, 6, 8]]);
    }
}
