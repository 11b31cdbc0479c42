//! The three servers.

use std::fmt;
use std::str::FromStr;

/// One of the three servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// Evaluator A; admits requests.
    Alice,
    /// Evaluator B; receives what the producer deals.
    Bob,
    /// Producer C: deals masks, sees no input.
    Carol,
}

impl Party {
    /// All three.
    pub const ALL: [Party; 3] = [Party::Alice, Party::Bob, Party::Carol];

    /// The party's name: "alice", "bob" or "carol".
    pub fn name(self) -> &'static str {
        match self {
            Party::Alice => "alice",
            Party::Bob => "bob",
            Party::Carol => "carol",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of the three servers'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no party: alice, bob or carol")]
pub struct UnknownParty(pub String);

impl FromStr for Party {
    type Err = UnknownParty;

    fn from_str(s: &str) -> Result<Self, UnknownParty> {
        Party::ALL.into_iter().find(|p| p.name() == s).ok_or_else(|| UnknownParty(s.into()))
    }
}
