//! The binary with three servers: the whole way from keys to answers, and what goes wrong on it.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::common::{self, LIMIT, Servers, eventually, shared, trefoil, write_npy};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// Asks a process to end.
fn terminate(child: &Child) {
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
}

/// A served network of random weights and a set of three digits.
fn served(tls: bool) -> Servers {
    let s = Servers::start(tls);
    let digits = s.path("digits").display().to_string();
    common::run(&["data", "digits", "--count", "30", "--out", &digits]);
    let shared = s.settled(
        "owner",
        &["share", "--yes", "net:D", "--as", "d", "--allow", "client", "--allow", "guest=label", "--ahead-batch", "10"],
    );
    assert!(shared.contains("What each party learns") && shared.contains("shared as d"), "{shared}");
    s
}

#[test]
fn a_model_is_shared_queried_evaluated_and_removed() {
    let s = served(true);
    let digits = s.path("digits").display().to_string();
    let images = format!("{digits}/images.npy");
    let listed = json(&s.run("client", &["models", "--json"]));
    assert_eq!((listed[0]["name"].as_str(), listed[0]["owner"].as_str()), (Some("d"), Some("owner")));

    let out = s.path("logits.npy").display().to_string();
    let all = json(&s.run("client", &["predict", "--model", "d", &images, "--top", "3", "--out", &out, "--json"]));
    assert_eq!(all["predictions"].as_array().unwrap().len(), 30);
    assert_eq!(all["predictions"][4]["top"].as_array().unwrap().len(), 3);
    assert!(std::fs::metadata(&out).unwrap().len() > 30 * 40);
    let labels = json(&s.run("guest", &["predict", "--model", "d", &images, "--json"]));
    for (a, b) in all["predictions"].as_array().unwrap().iter().zip(labels["predictions"].as_array().unwrap()) {
        assert_eq!(a["label"], b["label"]);
    }
    let likely = s.run("client", &["predict", "--model", "d", &images, "--reveal", "probabilities"]);
    assert!(likely.lines().count() == 30 && likely.contains("images.npy[29]: "), "{likely}");

    let plan = json(&common::run(&["explain", "net:D", "--batch", "10", "--json"]));
    let args = ["evaluate", "--model", "d", "--data", &digits, "--clear", "net:D", "--batch", "10", "--json"];
    let result = json(&s.run("client", &args));
    assert_eq!((result["count"].as_u64(), result["label_agreement"].as_f64()), (Some(30), Some(1.0)));
    assert!(result["max_logit_error"].as_f64().unwrap() < 0.01);
    for f in ["rounds", "bytes_online", "bytes_offline"] {
        assert_eq!(result[f].as_u64(), plan[f].as_u64().map(|n| 3 * n), "{f}: metered and explained");
    }

    s.fails(
        "guest",
        &["predict", "--model", "d", &images, "--reveal", "logits"],
        "may not ask model d for logits (granted: labels)",
    );
    s.fails("client", &["predict", "--model", "e", &images], "no model \"e\"");
    s.fails("client", &["remove", "d"], "error");
    s.fails("client", &["share", "--yes", "net:A", "--as", "mine"], "error");
    s.fails("owner", &["share", "--yes", "net:A", "--as", "d"], "exists");
    s.fails("owner", &["share", "net:A", "--as", "e"], "not shared: nobody is there to be asked (--yes shares)");
    s.fails("owner", &["share", "--yes", "net:A", "--as", "No Name"], "is no name");
    s.fails("owner", &["share", "--yes", "net:A", "--as", "e", "--allow", "nobody"], "--allow nobody: no such client");
    s.fails("owner", &["share", "--yes", "net:A", "--as", "e", "--window-bits", "12"], "would fit");
    s.run("owner", &["remove", "d"]);
    s.fails("client", &["predict", "--model", "d", &images], "no model");
    for party in ["alice", "bob", "carol"] {
        assert!(!s.log(party).contains("panicked"), "{}", s.log(party));
    }
}

#[test]
fn eight_clients_at_once_get_the_answers_of_one() {
    let s = served(true);
    let images = format!("{}/images.npy", s.path("digits").display());
    let args = ["predict", "--model", "d", &images, "--reveal", "label", "--batch", "3", "--json"];
    let labels = |text: &str| -> Vec<Value> {
        json(text)["predictions"].as_array().unwrap().iter().map(|p| p["label"].clone()).collect()
    };
    let alone = labels(&s.run("client", &args));
    std::thread::scope(|t| {
        let all: Vec<_> = (0..8).map(|_| t.spawn(|| labels(&s.run("client", &args)))).collect();
        all.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), alone));
    });
}

#[test]
fn material_ahead_is_used_without_carol() {
    let mut s = served(false);
    let digits = s.path("digits").display().to_string();
    let one = s.path("one.npy");
    write_npy(&one, &[28, 28], &[100.0; 784]);
    let share = ["share", "--yes", "net:D", "--as", "ready", "--reveal", "label", "--ahead", "2", "--samples", &digits];
    s.run("owner", &share);
    let ready = || json(&s.run("client", &["models", "--json"]))[1]["ready"].as_u64();
    eventually("material for two", || ready() == Some(2));
    let predict = ["predict", "--model", "ready", one.to_str().unwrap(), "--json"];
    let before = json(&s.run("client", &predict));
    assert_eq!((before["reveal"].as_str(), before["bytes_offline"].as_u64()), (Some("label"), Some(0)));
    eventually("material for two again", || ready() == Some(2));
    let mut carol = s.take("carol");
    carol.kill().unwrap();
    carol.wait().unwrap();
    for _ in 0..2 {
        assert_eq!(json(&s.run("client", &predict))["predictions"], before["predictions"]);
    }
    s.fails("client", &predict, "carol");
}

#[test]
fn a_certificate_about_to_expire_is_warned_of() {
    let mut s = served(true);
    s.take("carol").kill().unwrap();
    for (days, warned) in [("29", true), ("60", false)] {
        std::fs::remove_file(s.path("carol.log")).unwrap();
        let keys = s.path("").display().to_string();
        let storekey = std::fs::read(s.path("carol.storekey")).unwrap();
        common::run(&["keygen", "carol", "--out", &keys, "--days", days, "--force"]);
        std::fs::write(s.path("carol.storekey"), storekey).unwrap();
        let at = |p: &str, port: &str| format!("127.0.0.1:{port}={}", s.path(&format!("{p}.crt")).display());
        let text = std::fs::read_to_string(s.path("cluster.toml")).unwrap();
        let ports: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("address = \"127.0.0.1:")).collect();
        let port = |i: usize| ports[i].trim_end_matches('"');
        let [a, b, c] = [at("alice", port(0)), at("bob", port(1)), at("carol", port(2))];
        let file = s.path("cluster.toml").display().to_string();
        common::run(&["keygen", "cluster", "--alice", &a, "--bob", &b, "--carol", &c, "--out", &file, "--force"]);
        s.launch("carol");
        // It looks at its certificate before it stops.
        let mut carol = s.take("carol");
        terminate(&carol);
        carol.wait().unwrap();
        assert_eq!(s.log("carol").contains("about to expire"), warned, "{days}: {}", s.log("carol"));
    }
}

#[test]
fn wrong_input_is_named_and_nothing_breaks() {
    let s = served(false);
    let at = |n: &str| s.path(n).display().to_string();
    let mut values = vec![0.0; 784];
    values[5] = f32::NAN;
    write_npy(&s.path("nan.npy"), &[28, 28], &values);
    values[5] = 300.0;
    write_npy(&s.path("high.npy"), &[28, 28], &values);
    values[5] = 255.0;
    write_npy(&s.path("good.npy"), &[28, 28], &values);
    write_npy(&s.path("small.npy"), &[27, 28], &values[..27 * 28]);
    std::fs::write(s.path("text.npy"), "hello").unwrap();
    let predict = |file: &str, said: &str| s.fails("client", &["predict", "--model", "d", &at(file)], said);
    predict("nan.npy", "NaN");
    predict("high.npy", "element 5 is 300");
    predict("small.npy", "[27, 28]");
    predict("text.npy", "unknown format");
    predict("missing.npy", "missing.npy");
    s.fails("stranger", &["models"], "no client \"stranger\"");
    let good = s.run("client", &["predict", "--model", "d", &at("good.npy")]);
    assert!(good.contains("good.npy[0]: "), "{good}");
}

#[test]
fn a_wrong_certificate_is_refused_and_servers_live_on() {
    let s = served(true);
    let other = s.path("other").display().to_string();
    common::run(&["keygen", "client", "--out", &other]);
    let config = s.path("cluster.toml").display().to_string();
    common::fails(&["models", "--config", &config, "--identity", &format!("{other}/client")], "cluster file");
    common::fails(&["models", "--config", &config], "--identity");
    let store = s.path("alice.store").display().to_string();
    let key = s.path("alice.storekey").display().to_string();
    let args = ["server", "--party", "alice", "--config", &config, "--store", &store, "--store-key", &key];
    let with = |identity: &str| {
        args.into_iter().chain(["--identity"]).map(str::to_owned).chain([identity.to_owned()]).collect::<Vec<_>>()
    };
    let refused = |identity: &str, said: &str| {
        let all = with(identity);
        common::fails(&all.iter().map(String::as_str).collect::<Vec<_>>(), said);
    };
    refused(&format!("{other}/client"), "not alice's");
    let fake = s.path("fake").display().to_string();
    common::run(&["keygen", "alice", "--out", &fake]);
    refused(&format!("{fake}/alice"), "pins");
    s.run("client", &["models"]);
}

#[test]
fn a_killed_server_is_named_in_time_and_models_outlive_a_restart() {
    let mut s = served(true);
    let images = format!("{}/images.npy", s.path("digits").display());
    let predict = ["predict", "--model", "d", &images, "--json"];
    let before = json(&s.run("client", &predict));
    for party in ["bob", "alice", "carol"] {
        let mut child = s.take(party);
        child.kill().unwrap();
        child.wait().unwrap();
        let began = Instant::now();
        s.fails("client", &predict, party);
        assert!(began.elapsed() < LIMIT, "{party} was waited for");
        s.launch(party);
        let after = json(&s.settled("client", &predict));
        for (a, b) in before["predictions"].as_array().unwrap().iter().zip(after["predictions"].as_array().unwrap()) {
            assert_eq!(a["label"], b["label"]);
        }
    }
}

#[test]
fn a_server_killed_in_the_middle_of_requests_is_named_in_time() {
    let mut s = served(true);
    let many = s.path("many").display().to_string();
    common::run(&["data", "digits", "--count", "20000", "--out", &many]);
    for party in ["carol", "bob", "alice"] {
        let args = s.with("client", &["evaluate", "--model", "d", "--data", &many, "--batch", "20"]);
        let mut client = trefoil(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let client = client.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let answered = s.log("alice").matches("answered").count();
        eventually("some are answered", || s.log("alice").matches("answered").count() >= answered + 5);
        let mut child = s.take(party);
        child.kill().unwrap();
        let killed = Instant::now();
        child.wait().unwrap();
        let out = client.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{error}");
        assert!(killed.elapsed() < LIMIT && error.contains(party), "{party}: {error}");
        s.launch(party);
        s.settled("client", &["evaluate", "--model", "d", "--data", &many, "--count", "5"]);
    }
}

#[test]
fn a_server_drains_on_sigterm() {
    let mut s = served(false);
    for party in ["carol", "alice", "bob"] {
        let mut child = s.take(party);
        terminate(&child);
        eventually("it ends", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{party}: {}", s.log(party));
    }
}

#[test]
fn the_demo_and_the_timings_run_and_leave_no_process() {
    let result = json(&common::run(&["demo", "--count", "10", "--batch", "4", "--json"]));
    assert_eq!((result["count"].as_u64(), result["label_agreement"].as_f64()), (Some(10), Some(1.0)));
    for f in ["accuracy", "clear_accuracy", "max_logit_error", "rounds", "bytes_online", "bytes_offline", "seconds"] {
        assert!(result[f].is_number(), "{f}: {result}");
    }
    let text = common::run(&["demo", "--count", "3", "--link", "tcp"]);
    assert!(text.contains("predicted") && text.contains("Who held what") && !text.contains("NO"), "{text}");
    let row = json(&common::run(&["bench", "--net", "A", "--batch", "2", "--runs", "2", "--link", "tcp", "--json"]));
    let memory =
        json(&common::run(&["bench", "--net", "A", "--batch", "2", "--runs", "1", "--link", "memory", "--json"]));
    for f in ["rounds", "bytes_online", "bytes_offline"] {
        assert_eq!(row[f], memory[f], "{f}");
    }
    let args =
        ["bench", "--net", "A", "--batch", "2", "--runs", "1", "--link", "tls", "--network", "10ms,1gbit", "--json"];
    let far = json(&common::run(&args));
    assert!(far["online_s"].as_f64().unwrap() >= far["rounds"].as_f64().unwrap() * 0.005, "{far}");
    assert!(far["rounds"].as_u64() == Some(5) && row["rounds"].as_u64() == Some(11), "{far}");
    let op = json(&common::run(&["bench", "--op", "matmul", "--size", "8", "--runs", "1", "--link", "tls", "--json"]));
    assert_eq!((op["op"].as_str(), op["rounds"].as_u64()), (Some("matmul"), Some(2)));
}

#[test]
fn servers_end_with_the_process_that_started_them() {
    let dir = tempfile::tempdir().unwrap();
    let keep = dir.path().join("kept").display().to_string();
    let mut demo = trefoil(&["demo", "--count", "5000", "--keep", &keep]).stdout(Stdio::null()).spawn().unwrap();
    let carol = dir.path().join("kept/carol.log");
    eventually("carol is up", || std::fs::read_to_string(&carol).unwrap_or_default().contains("carol"));
    demo.kill().unwrap();
    demo.wait().unwrap();
    let stopped = || {
        ["alice", "bob", "carol"]
            .iter()
            .all(|p| std::fs::read_to_string(dir.path().join(format!("kept/{p}.log"))).unwrap().contains("stopping"))
    };
    eventually("all stop", stopped);
}

#[test]
fn a_stopped_demo_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo =
        trefoil(&["demo", "--count", "100000"]).env("TMPDIR", dir.path()).stdout(Stdio::null()).spawn().unwrap();
    let running = || std::fs::read_dir(dir.path()).unwrap().flatten().any(|d| d.path().join("carol.log").is_file());
    eventually("its servers are there", running);
    terminate(&demo);
    assert_eq!(demo.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_tutorials_own_weights_give_7_2_1() {
    let (Some(model), Some(mnist)) = (shared("data/models/short-conv-mnist.h5"), shared("data/mnist")) else { return };
    let (model, mnist) = (model.to_str().unwrap(), mnist.to_str().unwrap());
    let text = common::run(&["demo", "--model", model, "--data", mnist, "--count", "3"]);
    assert!(text.contains("predicted   7  2  1\n"), "{text}");
    let args = ["demo", "--model", model, "--data", mnist, "--count", "300", "--batch", "50", "--json"];
    let result = json(&common::run(&args));
    assert!(result["label_agreement"].as_f64().unwrap() > 0.999, "{result}");
    assert!(result["max_logit_error"].as_f64().unwrap() < 0.01, "{result}");
}
