//! Model files to [`trefoil_nn::graph::Graph`].
//!
//! Files are read as data: no code in them is run or decoded, and what Trefoil cannot run on shares is refused
//! with the name of the layer. Every count and size that a file declares is checked before memory is set aside for it.
//!
//! ```no_run
//! let graph = trefoil_import::keras_h5::load("model.keras")?; // or model.h5
//! println!("{} layers, output {:?}", graph.nodes.len(), graph.shapes()?.last());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
pub mod keras_h5;

pub use error::ImportError;
