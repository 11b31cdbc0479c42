//! All three parties in one process, seeded: the stage on which every protocol is tested.
//!
//! Nothing here may be used in a deployment: seeds are injected.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod binomial;
pub mod ledger;
pub mod random;
pub mod record;
pub mod small;
pub mod soak;
pub mod uniform;
pub mod view;
pub mod world;

pub use ledger::DrawLog;
pub use random::Random;
pub use record::{Recorder, Tamper, Transcripts};
pub use uniform::{Finding, Place, Report, Samples};
pub use view::Seen;
pub use world::{Answer, Links, Shared, SharedRows, SharedStates, World};
