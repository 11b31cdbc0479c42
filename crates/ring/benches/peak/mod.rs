//! Loops of nothing but multiply-adds in registers: what no kernel can exceed.

/// A loop's name, its multiply-adds, and the loop.
pub(crate) type Peak = (&'static str, u64, fn(u64) -> u64);

/// The loops that this processor can run.
pub(crate) fn loops() -> Vec<Peak> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
        return x86::loops();
    }
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    const TURNS: u64 = 10_000;

    pub(super) fn loops() -> Vec<super::Peak> {
        let mut out: Vec<super::Peak> = vec![("vpmullq", TURNS * 12 * 8, |seed| {
            // SAFETY: `super::loops` looked for the instructions.
            unsafe { vpmullq(seed) }
        })];
        if is_x86_feature_detected!("avx512ifma") && is_x86_feature_detected!("avx512vnni") {
            out.push(("ifma", TURNS * 8 * 16, |seed| {
                // SAFETY: looked for above.
                unsafe { ifma(seed) }
            }));
        }
        #[cfg(target_os = "linux")]
        if trefoil_ring::kernels::Isa::best() == trefoil_ring::kernels::Isa::Amx {
            out.push(("amx", TURNS * 4 * 16 * 16 * 64 / 36, |_| {
                // SAFETY: the unit is there, and `Isa::best` asked the system for it.
                unsafe { amx() };
                0
            }));
        }
        out
    }

    /// Byte products on tiles that never leave the first cache: 36 of them make a ring product.
    #[cfg(target_os = "linux")]
    unsafe fn amx() {
        #[repr(align(64))]
        struct Tiles(#[expect(dead_code, reason = "read by the tile loads")] [u8; 4 * 1024]);
        #[repr(align(64))]
        struct Config([u8; 64]);
        let tiles = Tiles([3; 4096]);
        let mut config = Config([0; 64]);
        config.0[0] = 1;
        for tile in 0..8 {
            config.0[16 + 2 * tile] = 64;
            config.0[48 + tile] = 16;
        }
        // SAFETY: reads the configuration and four tiles of 1024 bytes; all tile registers are named.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "2:",
                "tileloadd tmm4, [{tiles} + {line}*1]",
                "tileloadd tmm5, [{tiles} + {line}*1 + 1024]",
                "tileloadd tmm6, [{tiles} + {line}*1 + 2048]",
                "tileloadd tmm7, [{tiles} + {line}*1 + 3072]",
                "tdpbuud tmm0, tmm4, tmm6",
                "tdpbuud tmm1, tmm4, tmm7",
                "tdpbuud tmm2, tmm5, tmm6",
                "tdpbuud tmm3, tmm5, tmm7",
                "sub {turns}, 1",
                "jnz 2b",
                "tilerelease",
                config = in(reg) &config,
                tiles = in(reg) &tiles,
                line = in(reg) 64u64,
                turns = inout(reg) TURNS => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// Hides from the compiler what the vectors hold, so that no two of the products are one.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn opaque<const N: usize>(mut v: [__m512i; N]) -> [__m512i; N] {
        for x in &mut v {
            // SAFETY: no instruction at all.
            unsafe { asm!("/* {} */", inout(zmm_reg) * x, options(nomem, nostack)) };
        }
        v
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn vpmullq(seed: u64) -> u64 {
        let start = _mm512_set1_epi64(seed as i64);
        let mut sums = opaque([start; 12]);
        let a = opaque([start; 4]);
        let mut b = [start; 3];
        for _ in 0..TURNS {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_add_epi64(*sum, _mm512_mullo_epi64(a[i / 3], b[i % 3]));
            }
            b = opaque(b);
        }
        _mm512_reduce_add_epi64(sums.into_iter().fold(start, |x, y| _mm512_xor_si512(x, y))) as u64
    }

    /// A product modulo 2^64 from limbs of 52 and 12 bits: low and high half of the low limbs' product, and the two
    /// mixed products of two elements at once in 16-bit lanes. Five instructions for sixteen products.
    #[target_feature(enable = "avx512f,avx512ifma,avx512vnni")]
    fn ifma(seed: u64) -> u64 {
        let start = _mm512_set1_epi64(seed as i64);
        let (mut low, mut high, mut mixed) = (opaque([start; 8]), opaque([start; 8]), opaque([start; 8]));
        let (mut a, mut b) = ([start; 3], [start; 3]);
        for _ in 0..TURNS {
            for k in 0..2 {
                for i in 0..8 {
                    low[i] = _mm512_madd52lo_epu64(low[i], a[k], b[k]);
                    high[i] = _mm512_madd52hi_epu64(high[i], a[k], b[k]);
                }
            }
            for sum in &mut mixed {
                *sum = _mm512_dpwssd_epi32(*sum, a[2], b[2]);
            }
            (a, b) = (opaque(a), opaque(b));
        }
        let all = low.into_iter().chain(high).chain(mixed);
        _mm512_reduce_add_epi64(all.fold(start, |x, y| _mm512_xor_si512(x, y))) as u64
    }
}
