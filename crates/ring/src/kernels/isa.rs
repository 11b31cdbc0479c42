//! Which instructions the kernels may use on this processor.

/// A set of vector instructions that the kernels know, in rising order of speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, on every target.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW and DQ.
    Avx512,
    /// The same, and the matrix unit (AMX) with its byte products, on Linux.
    Amx,
}

impl Isa {
    /// The best set that the processor and the operating system offer; both are asked once. Where there is a matrix
    /// unit this process asks Linux for its registers with `arch_prctl`, and does without where that is refused.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
            {
                return if super::gemm::matrix_unit() { Self::Amx } else { Self::Avx512 };
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// The sets that run here, [`Isa::Portable`] first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx].into_iter().filter(|&isa| isa <= Self::best())
    }
}
