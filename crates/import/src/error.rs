//! What can be wrong with a model file.

use std::path::PathBuf;

use thiserror::Error;
use trefoil_nn::graph::GraphError;

/// A model file that cannot be imported, naming the part at fault.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A size beyond what an importer accepts.
    #[error("{what}: {size} is more than the {limit} that are accepted")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        size: u64,
        /// The largest accepted.
        limit: u64,
    },
    /// The file is no HDF5 file, or is damaged.
    #[error("the HDF5 file cannot be read at {object}: {source}")]
    Hdf5 {
        /// Path of the object inside the file.
        object: String,
        /// What the HDF5 reader says.
        source: Box<hdf5_pure::Error>,
    },
    /// A part of a `.keras` archive that is missing or damaged.
    #[error("the archive's {part} {reason}")]
    Archive {
        /// Which file of the archive.
        part: &'static str,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The file holds weights but no architecture.
    #[error(
        "the file holds no model_config: it has weights only; pass the architecture as well, as JSON from model.to_json()"
    )]
    NoArchitecture,
    /// The architecture is not JSON.
    #[error("the architecture is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The architecture as a whole makes no sense or has a form that cannot be run.
    #[error("model {model}: {reason}")]
    Model {
        /// Name of the model, or of the nested model.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// A kind of layer that cannot be run.
    #[error("layer {layer} is of type {class}, which cannot be run on shares; the types that can: {}", supported.join(", "))]
    UnsupportedLayer {
        /// Name of the layer.
        layer: String,
        /// Its type.
        class: String,
        /// The types that can be run.
        supported: &'static [&'static str],
    },
    /// A known layer with a setting that is wrong or cannot be run.
    #[error("layer {layer} ({class}): {reason}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// Its type.
        class: String,
        /// What is wrong.
        reason: String,
    },
    /// A weight that is missing, has the wrong shape, or holds values that are no numbers.
    #[error("layer {layer}, weight {tensor}: {reason}")]
    Weight {
        /// Name of the layer.
        layer: String,
        /// Name of the weight.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// The layers do not fit each other.
    #[error(transparent)]
    Graph(#[from] GraphError),
}
