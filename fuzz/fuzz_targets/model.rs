//! Keras files: whatever the bytes, a graph whose shapes can be told or a refusal.
//!
//! An archive's checksums hide what is in it: an input that begins with an A is the parts of one that is made here.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// The architecture, behind its length in two bytes, and the weights as an archive.
fn archive(parts: &[u8]) -> Option<Vec<u8>> {
    let (len, rest) = parts.split_first_chunk()?;
    let (config, weights) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [("config.json", config), ("model.weights.h5", weights)] {
        zip.start_file(name, options).ok()?;
        zip.write_all(bytes).ok()?;
    }
    Some(zip.finish().ok()?.into_inner())
}

fuzz_target!(|data: &[u8]| {
    let made = data.strip_prefix(b"A").and_then(archive);
    if let Ok(graph) = trefoil_import::keras_h5::load_bytes(made.as_deref().unwrap_or(data)) {
        let _ = graph.shapes();
    }
});
