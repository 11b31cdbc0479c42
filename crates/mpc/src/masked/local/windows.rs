//! Local operations over the windows of a pool, and their adjoints.

use std::ops::Range;

use trefoil_ring::geometry::Pool2d;

/// Visits each output position: its first word, and the rows and columns of the input that it covers.
fn positions(rows: usize, pool: &Pool2d, mut visit: impl FnMut(usize, usize, Range<usize>, Range<usize>)) {
    let Ok((oh, ow)) = pool.output() else { return };
    let mut out = 0;
    for row in 0..rows {
        for oy in 0..oh {
            for ox in 0..ow {
                let (ys, xs) = pool.covered(oy, ox);
                visit(out, row, ys, xs);
                out += pool.channels;
            }
        }
    }
}

/// First word of the input's pixel (`y`, `x`) of a row.
fn pixel(pool: &Pool2d, row: usize, y: usize, x: usize) -> usize {
    ((row * pool.input.0 + y) * pool.input.1 + x) * pool.channels
}

/// Visits every (output position, covered input pixel): their first words, and how many pixels the position covers.
fn covered(rows: usize, pool: &Pool2d, mut visit: impl FnMut(usize, usize, usize)) {
    positions(rows, pool, |out, row, ys, xs| {
        let count = ys.len() * xs.len();
        for y in ys {
            xs.clone().for_each(|x| visit(out, pixel(pool, row, y, x), count));
        }
    });
}

/// `to += factor * from`.
fn accumulate(to: &mut [u64], from: &[u64], factor: u64) {
    to.iter_mut().zip(from).for_each(|(a, v)| *a = a.wrapping_add(v.wrapping_mul(factor)));
}

/// Sum over each window times round(2^extra / covered).
pub(super) fn average_pool(x: &[u64], rows: usize, pool: &Pool2d, extra: u32, out: &mut [u64]) {
    let c = pool.channels;
    covered(rows, pool, |o, i, count| accumulate(&mut out[o..o + c], &x[i..i + c], average_factor(count, extra)));
}

/// The adjoint of [`average_pool`].
pub(super) fn spread(x: &[u64], rows: usize, pool: &Pool2d, extra: u32, out: &mut [u64]) {
    let c = pool.channels;
    covered(rows, pool, |o, i, count| accumulate(&mut out[i..i + c], &x[o..o + c], average_factor(count, extra)));
}

/// round(2^extra / count): what a sum over `count` elements is multiplied by.
fn average_factor(count: usize, extra: u32) -> u64 {
    let count = count as u64;
    ((1 << extra) + count / 2) / count
}

/// Visits each output position and the pixel that is element `slot` of its window: their first words. Where padding
/// leaves a window short, its first pixel stands in.
fn slots(rows: usize, pool: &Pool2d, slot: usize, mut visit: impl FnMut(usize, usize)) {
    let (dy, dx) = (slot / pool.window.1, slot % pool.window.1);
    positions(rows, pool, |out, row, ys, xs| {
        let inside = dy < ys.len() && dx < xs.len();
        let (y, x) = if inside { (ys.start + dy, xs.start + dx) } else { (ys.start, xs.start) };
        visit(out, pixel(pool, row, y, x));
    });
}

/// Element number `slot` of each window; where padding leaves a window short, its first element again.
pub(crate) fn window_slot(x: &[u64], rows: usize, pool: &Pool2d, slot: usize, out: &mut [u64]) {
    let c = pool.channels;
    slots(rows, pool, slot, |o, i| out[o..o + c].copy_from_slice(&x[i..i + c]));
}

/// The adjoint of [`window_slot`].
pub(super) fn unwindow(x: &[u64], rows: usize, pool: &Pool2d, slot: usize, out: &mut [u64]) {
    let c = pool.channels;
    slots(rows, pool, slot, |o, i| accumulate(&mut out[i..i + c], &x[o..o + c], 1));
}

#[cfg(test)]
mod tests {
    use trefoil_ring::geometry::Pads;

    use super::*;

    #[test]
    fn average_factor_is_exact_for_full_power_of_two_windows() {
        assert_eq!(average_factor(4, 2), 1);
        assert_eq!(average_factor(9, 10), 114);
        assert_eq!(average_factor(2, 2), 2);
    }

    const POOL: Pool2d = Pool2d {
        input: (3, 3),
        channels: 1,
        window: (2, 2),
        stride: (2, 2),
        pads: Pads { top: 0, bottom: 1, left: 0, right: 1 },
    };

    #[test]
    fn window_slots_stay_inside() {
        let x: Vec<u64> = (0..9).collect();
        let slots: Vec<Vec<u64>> = (0..4)
            .map(|s| {
                let mut o = vec![0; 4];
                window_slot(&x, 1, &POOL, s, &mut o);
                o
            })
            .collect();
        assert_eq!(slots, [[0, 2, 6, 8], [1, 2, 7, 8], [3, 5, 6, 8], [4, 2, 6, 8]]);
    }

    #[test]
    fn adjoints_give_the_same_inner_product() {
        let dot = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<u64>();
        let overlapping = Pool2d { input: (5, 4), channels: 2, stride: (1, 2), pads: Pads::default(), ..POOL };
        for pool in [POOL, overlapping] {
            let (oh, ow) = pool.output().unwrap();
            let (inputs, outputs) = (2 * pool.input.0 * pool.input.1 * pool.channels, 2 * oh * ow * pool.channels);
            let x: Vec<u64> = (0..inputs as u64).map(|i| i * i % 31).collect();
            let y: Vec<u64> = (0..outputs as u64).map(|i| i * i % 17).collect();
            let (mut there, mut back) = (vec![0; outputs], vec![0; inputs]);
            average_pool(&x, 2, &pool, 5, &mut there);
            spread(&y, 2, &pool, 5, &mut back);
            assert_eq!(dot(&there, &y), dot(&x, &back));
            for slot in 0..4 {
                back.fill(0);
                window_slot(&x, 2, &pool, slot, &mut there);
                unwindow(&y, 2, &pool, slot, &mut back);
                assert_eq!(dot(&there, &y), dot(&x, &back));
            }
        }
    }
}
