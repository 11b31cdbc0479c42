//! Packed bits: one machine word holds one bit of 64 elements (a *bit plane*), and values of a few bits side by side.

mod expand;
mod pack;
mod planes;
#[cfg(target_arch = "x86_64")]
pub(super) mod vbmi;

pub use expand::{expand_bits, mask_bits};
pub use pack::{pack, packed_bytes, unpack};
pub use planes::{plane_words, to_planes, transpose64};

#[cfg(test)]
mod tests {
    pub(super) fn values(n: usize) -> Vec<u64> {
        (0..n as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i << 17)).collect()
    }
}
