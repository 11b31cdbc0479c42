//! Bit planes and packing with AVX-512 VBMI, which moves any byte of a vector to any place in one instruction.

use std::arch::x86_64::*;

/// Whether the functions of this file may be called.
pub(in super::super) fn available() -> bool {
    is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi")
}

/// As `planes::to_planes`: 64 elements at a time become eight vectors, one per byte of the elements; a test of one
/// bit in every byte of such a vector is a word of that bit's plane.
///
/// # Safety
/// The instructions are [`available`]; `lo + k <= 64` and `out` holds `k` planes.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) unsafe fn to_planes(values: &[u64], lo: u32, k: u32, out: &mut [u64]) {
    let words = values.len().div_ceil(64);
    // A cache line of every plane is gathered before it is written: planes are often a power of two apart, and
    // single words at such distances would evict one another.
    let mut lines = [[0u64; 8]; 64];
    for (first, part) in values.chunks(512).enumerate().map(|(i, part)| (8 * i, part)) {
        for (w, chunk) in part.chunks(64).enumerate() {
            let mut vectors = [_mm512_setzero_si512(); 8];
            for (vector, part) in vectors.iter_mut().zip(chunk.chunks(8)) {
                let mask = (0xffu16 >> (8 - part.len())) as u8;
                // SAFETY: the mask admits the elements of `part` only.
                *vector = unsafe { _mm512_maskz_loadu_epi64(mask, part.as_ptr().cast()) };
            }
            let bytes = byte_vectors(vectors);
            for (bit, line) in (lo as usize..).zip(&mut lines[..k as usize]) {
                let test = _mm512_set1_epi8((1u8 << (bit % 8)) as i8);
                line[w] = _mm512_test_epi8_mask(bytes[bit / 8], test);
            }
        }
        let count = part.len().div_ceil(64);
        for (line, plane) in lines[..k as usize].iter().zip(out.chunks_exact_mut(words)) {
            match plane[first..first + count].as_mut_array::<8>() {
                Some(whole) => *whole = *line,
                None => plane[first..first + count].copy_from_slice(&line[..count]),
            }
        }
    }
}

/// Byte `i` of vector `j` of the result is byte `j` of element `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(in super::super) fn byte_vectors(v: [__m512i; 8]) -> [__m512i; 8] {
    let order: [u8; 64] = std::array::from_fn(|i| (i % 8 * 8 + i / 8) as u8);
    // SAFETY: 64 bytes are read from 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    let v = v.map(|x| _mm512_permutexvar_epi8(order, x));
    transpose_words(v)
}

/// Transposes 8 x 8 words: word `i` of vector `j` of the result is word `j` of vector `i`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_words(v: [__m512i; 8]) -> [__m512i; 8] {
    let mut a = v;
    for i in 0..4 {
        a[2 * i] = _mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1]);
    }
    let mut b = a;
    for half in 0..2 {
        for odd in 0..2 {
            let (x, y) = (a[4 * half + odd], a[4 * half + 2 + odd]);
            b[4 * half + odd] = _mm512_shuffle_i64x2::<0b10_00_10_00>(x, y);
            b[4 * half + 2 + odd] = _mm512_shuffle_i64x2::<0b11_01_11_01>(x, y);
        }
    }
    let mut c = b;
    for i in 0..4 {
        c[i] = _mm512_shuffle_i64x2::<0b10_00_10_00>(b[i], b[4 + i]);
        c[4 + i] = _mm512_shuffle_i64x2::<0b11_01_11_01>(b[i], b[4 + i]);
    }
    c
}

/// The low `width` bytes of each value side by side.
///
/// # Safety
/// The instructions are [`available`]; `width` is 1 to 8 and `out` has `width` bytes per value.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) unsafe fn pack(values: &[u64], width: usize, out: &mut [u8]) {
    let order: [u8; 64] = std::array::from_fn(|i| (i / width * 8 + i % width) as u8);
    // SAFETY: 64 bytes are read from 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    for (part, out) in values.chunks(8).zip(out.chunks_mut(8 * width)) {
        let mask = (0xffu16 >> (8 - part.len())) as u8;
        // SAFETY: the masks admit the elements of `part` and the bytes of `out` only.
        unsafe {
            let v = _mm512_maskz_loadu_epi64(mask, part.as_ptr().cast());
            let packed = _mm512_permutexvar_epi8(order, v);
            _mm512_mask_storeu_epi8(out.as_mut_ptr().cast(), u64::MAX >> (64 - out.len()), packed);
        }
    }
}

/// The inverse of [`pack`].
///
/// # Safety
/// As [`pack`], with `bytes` for `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) unsafe fn unpack(bytes: &[u8], width: usize, out: &mut [u64]) {
    let order: [u8; 64] = std::array::from_fn(|i| (i / 8 * width + i % 8) as u8);
    let keep = (0..64).filter(|i| i % 8 < width).fold(0u64, |mask, i| mask | 1 << i);
    // SAFETY: 64 bytes are read from 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    for (bytes, part) in bytes.chunks(8 * width).zip(out.chunks_mut(8)) {
        let mask = (0xffu16 >> (8 - part.len())) as u8;
        // SAFETY: the masks admit the bytes of `bytes` and the elements of `part` only.
        unsafe {
            let packed = _mm512_maskz_loadu_epi8(u64::MAX >> (64 - bytes.len()), bytes.as_ptr().cast());
            let v = _mm512_maskz_permutexvar_epi8(keep, order, packed);
            _mm512_mask_storeu_epi64(part.as_mut_ptr().cast(), mask, v);
        }
    }
}
