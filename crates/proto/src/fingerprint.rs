//! Fingerprints: the SHA-256 of a certificate's DER, by which peers are pinned (`openssl x509 -fingerprint -sha256`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fingerprint(pub [u8; 32]);

/// Text that is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no certificate fingerprint: 64 hexadecimal digits (colons are allowed)")]
pub struct BadFingerprint(pub String);

impl Fingerprint {
    /// No certificate: parties on a trial cluster of plain TCP on loopback.
    pub const NONE: Fingerprint = Fingerprint([0; 32]);

    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The first eight digits, for messages.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(s: &str) -> Result<Self, BadFingerprint> {
        let bad = || BadFingerprint(s.chars().take(100).collect());
        let mut bytes = [0; 32];
        let mut digits = s.chars().filter(|c| *c != ':').map(|c| c.to_digit(16));
        for b in &mut bytes {
            let (Some(Some(hi)), Some(Some(lo))) = (digits.next(), digits.next()) else { return Err(bad()) };
            *b = (hi * 16 + lo) as u8;
        }
        if digits.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_with_and_without_colons() {
        let f = Fingerprint::of(b"abc");
        let text = f.to_string();
        assert!(text.starts_with("ba7816bf")); // FIPS 180-2, SHA-256 of "abc"
        assert_eq!(text.parse(), Ok(f));
        let colons: Vec<&str> = (0..32).map(|i| &text[2 * i..2 * i + 2]).collect();
        assert_eq!(colons.join(":").to_uppercase().parse(), Ok(f));
        for bad in ["", "ba", &text[1..], &format!("{text}0"), &text.replace('b', "x"), &text.replace('b', "é")] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
