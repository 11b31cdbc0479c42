//! Trains a benchmark network on MNIST in the clear: `mnist NETWORK EPOCHS`, data under `TREFOIL_SHARED`.

use std::path::PathBuf;
use std::time::Instant;

use trefoil_data::{Resize, Split, load_dir_as};
use trefoil_nn::build::bench_net;
use trefoil_nn::train::clear::{fit, labelled};
use trefoil_nn::train::{Optimiser, Schedule, TrainSpec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "C".into());
    let epochs = args.next().map_or(Ok(5), |n| n.parse())?;
    let shared = std::env::var_os("TREFOIL_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let folder = shared.join("data/mnist");
    if !folder.exists() {
        println!("skipped: no MNIST under {}", folder.display());
        return Ok(());
    }
    let load = |split| load_dir_as(&folder, split, &[28, 28, 1], Resize::Fit);
    let (train, test) = (load(Split::Train)?, load(Split::Test)?);
    let mut records = Vec::new();
    for set in [&train, &test] {
        let labels: Vec<u8> = set.labels.iter().flatten().map(|l| *l as u8).collect();
        let pixels: Vec<f32> = set.data.iter().map(|v| v / 255.0).collect();
        records.extend(labelled(&pixels, &labels, 10)?);
    }
    let spec = TrainSpec {
        epochs,
        batch: 128,
        optimiser: Optimiser::Momentum { momentum: 0.9 },
        schedule: Schedule::constant(0.05),
        validation: test.len() as f64 / (train.len() + test.len()) as f64,
        ..TrainSpec::classifier()
    };
    let mut graph = bench_net(&name, 1)?;
    let began = Instant::now();
    for (i, e) in fit::<f32>(&mut graph, &records, &spec, |_| {})?.iter().enumerate() {
        println!("epoch {}: {:?}, test {:?}", i + 1, e.trained, e.validated);
    }
    println!("network {name}: {epochs} epochs in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}
