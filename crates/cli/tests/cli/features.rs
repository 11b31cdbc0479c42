//! Features of frozen layers: made by the servers once, in every step, or by the owners.

use serde_json::Value;

use crate::common::{Servers, fails, run, write_npy};

const FROZEN: &str = "name = \"frozen\"\n\
    [model]\ninput = [28, 28, 1]\n\
    layers = [{ conv = 2, kernel = 5, stride = 4, activation = \"sigmoid\", name = \"conv\" }, { average_pool = 2 }, \
    \"flatten\", { dense = 10, name = \"out\" }]\nfrozen = [\"conv\"]\nfeatures = \"servers\"\n\
    [loss]\nname = \"cross-entropy\"\n\
    [optimizer]\nname = \"sgd\"\nrate = 0.5\n\
    [train]\nepochs = 2\nbatch = 16\nvalidation = 0.2\n\
    [reveal]\nmetrics = \"coordinator\"\n\
    [data]\nset = \"digits\"\nrows = 60\n";

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn whoever_makes_the_features_the_run_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, FROZEN.replace("\"servers\"", "\"owner\"")).unwrap();
    fails(&["train", path, "--dry-run"], "[model] features: \"owner\" is not known; \"owners\" is the nearest");
    std::fs::write(&file, FROZEN.replace("\"servers\"", "\"owners\"").replace("frozen = [\"conv\"]\n", "")).unwrap();
    fails(&["train", path, "--dry-run"], "no layer with weights is frozen before the first that is trained");
    std::fs::write(&file, FROZEN).unwrap();
    let clear = lines(&run(&["train", path, "--clear", "--json"]));
    let mut rounds = Vec::new();
    for who in ["servers", "owners", "steps"] {
        std::fs::write(&file, FROZEN.replace("\"servers\"", &format!("{who:?}"))).unwrap();
        let explained = &lines(&run(&["train", path, "--dry-run", "--network", "loopback", "--json"]))[0];
        let events = lines(&run(&["train", path, "--trial", "--link", "tcp", "--json"]));
        let report = events.last().unwrap();
        rounds.push(report["rounds"].as_u64().unwrap());
        assert_eq!(explained["features"].is_string(), who != "steps", "{explained}");
        if who == "servers" {
            assert_eq!(
                (report["extraction"]["rows"].as_u64(), explained["extraction"]["features"].as_u64()),
                (Some(60), Some(28))
            );
        }
        for key in ["rounds", "bytes_online", "bytes_offline"] {
            assert_eq!(report["extraction"][key], explained["extraction"][key], "{key}");
        }
        for (c, p) in clear.iter().zip(&events).take(2) {
            for key in ["loss", "validation_loss"] {
                let (c, p) = (c[key].as_f64().unwrap(), p[key].as_f64().unwrap());
                assert!((c - p).abs() < 0.01, "{who}, {key}: {c} in the clear, {p} on shares");
            }
        }
    }
    assert!(rounds[0] == rounds[1] && rounds[0] < rounds[2], "{rounds:?}");
}

#[test]
fn owners_share_what_public_layers_make_of_their_rows() {
    let s = Servers::start(false);
    let at = |n: &str| s.path(n).display().to_string();
    let set = "name = \"scans\"\nrows = 3\n\
        [[column]]\nname = \"features\"\nwidth = 128\nrange = \"0..64\"\n\
        [[column]]\nname = \"label\"\nclasses = 3\n\
        [[part]]\nowner = \"client\"\ncolumn = \"features\"\n\
        [[part]]\nowner = \"guest\"\ncolumn = \"label\"\n";
    std::fs::write(s.path("scans.toml"), set).unwrap();
    write_npy(&s.path("scans.npy"), &[3, 28, 28], &[100.0; 3 * 784]);
    write_npy(&s.path("small.npy"), &[3, 128], &[1.0; 3 * 128]);
    s.settled("owner", &["data", "declare", &at("scans.toml")]);
    let through = |part: &'static str, file: &str, model: &str, layer: &str| {
        let words = ["data", "contribute", "scans", "--part", part, "--input", &at(file), "--through", model];
        let words = words.into_iter().chain(if layer.is_empty() { vec![] } else { vec!["--layer", layer] });
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let refused = |who: &str, args: Vec<String>, said: &str| {
        s.fails(who, &args.iter().map(String::as_str).collect::<Vec<_>>(), said);
    };
    refused("client", through("0", "scans.npy", "net:A", "conv"), "there is no layer \"conv\": flatten, dense");
    let narrow = "net:A gives 10 numbers a row behind layer dense-3: column features of scans takes 128";
    refused("client", through("0", "scans.npy", "net:A", ""), narrow);
    refused("client", through("0", "small.npy", "net:A", "dense"), "[28, 28, 1] is wanted");
    refused("client", through("0", "scans.npy", "none.h5", ""), "none.h5");
    refused("guest", through("1", "scans.npy", "net:A", "dense"), "column label of scans holds labels, not features");
    let mut wild = through("0", "scans.npy", "net:A", "dense");
    wild.extend(["--scale", "1000"].map(str::to_owned));
    refused("client", wild, "the declared range is 0..=64");
    let good = through("0", "scans.npy", "net:A", "dense");
    let said = s.run("client", &good.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("part 0 of scans is on the servers: 3 rows of 128"), "{said}");
}
