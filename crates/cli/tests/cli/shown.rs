//! Likelihoods that one server is shown: what the commands say of it, and what a trial makes of it.

use serde_json::Value;

use crate::common::{fails, run};
use crate::training::{TINY, lines, of};

fn described(likelihoods: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    std::fs::write(&file, format!("{TINY}[privacy]\nlikelihoods = {likelihoods:?}\n")).unwrap();
    (dir, file.display().to_string())
}

/// The losses of the epochs of a run.
fn losses(events: &[Value]) -> Vec<f64> {
    of(events, "epoch").iter().map(|e| e["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_trial_shows_what_was_explained_to_whom_and_learns_the_same() {
    let (_dir, plain) = described("none");
    let clear = losses(&lines(&run(&["train", &plain, "--clear", "--json"])));
    let told = |file: &str| lines(&run(&["train", file, "--dry-run", "--network", "loopback", "--json"]))[0].clone();
    let secret = told(&plain)["step"].clone();
    for (who, link, title) in [("carol", "tcp", "carol (the server)"), ("helper", "tls", "helper (the fourth server)")]
    {
        let (_dir, file) = described(who);
        let explained = told(&file);
        let reveals: Vec<&str> = explained["reveals"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        for (said, rows) in reveals.iter().zip(["training", "validation"]) {
            let order = "in an order that hides which class is which";
            assert_eq!(
                *said,
                format!("to {title}: every {rows} row's class likelihoods, {order}, each time it is used")
            );
        }
        let dry = run(&["train", &file, "--dry-run"]);
        assert!(
            reveals.iter().all(|r| dry.contains(r)) && dry.contains("guess") | dry.contains("nothing else"),
            "{dry}"
        );
        let private = lines(&run(&["train", &file, "--trial", "--link", link, "--json"]));
        let (report, step) = (of(&private, "report")[0], &explained["step"]);
        assert_eq!(report["reveals"], explained["reveals"]);
        // What a step took is what was said of it, and less than without the mode.
        for key in ["rounds", "bytes_online", "bytes_offline"] {
            assert_eq!(report[key], step[key], "{who}: {key}");
            assert!(step[key].as_u64() < secret[key].as_u64(), "{who}: {key}");
        }
        for (c, p) in clear.iter().zip(losses(&private)) {
            assert!((c - p).abs() < 0.01, "{who}: {c} in the clear, {p} on shares");
        }
    }
}

#[test]
fn a_helper_has_an_identity_and_a_place_in_the_cluster_file_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    let said = run(&["keygen", "--all", "--helper", "--out", &at("")]);
    assert!(said.contains("In four terminals") && said.contains("--party helper"), "{said}");
    assert!(dir.path().join("helper.key").is_file() && !dir.path().join("helper.storekey").exists());
    let file = std::fs::read_to_string(dir.path().join("cluster.toml")).unwrap();
    assert!(file.contains("[helper]\naddress = \"127.0.0.1:9603\""), "{file}");
    let (config, identity) = (at("cluster.toml"), at("helper"));
    let server = ["server", "--party", "helper", "--config", &config, "--identity"];
    let with = |rest: &[&str], said: &str| fails(&[&server[..], rest].concat(), said);
    with(&[&identity, "--store", &at("s")], "the helper keeps nothing");
    with(&[&at("carol")], "is not helper's");
    // Without a section of its own it cannot start.
    let servers = [("alice", 9001), ("bob", 9002), ("carol", 9003)];
    let files = servers.map(|(p, port)| format!("127.0.0.1:{port}={}", at(&format!("{p}.crt"))));
    let [a, b, c] = &files;
    let bare = at("bare.toml");
    run(&["keygen", "cluster", "--alice", a, "--bob", b, "--carol", c, "--out", &bare]);
    fails(&["server", "--party", "helper", "--config", &bare, "--identity", &identity], "no [helper]");
    let (h, full) = (format!("h.example.org:9000={}", at("helper.crt")), at("full.toml"));
    run(&["keygen", "cluster", "--alice", a, "--bob", b, "--carol", c, "--helper", &h, "--out", &full]);
    assert!(std::fs::read_to_string(&full).unwrap().contains("[helper]\naddress = \"h.example.org:9000\""));
}
