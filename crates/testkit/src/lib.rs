//! All three parties in one process, seeded: the stage on which every protocol is tested.
//!
//! Nothing here may be used in a deployment: seeds are injected.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod ledger;
pub mod random;
pub mod world;

pub use ledger::DrawLog;
pub use random::Random;
pub use world::{Answer, World};
