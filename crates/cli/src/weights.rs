//! Trained weights as files that only their owner may read: one for Keras, or a folder of arrays.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use trefoil_client::Opened;
use trefoil_data::write_npy;
use trefoil_import::keras_h5::save_weights;
use trefoil_nn::graph::Graph;
use trefoil_nn::layers::named;

use crate::places;

/// Whether weights go to a file for Keras there, and not into a folder.
pub(crate) fn is_hdf5(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("h5") || e.eq_ignore_ascii_case("hdf5"))
}

/// Refuses a name under which Keras 3 reads files of another layout.
pub(crate) fn check_name(path: &Path) -> anyhow::Result<()> {
    match path.to_str() {
        Some(name) if name.ends_with(".weights.h5") => {
            bail!("--weights {name}: Keras reads names that end in .weights.h5 otherwise; take NAME.h5")
        }
        _ => Ok(()),
    }
}

/// Refuses a file that cannot be written, or that is one of `reads`; makes the folder.
pub(crate) fn check_place(path: &Path, reads: &[PathBuf]) -> anyhow::Result<()> {
    if is_hdf5(path) {
        return places::check("--weights", path, reads);
    }
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Writes a network: a file for Keras, or each tensor as LAYER-TENSOR.npy.
pub(crate) fn write(path: &Path, graph: &Graph) -> anyhow::Result<()> {
    if is_hdf5(path) {
        make_private(path).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(save_weights(graph, path)?);
    }
    named(graph).try_for_each(|(name, array)| write_tensor(path, &name, &array.shape, &array.data))
}

/// Writes tensors as they were revealed into a folder, each as LAYER-TENSOR.npy.
pub(crate) fn write_revealed(folder: &Path, weights: &[(String, Opened)]) -> anyhow::Result<()> {
    weights.iter().try_for_each(|(name, opened)| {
        let values: Vec<f32> = opened.values().iter().map(|v| *v as f32).collect();
        write_tensor(folder, name, &opened.shape, &values)
    })
}

fn write_tensor(folder: &Path, name: &str, shape: &[usize], values: &[f32]) -> anyhow::Result<()> {
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-");
    Ok(write_npy(&folder.join(format!("{name}.npy")), shape, values)?)
}

/// Makes a file that nobody else may read, or takes others' rights to the one that is there.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}
