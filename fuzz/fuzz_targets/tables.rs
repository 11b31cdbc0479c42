//! IDX, NumPy and CSV files: whatever the bytes, samples or a refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trefoil_data::{csv, idx, npy};

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => drop(idx::images(bytes)),
        1 => drop(idx::labels(bytes)),
        2 => {
            if let Ok((shape, values)) = npy::read(bytes) {
                assert_eq!(shape.iter().product::<usize>(), values.len());
            }
        }
        3 => drop(npy::read_labels(bytes)),
        _ => drop(csv::read(bytes, &csv::Options::default())),
    }
});
