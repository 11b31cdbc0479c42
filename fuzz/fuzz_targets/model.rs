//! Keras files: whatever the bytes, a graph whose shapes can be told or a refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(graph) = trefoil_import::keras_h5::load_bytes(data) {
        let _ = graph.shapes();
    }
});
