//! From a bit plane to one element per bit.

use super::super::Isa;

/// Element `i` of `out` becomes 0 or 1: bit `i % 64` of `plane[i / 64]`.
pub fn expand_bits(plane: &[u64], out: &mut [u64]) {
    each_bit(plane, out, false);
}

/// Element `i` of `out` becomes 0 or all ones, as bit `i % 64` of `plane[i / 64]` is 0 or 1: `value & mask`
/// selects without a branch.
pub fn mask_bits(plane: &[u64], out: &mut [u64]) {
    each_bit(plane, out, true);
}

fn each_bit(plane: &[u64], out: &mut [u64], negate: bool) {
    assert!(plane.len() == out.len().div_ceil(64), "expand: plane size");
    match Isa::best() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => {
            // SAFETY: `Isa::best` found the instructions.
            unsafe { avx512(plane, out, negate) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: `Isa::best` found the instructions.
            unsafe { avx2(plane, out, negate) }
        }
        _ => plain(plane, out, negate),
    }
}

#[inline(always)]
fn plain(plane: &[u64], out: &mut [u64], negate: bool) {
    for (word, out) in plane.iter().zip(out.chunks_mut(64)) {
        for (i, o) in out.iter_mut().enumerate() {
            let bit = word >> i & 1;
            *o = if negate { bit.wrapping_neg() } else { bit };
        }
    }
}

/// [`plain`], compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn avx512(plane: &[u64], out: &mut [u64], negate: bool) {
    plain(plane, out, negate);
}

/// [`plain`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(plane: &[u64], out: &mut [u64], negate: bool) {
    plain(plane, out, negate);
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;
    use super::super::{plane_words, to_planes};
    use super::*;

    #[test]
    fn expanding_inverts_a_plane() {
        for n in [0, 1, 7, 64, 65, 200] {
            let v = values(n);
            let mut plane = vec![0; plane_words(n)];
            to_planes(&v, 9, 1, &mut plane);
            let (mut bits, mut masks, mut oracle) = (vec![7; n], vec![7; n], vec![7; n]);
            expand_bits(&plane, &mut bits);
            mask_bits(&plane, &mut masks);
            plain(&plane, &mut oracle, true);
            assert_eq!(masks, oracle);
            for i in 0..n {
                assert_eq!(bits[i], v[i] >> 9 & 1);
                assert_eq!(masks[i], 0u64.wrapping_sub(bits[i]));
            }
        }
    }
}
