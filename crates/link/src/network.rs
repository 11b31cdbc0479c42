//! What a network between two hosts does to messages: how long they travel and how fast they leave.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// A way between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Network {
    /// Round-trip time in seconds.
    pub round_trip_s: f64,
    /// Bits in a second, each way.
    pub bits_per_s: f64,
}

/// A text that describes no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no link: there are loopback, lan, wan, and a round trip (us, ms, s; at most 60s) with a bandwidth (kbit, mbit, \
     gbit), such as 40ms,352mbit"
)]
pub struct NetworkError(String);

impl Network {
    /// Processes of one host: 20 microseconds, 20 Gb/s.
    pub const LOOPBACK: Self = Self { round_trip_s: 2e-5, bits_per_s: 20e9 };
    /// A local network: 0.1 ms, 10 Gb/s.
    pub const LAN: Self = Self { round_trip_s: 1e-4, bits_per_s: 10e9 };
    /// A wide one: 40 ms, 352 Mb/s.
    pub const WAN: Self = Self { round_trip_s: 0.04, bits_per_s: 352e6 };
    /// The longest round trip that a text may ask for, in seconds.
    const SLOWEST_S: f64 = 60.0;
    /// The smallest bandwidth that a text may ask for.
    const NARROWEST: f64 = 1e3;

    /// Time from one host to the other.
    pub fn one_way(&self) -> Duration {
        Duration::from_secs_f64(self.round_trip_s / 2.0)
    }

    /// Time that so many bytes take to leave.
    pub fn serialisation(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.bits_per_s)
    }

    fn read(text: &str) -> Option<Self> {
        match text {
            "loopback" => return Some(Self::LOOPBACK),
            "lan" => return Some(Self::LAN),
            "wan" => return Some(Self::WAN),
            _ => {}
        }
        let (trip, bits) = text.split_once(',')?;
        let round_trip_s = with_unit(trip, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])?;
        let bits_per_s = with_unit(bits, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)])?;
        let sensible = round_trip_s <= Self::SLOWEST_S && bits_per_s >= Self::NARROWEST;
        sensible.then_some(Self { round_trip_s, bits_per_s })
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        Self::read(text).ok_or_else(|| NetworkError(text.into()))
    }
}

/// As it is read again.
impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}us,{}kbit", self.round_trip_s * 1e6, self.bits_per_s / 1e3)
    }
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let (digits, factor) = units.iter().find_map(|(u, f)| Some((text.strip_suffix(u)?, f)))?;
    let value: f64 = digits.trim().parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_units() {
        assert_eq!("lan".parse(), Ok(Network::LAN));
        assert_eq!("40ms,352mbit".parse(), Ok(Network::WAN));
        assert_eq!("100us,10gbit".parse::<Network>().unwrap().bits_per_s, 10e9);
        let bad = ["", "dsl", "40,352", "40ms", "40ms,0mbit", "-1ms,1mbit", "nanms,1mbit", "1ms,1mb", "61s,1mbit"];
        for bad in bad {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_link_is_told_the_forms() {
        let said = "fast".parse::<Network>().unwrap_err().to_string();
        assert!(said.starts_with("\"fast\" is no link: there are loopback, lan, wan, and a round trip"), "{said}");
        assert!(said.ends_with("such as 40ms,352mbit"), "{said}");
    }

    #[test]
    fn what_is_printed_is_read_again() {
        for text in ["lan", "wan", "7ms,1gbit", "1s,64kbit"] {
            let network: Network = text.parse().unwrap();
            let again: Network = network.to_string().parse().unwrap();
            assert!((again.round_trip_s - network.round_trip_s).abs() < 1e-12, "{network}");
            assert_eq!(again.bits_per_s, network.bits_per_s, "{network}");
        }
    }

    #[test]
    fn times_follow_from_the_two_numbers() {
        assert_eq!(Network::WAN.one_way(), Duration::from_millis(20));
        assert_eq!(Network::WAN.serialisation(44_000_000), Duration::from_secs(1));
    }
}
