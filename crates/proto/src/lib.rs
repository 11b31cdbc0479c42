//! What the parties say to each other before and around the evaluation: identities, the cluster file, seed agreement.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod agreement;
pub mod cluster;
pub mod control;
pub mod dataset;
pub mod fingerprint;
pub mod identity;
pub mod run;
mod text;

pub use agreement::{Agreement, Hello, Offer, PairSeed, Seeds};
pub use cluster::{Cluster, Role, Transport};
pub use fingerprint::Fingerprint;
pub use identity::Identity;
pub use text::{is_plain, nearest, one_line};

pub use trefoil_mpc::program::PROTOCOL_VERSION;
