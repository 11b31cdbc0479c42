//! Frames: a 12-byte header (magic, tag, payload length; little-endian) and the payload.

use crate::Tag;

/// Bytes of a frame's header.
pub const HEADER: usize = 12;
/// Largest payload of one frame: 1 GiB.
pub const MAX_PAYLOAD: usize = 1 << 30;
const MAGIC: u32 = 0x3146_5254; // "TRF1"

/// Why bytes are not a frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first four bytes are not the magic number.
    #[error("a frame starts with {0:#010x}: not this protocol")]
    Magic(u32),
    /// The length is beyond the limit.
    #[error("a frame of {0} bytes: at most {MAX_PAYLOAD} are allowed")]
    TooLarge(usize),
}

/// The header of a frame with `len` bytes of payload. `len` must not exceed [`MAX_PAYLOAD`].
pub fn encode(tag: Tag, len: usize) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    h[..4].copy_from_slice(&MAGIC.to_le_bytes());
    h[4..8].copy_from_slice(&tag.to_le_bytes());
    h[8..].copy_from_slice(&(len as u32).to_le_bytes());
    h
}

/// Tag and payload length of a header.
pub fn decode(header: &[u8; HEADER]) -> Result<(Tag, usize), FrameError> {
    let word = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    if word(0) != MAGIC {
        return Err(FrameError::Magic(word(0)));
    }
    let len = word(8) as usize;
    if len > MAX_PAYLOAD { Err(FrameError::TooLarge(len)) } else { Ok((word(4), len)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip_and_refusals() {
        assert_eq!(decode(&encode(7, 1000)), Ok((7, 1000)));
        assert!(matches!(decode(&[0; HEADER]), Err(FrameError::Magic(0))));
        let mut h = encode(1, 0);
        h[8..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(&h), Err(FrameError::TooLarge(_))));
    }
}
