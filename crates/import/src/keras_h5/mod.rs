//! Keras models: the HDF5 of `model.save("model.h5")` of Keras 2.2 to 3, the archive `model.keras`, or weights alone with
//! the architecture in JSON.
//!
//! `archive` unpacks a `.keras` file; `h5` reads the container through `meter`, `json` the settings of a layer, `model` the
//! list of layers and `wiring` how they are connected; `build` calls the layers in order, `layers` translates each, taking
//! its arrays from `weights`.

mod archive;
mod build;
mod h5;
mod json;
mod layers;
mod meter;
mod model;
mod weights;
mod wiring;
mod write;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use trefoil_nn::graph::Graph;

pub use layers::SUPPORTED;
pub use write::save_weights;

use crate::ImportError;
use archive::{Archive, is_archive};
use build::Imported;
use weights::Weights;

/// Largest model file read: 2 GiB.
const MAX_FILE_BYTES: u64 = 1 << 31;
/// Largest architecture read: 4 MiB of JSON, several times that of the deepest published networks.
const MAX_JSON_BYTES: u64 = 1 << 22;

/// A model to go on training.
#[derive(Debug, Clone)]
pub struct ToTrain {
    /// The network with its weights; batch normalisation and dropout are layers of their own.
    pub graph: Graph,
    /// Layers whose weights the file says are not trained.
    pub frozen: Vec<String>,
}

/// Loads a whole model: architecture and weights from one file.
pub fn load(path: impl AsRef<Path>) -> Result<Graph, ImportError> {
    Ok(whole(read(path.as_ref(), MAX_FILE_BYTES)?)?.graph)
}

/// Loads a whole model to train it on, and refuses one that does in training what Trefoil does not. Its loss, its
/// optimiser and its regularisation are not read.
pub fn load_to_train(path: impl AsRef<Path>) -> Result<ToTrain, ImportError> {
    let Imported { graph, frozen, only_predicts } = whole(read(path.as_ref(), MAX_FILE_BYTES)?)?;
    match only_predicts {
        Some(reason) => Err(reason),
        None => Ok(ToTrain { graph, frozen }),
    }
}

/// Loads a whole model from the bytes of its file.
pub fn load_bytes(bytes: &[u8]) -> Result<Graph, ImportError> {
    check_size("the model file in bytes", bytes.len() as u64, MAX_FILE_BYTES)?;
    Ok(whole(bytes.to_vec())?.graph)
}

/// Loads a model whose weights (`save_weights`, also the `.weights.h5` of Keras 3) and architecture (`to_json`) lie in
/// two files.
pub fn load_with_architecture(
    weights_path: impl AsRef<Path>,
    json_path: impl AsRef<Path>,
) -> Result<Graph, ImportError> {
    let json = read(json_path.as_ref(), MAX_JSON_BYTES)?;
    let weights = read(weights_path.as_ref(), MAX_FILE_BYTES)?;
    if is_archive(&weights) {
        let reason = "it is a .keras archive, which holds an architecture of its own: import it without another".into();
        return Err(ImportError::Model { model: "(weights)".into(), reason });
    }
    let h5 = h5::H5::open(weights)?;
    let version = h5.text("", "keras_version")?;
    Ok(build::model(serde_json::from_slice(&json)?, version, Weights::new(h5, true)?)?.graph)
}

fn whole(bytes: Vec<u8>) -> Result<Imported, ImportError> {
    if is_archive(&bytes) {
        return archived(&bytes);
    }
    let h5 = h5::H5::open(bytes)?;
    let json = h5.text("", "model_config")?.ok_or(ImportError::NoArchitecture)?;
    check_size("the architecture in bytes", json.len() as u64, MAX_JSON_BYTES)?;
    let version = h5.text("", "keras_version")?;
    build::model(serde_json::from_str(&json)?, version, Weights::new(h5, false)?)
}

fn archived(bytes: &[u8]) -> Result<Imported, ImportError> {
    let Archive { config, version, weights } = Archive::read(bytes, MAX_JSON_BYTES, MAX_FILE_BYTES)?;
    build::model(serde_json::from_slice(&config)?, version, Weights::new(h5::H5::open(weights)?, false)?)
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ImportError> {
    let fail = |source| ImportError::Io { path: path.into(), source };
    let file = File::open(path).map_err(fail)?;
    check_size(&format!("{} in bytes", path.display()), file.metadata().map_err(fail)?.len(), limit)?;
    let mut bytes = Vec::new();
    // The file may grow, or be a device of unknown size.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    check_size(&format!("{} in bytes", path.display()), bytes.len() as u64, limit)?;
    Ok(bytes)
}

fn check_size(what: &str, size: u64, limit: u64) -> Result<(), ImportError> {
    if size > limit { Err(ImportError::TooLarge { what: what.into(), size, limit }) } else { Ok(()) }
}
