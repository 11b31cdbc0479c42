//! Damaged files give an error or a sound graph: never a panic, and never a long wait.
//!
//! `TREFOIL_ROUNDS` sets how many damaged copies are made of each file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::archives::{archive, entries};
use crate::files::{data, shared};
use serde_json::Value;
use trefoil_import::keras_h5;

/// SplitMix64: the same damage in every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Places in a file that hold something: damage to runs of zeros is mostly damage to nothing.
fn written(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|&i| bytes[i] != 0).collect()
}

fn damage(bytes: &mut Vec<u8>, places: &[usize], random: &mut Seeded) {
    for _ in 0..=random.below(4) {
        let at = if random.below(4) == 0 { random.below(bytes.len()) } else { places[random.below(places.len())] };
        let at = at.min(bytes.len() - 1);
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => bytes.truncate(at.max(1)),
            4 | 5 => {
                // A number of 2, 4 or 8 bytes: large, small, or an address in the file.
                let value = match random.below(4) {
                    0 => u64::MAX >> random.below(64),
                    1 => 1 << random.below(64),
                    2 => random.below(bytes.len()) as u64 & !7,
                    _ => random.below(64) as u64,
                };
                let (at, n) = (at & !1, [2, 4, 8][random.below(3)]);
                let end = (at + n).min(bytes.len());
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            6 => {
                let (from, n) = (random.below(bytes.len()), 1 + random.below(64));
                let n = n.min(bytes.len() - from).min(bytes.len() - at);
                bytes.copy_within(from..from + n, at);
            }
            _ => {
                let other = (at + 1 + random.below(16)).min(bytes.len() - 1);
                bytes.swap(at, other);
            }
        }
    }
}

fn torment(name: &str, original: &[u8], rounds: u64) {
    assert!(keras_h5::load_bytes(original).is_ok(), "{name}");
    let places = written(original);
    let mut refused = 0;
    for round in 0..rounds {
        let mut bytes = original.to_vec();
        damage(&mut bytes, &places, &mut Seeded(round));
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| keras_h5::load_bytes(&bytes)));
        let took = start.elapsed();
        match outcome {
            Ok(Ok(graph)) => assert!(graph.shapes().is_ok(), "{name}, round {round}"),
            Ok(Err(error)) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            Err(_) => panic!("{name}: panic in round {round}"),
        }
        assert!(took < Duration::from_secs(10), "{name}: round {round} took {took:?}");
    }
    println!("{name}: {refused} of {rounds} damaged files refused");
    assert!(refused > rounds / 20, "{name}: only {refused} of {rounds} refused");
}

/// Damage behind the archive's checksums: in its entries.
#[test]
fn damaged_parts_of_archives() {
    let name = "keras3_archive_nested.keras";
    let parts = entries(&std::fs::read(data(name)).unwrap());
    for damaged in 0..parts.len() {
        let places = written(&parts[damaged].1);
        let mut refused = 0;
        for round in 0..rounds(250) {
            let mut parts = parts.clone();
            damage(&mut parts[damaged].1, &places, &mut Seeded(round));
            match keras_h5::load_bytes(&archive(&parts)) {
                Ok(graph) => assert!(graph.shapes().is_ok(), "{name}, round {round}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "{}", parts[damaged].0);
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("TREFOIL_ROUNDS").ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn damaged_files_of_every_kind() {
    let mut files: Vec<_> = std::fs::read_dir(data("")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "h5" || e == "keras") && keras_h5::load(p).is_ok());
    files.sort();
    assert!(files.len() > 14);
    for path in files {
        torment(&path.display().to_string(), &std::fs::read(&path).unwrap(), rounds(250));
    }
}

#[test]
fn damaged_published_model() {
    let Some(path) = shared("data/models/short-conv-mnist.h5") else { return };
    torment("short-conv-mnist.h5", &std::fs::read(path).unwrap(), rounds(250));
}

/// Changes one value somewhere in the architecture; `depth` steps down at most.
fn mutate(value: &mut Value, random: &mut Seeded, depth: usize) {
    let odd = [0, 1, 2, 3, 5, 127, 65_536, i32::MAX as i64, u32::MAX as i64, i64::MAX, -1, -2, i64::MIN];
    let stop = depth == 0 || random.below(8) == 0;
    match value {
        Value::Object(o) if !o.is_empty() && !stop => {
            let nth = random.below(o.len());
            let key = o.keys().nth(nth).unwrap().clone();
            if random.below(12) == 0 {
                o.remove(&key);
            } else {
                mutate(&mut o[&key], random, depth - 1);
            }
        }
        Value::Array(a) if !a.is_empty() && !stop => {
            let (i, j) = (random.below(a.len()), random.below(a.len()));
            match random.below(12) {
                0 => drop(a.remove(i)),
                1 => a.swap(i, j),
                2 => a.push(a[i].clone()),
                _ => mutate(&mut a[i], random, depth - 1),
            }
        }
        other => {
            *other = match random.below(8) {
                0 => Value::Null,
                1 => true.into(),
                2 => "same".into(),
                3 => Value::Array(vec![other.clone(), other.clone()]),
                4 => 1e300.into(),
                _ => odd[random.below(odd.len())].into(),
            }
        }
    }
}

#[test]
fn mutated_architectures() {
    let folder = tempfile::tempdir().unwrap();
    let changed = folder.path().join("changed.json");
    for (name, kind) in ["sequential", "functional", "nested"].iter().flat_map(|k| [(2, k), (3, k)]) {
        let weights = data(&format!("keras{name}_{kind}.h5"));
        let attrs = hdf5_pure::File::open(&weights).unwrap().root().attrs().unwrap();
        let original: Value = serde_json::from_str(attrs["model_config"].as_str().unwrap()).unwrap();
        let (mut random, mut refused) = (Seeded(7), 0);
        let rounds = rounds(500);
        for round in 0..rounds {
            let mut config = original.clone();
            for _ in 0..=random.below(3) {
                mutate(&mut config, &mut random, 12);
            }
            std::fs::write(&changed, config.to_string()).unwrap();
            let start = Instant::now();
            match keras_h5::load_with_architecture(&weights, &changed) {
                Ok(graph) => assert!(graph.shapes().is_ok(), "{kind} {name}, round {round}"),
                Err(_) => refused += 1,
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{kind} {name}, round {round}");
        }
        assert!(refused > rounds / 20, "{kind} {name}: only {refused} of {rounds} refused");
    }
}

#[test]
fn every_truncation() {
    let bytes = std::fs::read(data("keras22.h5")).unwrap();
    for n in (0..bytes.len()).step_by(7) {
        assert!(keras_h5::load_bytes(&bytes[..n]).is_err(), "{n} bytes");
    }
}

#[test]
fn no_hdf5_at_all() {
    for bytes in [&b""[..], b"\x89HDF\r\n\x1a\n", b"{}", &[0; 4096], &[0xff; 4096]] {
        assert!(keras_h5::load_bytes(bytes).is_err());
    }
    assert!(keras_h5::load(data("absent.h5")).is_err());
    assert!(keras_h5::load(data("")).is_err());
}
