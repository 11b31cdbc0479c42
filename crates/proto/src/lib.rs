//! What the parties say to each other before and around the evaluation: identities, the cluster file, seed agreement.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod agreement;
pub mod cluster;
pub mod fingerprint;
pub mod identity;

pub use agreement::{Agreement, Hello, Offer, PairSeed, Seeds};
pub use cluster::{Cluster, Role, Transport};
pub use fingerprint::Fingerprint;
pub use identity::Identity;

/// Version of the protocol between the parties. Parties of different versions never agree on a seed.
pub const PROTOCOL_VERSION: u32 = 1;
