//! The user's side of the servers: data owners, model owners and prediction clients.
//!
//! A [`Client`] holds one connection to alice and one to bob. It encodes values in the clear into fixed point, splits
//! them into shares (a fresh seed to alice, the rest to bob), and puts the two halves of an answer together. Carol is
//! never called: she meets no client.
//!
//! ```no_run
//! use trefoil_client::{Client, ClientConfig, Reveal};
//! use trefoil_proto::{Cluster, Identity};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::load("cluster.toml".as_ref())?;
//! let identity = Identity::load("keys".as_ref(), "ward-3")?;
//! let mut client = Client::connect(ClientConfig::new(cluster, Some(identity), "ward-3"))?;
//! let model = client.model("mnist")?;
//! let pixels = vec![0.0; 784];
//! let answer = client.predict(&model, Reveal::Label, &pixels, 1)?;
//! println!("{:?}", answer.labels);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod client;
mod encoding;
mod error;
mod evaluator;
mod listing;
mod manifest;
mod request;
mod run;
mod sets;
mod share;
pub mod training;

pub use client::{Client, ClientConfig, Prediction};
pub use encoding::{EncodeError, encode_samples};
pub use error::ClientError;
pub use listing::{Listing, Torn};
pub use manifest::manifest;
pub use run::{Opened, RunStatus, RunUseError};
pub use sets::{Contribution, SetError, check_declaration};
pub use training::{Reveals, Training, TrainingError};
pub use trefoil_mpc::program::Reveal;
pub use trefoil_proto::control::{Grant, InputEncoding, Manifest, ModelInfo, Refusal, RunReport};
pub use trefoil_proto::dataset::{Block, Content, Declaration, METRIC_ROWS, Part, SetInfo};
pub use trefoil_proto::run::{
    Check, Disclosure, Extracted, Extraction, Measured, Order, Phase, Position, Publication, Revealed, RowRange,
    RunSpec, Stage, Traffic, When,
};
