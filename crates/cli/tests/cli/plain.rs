//! The binary without servers: usage, plans, keys, data, and what it says of wrong input.

use crate::common::{fails, run, trefoil};
use serde_json::Value;

#[test]
fn every_command_helps_with_an_example() {
    for command in
        ["demo", "keygen", "server", "share", "models", "remove", "predict", "evaluate", "explain", "data", "bench"]
    {
        let help = run(&[command, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("trefoil {command}")), "{command}: {help}");
    }
    assert!(run(&["keygen", "cluster", "--help"]).contains("Example"));
    assert!(run(&["--version"]).starts_with("trefoil "));
}

#[test]
fn wrong_usage_ends_with_2_and_wrong_input_with_1() {
    for args in [
        &["frobnicate"][..],
        &["server", "--party", "dave"],
        &["share", "net:A", "--as", "a", "--range", "1..0"],
        &["share", "net:A", "--as", "a", "--scale", "nan"],
        &["explain", "net:A", "--network", "40ms"],
        &["explain", "net:A", "--batch", "0"],
        &["share", "net:A", "--as", "a", "--scale", "0"],
        &["server", "--party", "alice", "--log", "foo"],
        &["bench", "--op", "relu"],
        &["keygen"],
        &["keygen", "alice"],
    ] {
        let out = trefoil(args).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("error:"), "{args:?}");
    }
    for (args, said) in [
        (&["explain", "no/such/model.h5"][..], "no/such/model.h5"),
        (&["explain", "nope"], "there is no file nope: a model is a Keras file (.keras or .h5), or net:NAME"),
        (&["explain", "nope.toml"], "there is no file nope.toml: a run is described in a TOML file"),
        (&["train", "nope.toml"], "there is no file nope.toml: a run is described in a TOML file"),
        (&["explain", "net:Z"], "no built-in network \"Z\": there are net:A"),
        (&["explain", "net:A", "--fraction-bits", "40"], "1 to 30"),
        (&["explain", "net:A", "--window-bits", "8"], "would fit"),
        (&["explain", "net:A", "--similar-below", "-1"], "-1 is not within 1/256 to 1000000"),
        (&["models", "--config", "no/cluster.toml"], "no/cluster.toml"),
        (&["server", "--party", "alice", "--config", "no/cluster.toml"], "keygen cluster"),
        (&["data", "digits", "--count", "0", "--out", "nowhere"], "--count 0"),
        (&["keygen", "Not A Name", "--out", "."], "no name"),
        (&["bench", "--net", "Z", "--link", "memory"], "error: no benchmark network \"Z\": there are A, B"),
    ] {
        fails(args, said);
    }
}

#[test]
fn a_key_given_as_cluster_file_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alice.storekey").display().to_string();
    run(&["keygen", "alice", "--out", dir.path().to_str().unwrap()]);
    let key = std::fs::read_to_string(&path).unwrap();
    for args in [
        &["server", "--party", "alice", "--config", &path][..],
        &["predict", "--model", "m", "x.npy", "--config", &path],
        &["train", &path, "--dry-run"],
        &["data", "declare", &path],
    ] {
        let out = trefoil(args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert_eq!(said.matches("TOML parse error at line 1, column 65: ").count(), 1, "{said}");
        assert!(!said.contains(&key[..8]) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn an_output_is_no_input_and_has_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    std::fs::write(at("in.npy"), "kept").unwrap();
    for (out, said) in
        [(at("in.npy"), "that is the input"), (at("no/out.npy"), "there is no folder"), (at("."), "is a folder")]
    {
        // Nobody is asked: there is no cluster.
        fails(&["predict", "--model", "m", "other.npy", &at("in.npy"), "--out", &out], said);
    }
    assert_eq!(std::fs::read_to_string(at("in.npy")).unwrap(), "kept");
}

#[test]
fn an_identity_is_the_one_that_the_cluster_file_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    run(&["keygen", "--all", "--out", &at("k1"), "--client", "ward-3", "--client", "ward-4"]);
    std::fs::create_dir(at("k2")).unwrap();
    for kind in ["key", "crt"] {
        std::fs::copy(at(&format!("k1/ward-4.{kind}")), at(&format!("k2/ward-3.{kind}"))).unwrap();
    }
    run(&["keygen", "ward-3", "--out", &at("k3")]);
    let models = |identity: &str, said: &str| {
        fails(&["models", "--config", &at("k1/cluster.toml"), "--identity", &at(identity)], said);
    };
    models("k2/ward-3", "is not the one that the cluster file has for ward-3");
    models("k2/ward-3", "it is ward-4's");
    models("k3/ward-3", "has it been made anew? Then every cluster file needs the new one");
    models("k1/ward-3", "no connection to alice");
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.h5");
    std::fs::write(&path, b"\x89HDF\r\n\x1a\nand then nonsense").unwrap();
    fails(&["explain", path.to_str().unwrap()], "model.h5");
}

#[test]
fn a_plan_adds_up_and_grows_with_the_link() {
    let plan = |network: &str| -> Value {
        serde_json::from_str(&run(&["explain", "net:B", "--network", network, "--batch", "2", "--json"])).unwrap()
    };
    let (lan, wan) = (plan("lan"), plan("40ms,352mbit"));
    let sum = |p: &Value, f: &str| p["layers"].as_array().unwrap().iter().map(|l| l[f].as_u64().unwrap()).sum::<u64>();
    for f in ["rounds", "bytes_online", "bytes_offline"] {
        assert_eq!(sum(&lan, f), lan[f].as_u64().unwrap());
        assert_eq!(sum(&wan, f), wan[f].as_u64().unwrap());
        // What each plan says of the other link is what the other plan is.
        assert_eq!((&lan["elsewhere"][2][f], &wan["elsewhere"][1][f]), (&wan[f], &lan[f]));
    }
    assert!(wan["rounds"].as_u64() < lan["rounds"].as_u64(), "rounds rule on a wide network");
    assert!(wan["predicted_online_s"].as_f64() > lan["predicted_online_s"].as_f64());
    assert_eq!(lan["reveals"][0]["recipient"], "the client");
    assert_eq!(lan["learns"].as_array().unwrap().len(), 5);
    assert!(lan["ranges"].as_array().unwrap().iter().all(|r| r["proved"] == true));
    let text = run(&["explain", "net:B", "--reveal", "label"]);
    assert!(text.contains("argmax") && text.contains("moved behind") && text.contains("proved"), "{text}");
}

#[test]
fn keys_are_made_once_and_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    for name in ["alice", "bob", "carol", "owner", "ward-3"] {
        run(&["keygen", name, "--out", &at("")]);
        fails(&["keygen", name, "--out", &at("")], "--force");
    }
    let server = |p: &str, port: u16| format!("{p}.example.org:{port}={}", at(&format!("{p}.crt")));
    let (alice, bob, carol) = (server("alice", 9000), server("bob", 9000), server("carol", 9000));
    let owner = format!("owner={}:owner", at("owner.crt"));
    let ward = format!("ward-3={}", at("ward-3.crt"));
    let cluster = at("cluster.toml");
    let args = |carol: &str, owner: &str| {
        ["keygen", "cluster", "--alice", &alice, "--bob", &bob, "--carol", carol, "--client", owner, "--client", &ward]
            .map(str::to_owned)
            .into_iter()
            .chain(["--out".to_owned(), cluster.clone()])
            .collect::<Vec<_>>()
    };
    let call = |a: Vec<String>| trefoil(&a.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let wrong = call(args(&format!("carol.example.org={}", at("carol.crt")), &owner));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no address"));
    let wrong = call(args(&carol, &format!("owner={}", at("owner.key"))));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("not a certificate"));
    let wrong = call(args(&server("bob", 9001).replace("bob.example", "carol.example"), &owner));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("same certificate"));
    assert!(call(args(&carol, &owner)).status.success());
    let text = std::fs::read_to_string(&cluster).unwrap();
    assert!(text.contains("alice.example.org:9000") && text.contains("\"owner\", \"client\""), "{text}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for private in ["alice.key", "alice.storekey"] {
            let mode = std::fs::metadata(at(private)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{private}");
        }
    }
}

#[test]
fn generated_digits_are_a_set() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("digits");
    run(&["data", "digits", "--count", "30", "--out", out.to_str().unwrap()]);
    assert!(out.join("images.npy").is_file() && out.join("labels.npy").is_file());
}

#[test]
fn an_unreachable_mirror_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("mnist");
    let args = ["data", "mnist", "--out", out.to_str().unwrap(), "--mirror", "http://127.0.0.1:9/"];
    fails(&args, "http://127.0.0.1:9/");
}

#[test]
fn operations_and_networks_are_timed_in_memory() {
    let line = run(&["bench", "--op", "relu", "--size", "500", "--link", "memory", "--runs", "2", "--json"]);
    let relu: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((relu["op"].as_str(), relu["size"].as_u64()), (Some("relu"), Some(500)));
    let lines = run(&["bench", "--net", "A,D", "--batch", "1,3", "--link", "memory", "--runs", "1", "--json"]);
    let rows: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    for (row, (net, batch)) in rows.iter().zip([("A", 1), ("A", 3), ("D", 1), ("D", 3)]) {
        assert_eq!((row["net"].as_str(), row["batch"].as_u64()), (Some(net), Some(batch)));
        for f in ["total_s", "online_s", "offline_s", "client_s", "client_ahead_s", "total_min_s"] {
            assert!(row[f].as_f64().unwrap() > 0.0, "{f}");
        }
        for f in ["rounds", "bytes_online", "bytes_offline", "peak_rss_bytes"] {
            assert!(row[f].as_u64().unwrap() > 0, "{f}");
        }
    }
    let args = ["bench", "--net", "A", "--batch", "3", "--link", "memory", "--runs", "1", "--network", "20ms,1gbit"];
    let far: Value = serde_json::from_str(&run(&[&args[..], &["--json"]].concat())).unwrap();
    assert!(far["online_s"].as_f64().unwrap() >= far["rounds"].as_f64().unwrap() * 0.01, "{far}");
    // The plan follows the link: far away keys save rounds, at the price of dealt bytes.
    assert!(far["rounds"].as_u64() == Some(5) && rows[1]["rounds"].as_u64() == Some(11), "{far}");
    assert!(far["bytes_offline"].as_u64() > rows[1]["bytes_offline"].as_u64(), "{far}");
}
