//! Bit planes of n elements read as those of several copies of them, one after the other.
//!
//! Several comparisons of one wire use one set of dealt leaves. Their further levels pack all copies side by side, so
//! that few elements fill few words.

use trefoil_ring::Words;

use super::layout::CHUNK;

/// Copies `len` bits of `from`, from bit `at` on, over the zeros of `to` at bit `start`.
pub(super) fn copy_bits(from: &[u64], at: usize, to: &mut [u64], start: usize, len: usize) {
    let mut done = 0;
    if at.is_multiple_of(64) && start.is_multiple_of(64) {
        let whole = len / 64;
        to[start / 64..][..whole].copy_from_slice(&from[at / 64..][..whole]);
        done = 64 * whole;
    }
    while done < len {
        let (source, target) = (at + done, start + done);
        let count = (64 - target % 64).min(64 - source % 64).min(len - done);
        let bits = from[source / 64] >> (source % 64) & (u64::MAX >> (64 - count));
        to[target / 64] |= bits << (target % 64);
        done += count;
    }
}

/// The planes of the elements `start .. start + len` of any number of copies. `dealt` has `planes` planes of `n`
/// elements, chunk by chunk.
pub(super) fn repeat(dealt: &[u64], planes: usize, n: usize, start: usize, len: usize) -> Words {
    let words = len.div_ceil(64);
    let mut out = Words::zeros(planes * words);
    let mut done = 0;
    while done < len {
        let element = (start + done) % n;
        let (first, at) = (element - element % CHUNK, element % CHUNK);
        let own = CHUNK.min(n - first);
        let count = (own - at).min(len - done);
        let chunk = &dealt[planes * first / 64..][..planes * own.div_ceil(64)];
        for (from, to) in chunk.chunks_exact(own.div_ceil(64)).zip(out.chunks_exact_mut(words.max(1))) {
            copy_bits(from, at, to, done, count);
        }
        done += count;
    }
    out
}

/// One plane of `n` elements, `copies` times.
pub(super) fn repeat_plane(plane: &[u64], n: usize, copies: usize) -> Words {
    let mut out = Words::zeros((copies * n).div_ceil(64));
    (0..copies).for_each(|copy| copy_bits(plane, 0, &mut out, copy * n, n));
    out
}

#[cfg(test)]
mod tests {
    use super::super::layout::chunks;
    use super::*;

    /// A bit that belongs to an element and a plane.
    fn truth(element: usize, plane: usize) -> u64 {
        (element as u64 * 0x9e37_79b9 + plane as u64 * 0x85eb_ca6b) >> 7 & 1
    }

    #[test]
    fn every_copy_reads_the_same_bits() {
        let planes = 3;
        for n in [1, 7, 64, 100, 4096, 4097, 9000] {
            let mut dealt = vec![];
            for (start, len, words) in chunks(n) {
                let mut chunk = vec![0u64; planes * words];
                for (p, plane) in chunk.chunks_exact_mut(words).enumerate() {
                    (0..len).for_each(|e| plane[e / 64] |= truth(start + e, p) << (e % 64));
                }
                dealt.extend(chunk);
            }
            for copies in [1, 2, 5] {
                for (start, len, words) in chunks(copies * n) {
                    let all = repeat(&dealt, planes, n, start, len);
                    for (p, plane) in all.chunks_exact(words).enumerate() {
                        for e in 0..64 * words {
                            let want = if e < len { truth((start + e) % n, p) } else { 0 };
                            assert_eq!(plane[e / 64] >> (e % 64) & 1, want, "{n} elements, {copies} copies, {e}");
                        }
                    }
                }
            }
        }
        let plane = repeat_plane(&[0b101], 3, 40);
        assert!((0..120).all(|e| plane[e / 64] >> (e % 64) & 1 == u64::from(e % 3 != 1)));
    }
}
