//! Values of a few bits side by side, as they are sent.

/// Bytes that `n` values of `bits` bits take side by side.
pub fn packed_bytes(n: usize, bits: u32) -> usize {
    (n * bits as usize).div_ceil(8)
}

/// Packs the low `bits` bits of each value side by side, little-endian. `out` has [`packed_bytes`] bytes.
pub fn pack(values: &[u64], bits: u32, out: &mut [u8]) {
    assert!((1..=64).contains(&bits) && out.len() == packed_bytes(values.len(), bits), "pack: output size");
    #[cfg(target_arch = "x86_64")]
    if bits.is_multiple_of(8) && super::vbmi::available() {
        // SAFETY: the instructions are there and the sizes were asserted.
        return unsafe { super::vbmi::pack(values, bits as usize / 8, out) };
    }
    pack_plain(values, bits, out);
}

fn pack_plain(values: &[u64], bits: u32, out: &mut [u8]) {
    match bits {
        16 => return pack_bytes::<2>(values, out),
        32 => return pack_bytes::<4>(values, out),
        48 => return pack_bytes::<6>(values, out),
        64 => return pack_bytes::<8>(values, out),
        _ => {}
    }
    let mask = u64::MAX >> (64 - bits);
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

fn pack_bytes<const W: usize>(values: &[u64], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(W).zip(values) {
        o.copy_from_slice(&v.to_le_bytes()[..W]);
    }
}

/// The inverse of [`pack`]: each value in the low `bits` bits, zeros above.
pub fn unpack(bytes: &[u8], bits: u32, out: &mut [u64]) {
    assert!((1..=64).contains(&bits) && bytes.len() == packed_bytes(out.len(), bits), "unpack: input size");
    #[cfg(target_arch = "x86_64")]
    if bits.is_multiple_of(8) && super::vbmi::available() {
        // SAFETY: the instructions are there and the sizes were asserted.
        return unsafe { super::vbmi::unpack(bytes, bits as usize / 8, out) };
    }
    unpack_plain(bytes, bits, out);
}

fn unpack_plain(bytes: &[u8], bits: u32, out: &mut [u64]) {
    match bits {
        16 => return unpack_bytes::<2>(bytes, out),
        32 => return unpack_bytes::<4>(bytes, out),
        48 => return unpack_bytes::<6>(bytes, out),
        64 => return unpack_bytes::<8>(bytes, out),
        _ => {}
    }
    let mask = u64::MAX >> (64 - bits);
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

fn unpack_bytes<const W: usize>(bytes: &[u8], out: &mut [u64]) {
    for (b, v) in bytes.chunks_exact(W).zip(out) {
        let mut le = [0u8; 8];
        le[..W].copy_from_slice(b);
        *v = u64::from_le_bytes(le);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;
    use super::*;

    #[test]
    fn packing_is_inverted_for_every_width() {
        for bits in 1..=64 {
            for n in [0, 1, 7, 8, 9, 33] {
                let dirty = values(n);
                let (mut bytes, mut plain) = (vec![1; packed_bytes(n, bits)], vec![1; packed_bytes(n, bits)]);
                pack(&dirty, bits, &mut bytes);
                pack_plain(&dirty, bits, &mut plain);
                assert_eq!(bytes, plain, "{bits} bits, {n} values");
                let (mut back, mut back_plain) = (vec![1; n], vec![1; n]);
                unpack(&bytes, bits, &mut back);
                unpack_plain(&bytes, bits, &mut back_plain);
                assert_eq!(back, back_plain, "{bits} bits, {n} values");
                let clean: Vec<u64> = dirty.iter().map(|x| x & (u64::MAX >> (64 - bits))).collect();
                assert_eq!(back, clean, "{bits} bits, {n} values");
            }
        }
    }

    #[test]
    fn values_lie_side_by_side_from_the_lowest_bit() {
        let mut bytes = [0; 3];
        pack(&[0xabc, 0x123], 12, &mut bytes);
        assert_eq!(bytes, [0xbc, 0x3a, 0x12]);
        let mut bytes = [0; 4];
        pack(&[0xffff_1234, 0x5678], 16, &mut bytes);
        assert_eq!(bytes, [0x34, 0x12, 0x78, 0x56]);
    }
}
