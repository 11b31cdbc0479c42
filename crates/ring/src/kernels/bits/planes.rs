//! From values to bit planes.

/// Words of one bit plane over `n` elements.
pub fn plane_words(n: usize) -> usize {
    n.div_ceil(64)
}

/// Bits `lo..lo + k` of each value as `k` planes of `plane_words(values.len())` words: bit `i % 64` of
/// `out[j * words + i / 64]` is bit `lo + j` of `values[i]`. Bits beyond the last element are zero.
pub fn to_planes(values: &[u64], lo: u32, k: u32, out: &mut [u64]) {
    let words = plane_words(values.len());
    assert!(lo <= 64 && k <= 64 - lo && out.len() == words * k as usize, "to_planes: {k} planes of {words} words");
    #[cfg(target_arch = "x86_64")]
    if super::vbmi::available() {
        // SAFETY: the instructions are there and the sizes were asserted.
        return unsafe { super::vbmi::to_planes(values, lo, k, out) };
    }
    plain(values, lo, k, out);
}

fn plain(values: &[u64], lo: u32, k: u32, out: &mut [u64]) {
    let words = plane_words(values.len());
    for (w, chunk) in values.chunks(64).enumerate() {
        let mut block = [0u64; 64];
        block[..chunk.len()].copy_from_slice(chunk);
        transpose64(&mut block);
        for j in 0..k as usize {
            out[j * words + w] = block[lo as usize + j];
        }
    }
}

/// Transposes a 64 x 64 bit matrix in place: bit `j` of word `i` becomes bit `i` of word `j`.
pub fn transpose64(a: &mut [u64; 64]) {
    let mut half = 32;
    let mut mask: u64 = 0x0000_0000_ffff_ffff;
    while half != 0 {
        for block in a.chunks_exact_mut(2 * half) {
            let (top, bottom) = block.split_at_mut(half);
            for (x, y) in top.iter_mut().zip(bottom) {
                let swap = ((*x >> half) ^ *y) & mask;
                *x ^= swap << half;
                *y ^= swap;
            }
        }
        half /= 2;
        mask ^= mask << half;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;
    use super::*;

    #[test]
    fn transposing_twice_gives_the_matrix_back() {
        let mut a: [u64; 64] = values(64).try_into().unwrap();
        let before = a;
        transpose64(&mut a);
        assert_eq!(a[5] >> 9 & 1, before[9] >> 5 & 1);
        transpose64(&mut a);
        assert_eq!(a, before);
    }

    #[test]
    fn planes_hold_the_bits_asked_for() {
        for n in [0, 1, 63, 64, 65, 200, 512, 1100] {
            for (lo, k) in [(13, 20), (0, 64), (63, 1), (0, 1), (8, 32), (5, 0), (64, 0)] {
                let v = values(n);
                let words = plane_words(n);
                let mut plain_out = vec![1; words * k];
                plain(&v, lo as u32, k as u32, &mut plain_out);
                let mut out = vec![1; words * k];
                to_planes(&v, lo as u32, k as u32, &mut out);
                assert_eq!(out, plain_out, "{n} values, bits {lo}..{}", lo + k);
                for i in 0..words * 64 {
                    for j in 0..k {
                        let bit = v.get(i).map_or(0, |x| x >> (lo + j) & 1);
                        assert_eq!(out[j * words + i / 64] >> (i % 64) & 1, bit);
                    }
                }
            }
        }
    }
}
