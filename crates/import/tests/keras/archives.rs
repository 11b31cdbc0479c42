//! `.keras` archives: what Keras computes, and what is refused.

use std::io::{Cursor, Read, Write};

use serde_json::json;
use trefoil_import::{ImportError, keras_h5};
use trefoil_nn::graph::{Layer, Post};
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, ZipArchive};

use crate::files::data;
use crate::golden::close;
use crate::written::{Weight, file, input, layer};

/// A file of an archive: name and bytes.
pub(crate) type Part = (String, Vec<u8>);

/// The files of an archive.
pub(crate) fn entries(bytes: &[u8]) -> Vec<Part> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let part = |i| {
        let mut file = zip.by_index(i).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        (file.name().unwrap().to_string(), bytes)
    };
    (0..ZipArchive::new(Cursor::new(bytes)).unwrap().len()).map(part).collect()
}

/// An archive of these files.
pub(crate) fn archive(parts: &[Part]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in parts {
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn parts() -> Vec<Part> {
    entries(&std::fs::read(data("keras3_archive.keras")).unwrap())
}

fn part<'a>(parts: &'a mut [Part], name: &str) -> &'a mut Vec<u8> {
    &mut parts.iter_mut().find(|p| p.0 == name).unwrap().1
}

fn refused(parts: &[Part]) -> String {
    keras_h5::load_bytes(&archive(parts)).unwrap_err().to_string()
}

#[test]
fn what_keras_computes() {
    for name in ["keras3_archive", "keras3_archive_nested", "keras2_archive_nested", "keras2_12_nested"] {
        close(name, &keras_h5::load(data(&format!("{name}.keras"))).unwrap());
    }
    let graph = keras_h5::load(data("keras3_archive_image.keras")).unwrap();
    close("keras3_archive_image", &graph);
    assert_eq!(graph.post, Post::Softmax);
    assert!(keras_h5::load_to_train(data("keras3_archive_image.keras")).unwrap().frozen.is_empty());
}

/// Every activation; that of Keras 2 has another slope.
#[test]
fn what_keras_activates() {
    for (name, slope) in [("keras3_archive_functions.keras", 1.0 / 6.0), ("keras2_functions.h5", 0.2)] {
        let graph = keras_h5::load(data(name)).unwrap();
        close(name.split('.').next().unwrap(), &graph);
        let holds = |layer: Layer| assert!(graph.nodes.iter().any(|n| n.layer == layer), "{layer:?}");
        holds(Layer::HardSigmoid { slope });
        let elus = [Layer::Elu { alpha: 1.0 }, Layer::Elu { alpha: 0.5 }];
        elus.into_iter().chain([Layer::Softplus, Layer::Silu, Layer::Gelu]).for_each(holds);
    }
}

#[test]
fn parts_that_are_missing_or_wrong() {
    for (name, said) in [("config.json", "model.save"), ("model.weights.h5", "it holds metadata.json, config.json")] {
        let mut all = parts();
        all.retain(|p| p.0 != name);
        let text = refused(&all);
        assert!(text.starts_with(&format!("the archive's {name} is not there")) && text.contains(said), "{text}");
    }
    let mut alone = parts();
    alone.retain(|p| p.0 != "metadata.json");
    assert!(keras_h5::load_bytes(&archive(&alone)).is_ok(), "no metadata: an ordinary model all the same");
    for (name, said) in [
        ("config.json", "the architecture is not valid JSON"),
        ("metadata.json", "the archive's metadata.json is not valid JSON"),
        ("model.weights.h5", "the HDF5 file cannot be read at its start"),
    ] {
        let mut all = parts();
        part(&mut all, name).truncate(30);
        let text = refused(&all);
        assert!(text.starts_with(said), "{text}");
    }
    // Names are taken to the letter.
    let mut moved = parts();
    moved.iter_mut().for_each(|p| p.0 = format!("../{}", p.0));
    assert!(refused(&moved).contains("config.json is not there (it holds ../metadata.json"));
    let text = keras_h5::load_bytes(b"PK\x03\x04 and no archive").unwrap_err().to_string();
    assert!(text.starts_with("the archive's list of files cannot be read"), "{text}");
}

#[test]
fn a_flipped_bit_is_seen() {
    let stored = std::fs::read(data("keras3_archive.keras")).unwrap();
    let weight = stored.len() / 2;
    let mut bytes = stored.clone();
    bytes[weight] ^= 1;
    let text = keras_h5::load_bytes(&bytes).unwrap_err().to_string();
    assert!(text.contains("model.weights.h5 cannot be read") && text.contains("again"), "{text}");
}

#[test]
fn bombs_end_at_their_limit() {
    for (name, size, said) in [
        ("config.json", 64 << 20, "config.json of the archive in bytes: 67108864 is more than the 4194304"),
        ("metadata.json", 64 << 20, "metadata.json of the archive in bytes: 67108864 is more than the 4194304"),
        ("model.weights.h5", 96 << 20, "model.weights.h5 of the archive in bytes: 100663296 is more than the "),
    ] {
        let mut all = parts();
        *part(&mut all, name) = vec![0; size];
        let bytes = archive(&all);
        assert!(bytes.len() < 1 << 18);
        let Err(ImportError::TooLarge { limit, .. }) = keras_h5::load_bytes(&bytes) else { panic!("{name}") };
        assert!(limit < size as u64);
        assert!(refused(&all).starts_with(said), "{}", refused(&all));
        // The same with a size that is told too small.
        let told = (size as u32).to_le_bytes();
        let mut lying = bytes.clone();
        let at: Vec<usize> = (0..lying.len() - 4).filter(|&i| lying[i..i + 4] == told).collect();
        assert!(!at.is_empty());
        at.iter().for_each(|&i| lying[i..i + 4].copy_from_slice(&100u32.to_le_bytes()));
        assert!(keras_h5::load_bytes(&lying).is_err());
    }
}

#[test]
fn weights_of_another_layer_are_refused() {
    let mut all = parts();
    let config = part(&mut all, "config.json");
    let text = String::from_utf8(config.clone()).unwrap();
    let renamed = text.replace("\"name\": \"dense_1\"", "\"name\": \"other\"");
    assert_ne!(text, renamed);
    *config = renamed.into_bytes();
    let text = refused(&all);
    assert!(
        text.contains("layer other, weight kernel: layers/dense_1/vars holds the weights of a layer called"),
        "{text}"
    );
}

#[test]
fn an_archive_brings_its_own_architecture() {
    let json = data("keras3_weights.architecture.json");
    let text = keras_h5::load_with_architecture(data("keras3_archive.keras"), json).unwrap_err().to_string();
    assert!(text.contains("an architecture of its own"), "{text}");
}

/// The slope of a hard sigmoid is that of the version which wrote the file, or the forms of its JSON.
#[test]
fn hard_sigmoids_of_either_version() {
    let weights: [Weight<'_>; 0] = [];
    let hard = layer("Activation", "h", json!({"activation": "hard_sigmoid"}));
    let layers = json!([input("i", &[2]), hard]);
    for (extra, slope) in [
        (json!({}), 0.2),
        (json!({"keras_version": "2.15.0"}), 0.2),
        (json!({"keras_version": "2.15.0", "module": "keras"}), 0.2),
        (json!({"module": "keras"}), 1.0 / 6.0),
        (json!({"keras_version": "3.3.3"}), 1.0 / 6.0),
    ] {
        let mut config = json!({"class_name": "Sequential", "config": {"name": "m", "layers": layers}});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let graph = keras_h5::load_bytes(&file(&config.to_string(), &weights)).unwrap();
        assert_eq!(graph.nodes[1].layer, Layer::HardSigmoid { slope }, "{extra}");
    }
}
