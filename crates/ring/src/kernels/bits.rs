//! Packed bits: one machine word holds one bit of 64 elements (a *bit plane*), and values of a few bits side by side.

/// Words of one bit plane over `n` elements.
pub fn plane_words(n: usize) -> usize {
    n.div_ceil(64)
}

/// Bits `lo..lo + k` of each value as `k` planes of `plane_words(values.len())` words: bit `i % 64` of
/// `out[j * words + i / 64]` is bit `lo + j` of `values[i]`. Bits beyond the last element are zero.
pub fn to_planes(values: &[u64], lo: u32, k: u32, out: &mut [u64]) {
    let words = plane_words(values.len());
    assert!(lo + k <= 64 && out.len() == words * k as usize, "to_planes: {k} planes of {words} words");
    for (w, chunk) in values.chunks(64).enumerate() {
        let mut block = [0u64; 64];
        for (b, v) in block.iter_mut().zip(chunk) {
            *b = v >> lo;
        }
        transpose64(&mut block);
        for j in 0..k as usize {
            out[j * words + w] = block[j];
        }
    }
}

/// Transposes a 64 x 64 bit matrix in place: bit `j` of word `i` becomes bit `i` of word `j`.
pub fn transpose64(a: &mut [u64; 64]) {
    let mut j = 32;
    let mut m: u64 = 0x0000_0000_ffff_ffff;
    while j != 0 {
        let mut k = 0;
        while k < 64 {
            let t = ((a[k] >> j) ^ a[k + j]) & m;
            a[k] ^= t << j;
            a[k + j] ^= t;
            k = (k + j + 1) & !j;
        }
        j >>= 1;
        m ^= m << j;
    }
}

/// Bytes that `n` values of `bits` bits take side by side.
pub fn packed_bytes(n: usize, bits: u32) -> usize {
    (n * bits as usize).div_ceil(8)
}

/// Packs the low `bits` bits of each value side by side, little-endian. `out` has [`packed_bytes`] bytes.
pub fn pack(values: &[u64], bits: u32, out: &mut [u8]) {
    assert!((1..=64).contains(&bits) && out.len() == packed_bytes(values.len(), bits), "pack: output size");
    let mask = u64::MAX >> (64 - bits);
    if bits.is_multiple_of(8) {
        let w = (bits / 8) as usize;
        for (o, v) in out.chunks_exact_mut(w).zip(values) {
            o.copy_from_slice(&v.to_le_bytes()[..w]);
        }
        return;
    }
    let (mut acc, mut have, mut at) = (0u128, 0u32, 0usize);
    for v in values {
        acc |= u128::from(v & mask) << have;
        have += bits;
        while have >= 8 {
            out[at] = acc as u8;
            at += 1;
            acc >>= 8;
            have -= 8;
        }
    }
    if have > 0 {
        out[at] = acc as u8;
    }
}

/// The inverse of [`pack`]: each value in the low `bits` bits, zeros above.
pub fn unpack(bytes: &[u8], bits: u32, out: &mut [u64]) {
    assert!((1..=64).contains(&bits) && bytes.len() == packed_bytes(out.len(), bits), "unpack: input size");
    let mask = u64::MAX >> (64 - bits);
    if bits.is_multiple_of(8) {
        let w = (bits / 8) as usize;
        for (b, v) in bytes.chunks_exact(w).zip(out) {
            let mut le = [0u8; 8];
            le[..w].copy_from_slice(b);
            *v = u64::from_le_bytes(le);
        }
        return;
    }
    let (mut acc, mut have, mut at) = (0u128, 0u32, 0usize);
    for v in out {
        while have < bits {
            acc |= u128::from(bytes[at]) << have;
            at += 1;
            have += 8;
        }
        *v = acc as u64 & mask;
        acc >>= bits;
        have -= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<u64> {
        (0..n as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i << 17)).collect()
    }

    #[test]
    fn planes_hold_the_bits_asked_for() {
        for n in [1, 63, 64, 65, 200] {
            let v = values(n);
            let words = plane_words(n);
            let mut out = vec![0; words * 20];
            to_planes(&v, 13, 20, &mut out);
            for (i, x) in v.iter().enumerate() {
                for j in 0..20 {
                    assert_eq!(out[j * words + i / 64] >> (i % 64) & 1, x >> (13 + j) & 1);
                }
            }
        }
    }

    #[test]
    fn packing_is_inverted_for_every_width() {
        for bits in 1..=64 {
            for n in [0, 1, 7, 8, 33] {
                let v: Vec<u64> = values(n).iter().map(|x| x & (u64::MAX >> (64 - bits))).collect();
                let mut bytes = vec![0; packed_bytes(n, bits)];
                pack(&v, bits, &mut bytes);
                let mut back = vec![0; n];
                unpack(&bytes, bits, &mut back);
                assert_eq!(v, back, "{bits} bits, {n} values");
            }
        }
    }
}
