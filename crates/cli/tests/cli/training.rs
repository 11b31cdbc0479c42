//! Training from the command line: what is wrong with a description, a trial beside the clear run, a cluster.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::common::{Servers, fails, run, trefoil, write_npy};

const TINY: &str = "name = \"tiny\"\n\
    [model]\ninput = [28, 28, 1]\n\
    layers = [{ average_pool = 4 }, \"flatten\", { dense = 12, activation = \"relu\" }, { dense = 10 }]\n\
    [loss]\nname = \"cross-entropy\"\n\
    [optimizer]\nname = \"sgd\"\nrate = 0.5\nmomentum = 0.5\n\
    [train]\nepochs = 2\nbatch = 16\nvalidation = 0.2\n\
    [reveal]\nmetrics = \"coordinator\"\nweights = \"owner\"\n\
    [data]\nset = \"digits\"\nrows = 100\n";

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["event"] == kind).collect()
}

#[test]
fn wrong_descriptions_are_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    let path = file.to_str().unwrap();
    for (from, to, said) in [
        ("epochs = 2", "epoch = 2", "[train] epochs is missing (is \"epoch\" meant for it?)"),
        ("epochs = 2", "epochs = 2\nbtach = 3", "[train] btach: no such key; \"batch\" is the nearest"),
        ("epochs = 2", "epochs = 0", "[train] epochs: 0 is not within 1 to 100000"),
        ("epochs = 2", "epochs = \"two\"", "[train] epochs: a whole number is due, not \"two\""),
        ("epochs = 2", "epochs = 2\nrows = -1", "[train] rows: -1 is not within 1"),
        ("batch = 16", "batch = 90", "[train] batch: 90, but there are 80 rows to train on"),
        ("validation = 0.2", "validation = 1.5", "[train] validation: 1.5 is not within 0 to 0.9"),
        ("validation = 0.2", "order = \"random\"", "[train] order: \"random\" is not known; there are: seed, servers"),
        ("validation = 0.2", "patience = 2", "[train] patience: needs [train] validation"),
        ("validation = 0.2", "frozen = [\"dnse\"]", "there is no layer \"dnse\": average_pool, flatten, dense"),
        (
            "rate = 0.5",
            "rate = 0.0000001",
            "[optimizer] rate: public number 0 is 0.00000000625: must be zero or at least",
        ),
        ("rate = 0.5", "", "[optimizer] rate is missing"),
        ("rate = 0.5", "rate = true", "[optimizer] rate: a number is due, not true"),
        ("\"sgd\"", "\"sdg\"", "[optimizer] name: \"sdg\" is not known; \"sgd\" is the nearest"),
        ("momentum = 0.5", "momentum = 1.5", "[optimizer] momentum: 1.5 is not within"),
        ("momentum = 0.5", "beta1 = 0.5", "[optimizer] beta1: no such key"),
        ("momentum = 0.5", "nesterov = true", "[optimizer] nesterov: needs a momentum"),
        ("momentum = 0.5", "schedule = { name = \"step\" }", "[optimizer.schedule] factor is missing"),
        ("momentum = 0.5", "clip_norm = 1\nclip_value = 1", "clip_value is there too: one of them"),
        ("\"cross-entropy\"", "\"entropy\"", "[loss] name: \"entropy\" is not known"),
        ("[loss]", "[lost]", "lost: no such key; \"loss\" is the nearest"),
        ("\"flatten\"", "\"flaten\"", "[model] layer 2: \"flaten\" is not known; \"flatten\" is the nearest"),
        ("\"flatten\",", "", "[model] layer 2: dense takes a vector, not [7, 7, 1]: flatten first"),
        ("input = [28, 28, 1]", "", "[model] input is missing"),
        ("input = [28, 28, 1]", "input = [32, 28, 1]", "the network and its loss take 906"),
        ("metrics = \"coordinator\"", "metrics = \"all\"", "[reveal] metrics: \"all\" is not known"),
        ("weights = \"owner\"", "weights = \"owner\"\npublish = \"../x\"", "published model \"../x\" is no name"),
        (
            "[reveal]",
            "[privacy]\nlikelihoods = \"producer\"\n[reveal]",
            "[privacy] likelihoods: \"producer\" does not exist",
        ),
        (
            "rows = 100",
            "rows = 20",
            "metric validation-metrics/loss is a sum over 4 rows: the data set demands at least 10 behind a revealed metric",
        ),
        ("set = \"digits\"", "set = \"digit\"", "[data] set: \"digit\" is not known; \"digits\" is the nearest"),
        ("name = \"tiny\"", "name = \"Tiny!\"", "run \"Tiny!\" is no name"),
        ("name = \"tiny\"", "name = ", "no usable run at"),
    ] {
        let text = TINY.replacen(from, to, 1);
        assert_ne!(text, TINY, "{from:?} is not there");
        std::fs::write(&file, text).unwrap();
        fails(&["train", path, "--dry-run"], said);
        let out = trefoil(&["train", path, "--dry-run"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stderr).lines().count(), 1, "{said}");
    }
    fails(&["train", dir.path().join("none.toml").to_str().unwrap(), "--dry-run"], "none.toml");
}

/// The numbers of an .npy file.
fn numbers(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[start..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn a_trial_learns_what_the_clear_run_learns_and_reveals_what_was_explained() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    std::fs::write(dir.path().join("run.toml"), TINY).unwrap();
    let explained = lines(&run(&["explain", &at("run.toml"), "--json"]));
    let reveals = explained[0]["reveals"].as_array().unwrap();
    let tensors: Vec<&str> = reveals.iter().filter_map(|r| r.as_str()?.split("weights ").nth(1)).collect();
    assert_eq!((reveals.len(), tensors.len()), (5, 4), "{reveals:?}");

    let clear = lines(&run(&["train", &at("run.toml"), "--clear", "--weights", &at("clear"), "--json"]));
    let (weights, curve) = (at("private"), at("curve.svg"));
    let private =
        lines(&run(&["train", &at("run.toml"), "--trial", "--weights", &weights, "--curve", &curve, "--json"]));
    let report = of(&private, "report")[0];
    assert_eq!(report["reveals"], explained[0]["reveals"]);
    assert_eq!((report["steps"].as_u64(), report["resumed"].as_u64()), (Some(10), Some(0)));
    assert!(report["rounds"].as_u64().unwrap() > 0 && report["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    let (clear, private) = (of(&clear, "epoch"), of(&private, "epoch"));
    assert_eq!((clear.len(), private.len()), (2, 2));
    for (c, p) in clear.iter().zip(&private) {
        for key in ["loss", "validation_loss"] {
            let (c, p) = (c[key].as_f64().unwrap(), p[key].as_f64().unwrap());
            assert!((c - p).abs() < 0.01, "{key}: {c} in the clear, {p} on shares");
        }
    }
    let files = |n: &str| -> BTreeMap<String, Vec<f32>> {
        let all = std::fs::read_dir(dir.path().join(n)).unwrap().map(|e| e.unwrap());
        all.map(|e| (e.file_name().into_string().unwrap(), numbers(&e.path()))).collect()
    };
    let (clear, private) = (files("clear"), files("private"));
    assert_eq!(clear.keys().collect::<Vec<_>>(), private.keys().collect::<Vec<_>>());
    assert_eq!(clear.len(), 4);
    for (name, values) in &clear {
        let far = values.iter().zip(&private[name]).map(|(c, p)| (c - p).abs()).fold(0.0, f32::max);
        assert!(far < 0.01 && values.len() == private[name].len(), "{name}: {far} off");
    }
    assert!(std::fs::read_to_string(curve).unwrap().starts_with("<svg"));
}

#[test]
fn what_was_not_agreed_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    let secret =
        TINY.replace("metrics = \"coordinator\"\nweights = \"owner\"\n", "").replace("epochs = 2", "epochs = 1");
    std::fs::write(dir.path().join("run.toml"), secret).unwrap();
    let text = run(&["train", &at("run.toml"), "--trial", "--link", "tcp"]);
    assert!(text.contains("nothing to anybody") && text.contains("loss and accuracy stay secret"), "{text}");
    fails(&["train", &at("run.toml"), "--trial", "--weights", &at("w")], "none were revealed to you");
    let served = TINY.replace("metrics = \"coordinator\"\nweights = \"owner\"\n", "publish = \"tiny\"\n");
    std::fs::write(dir.path().join("run.toml"), served).unwrap();
    let text = run(&["train", &at("run.toml"), "--trial", "--link", "tcp"]);
    assert!(text.contains("answers of the trained model, served as tiny"), "{text}");
    assert!(text.contains("accuracy on 20 samples, computed on shares"), "{text}");
}

#[test]
fn owners_agree_on_a_cluster() {
    let s = Servers::start(true);
    let at = |n: &str| s.path(n).display().to_string();
    let write = |n: &str, text: &str| std::fs::write(s.path(n), text).unwrap();
    write(
        "set.toml",
        "name = \"wards\"\nrows = 40\n[[column]]\nname = \"x\"\nwidth = 3\nrange = \"-1..1\"\n\
         [[column]]\nname = \"y\"\nwidth = 1\nrange = \"0..1\"\n\
         [[part]]\nowner = \"client\"\ncolumn = \"x\"\n[[part]]\nowner = \"guest\"\ncolumn = \"y\"\n",
    );
    write(
        "run.toml",
        "name = \"risk\"\n[model]\ninput = [3]\nlayers = [{ dense = 1 }]\n[loss]\nname = \"binary-cross-entropy\"\n\
         [optimizer]\nname = \"sgd\"\nrate = 1.0\n[train]\nset = \"wards\"\nepochs = 3\nbatch = 10\norder = \"servers\"\n\
         [reveal]\nweights = \"guest\"\n",
    );
    let x: Vec<f32> = (0..120).map(|i| (i * 37 % 41) as f32 / 20.5 - 1.0).collect();
    let y: Vec<f32> = x.chunks(3).map(|x| f32::from(u8::from(x[0] > x[1]))).collect();
    write_npy(&s.path("x.npy"), &[40, 3], &x);
    write_npy(&s.path("y.npy"), &[40, 1], &y);
    s.settled("owner", &["data", "declare", &at("set.toml")]);
    s.settled("client", &["data", "contribute", "wards", "--part", "0", "--input", &at("x.npy")]);
    s.settled("guest", &["data", "contribute", "wards", "--part", "1", "--input", &at("y.npy")]);
    s.fails("client", &["agree", "risk"], "no run \"risk\"");

    let args = s.with("owner", &["train", &at("run.toml"), "--json"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let training = trefoil(&args).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let runs = |who: &str| lines(&s.settled(who, &["runs", "--json"]))[0].clone();
    let mut listed = runs("owner");
    for _ in 0..100 {
        if listed[0]["missing"].as_array().is_some_and(|m| m.len() == 2) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        listed = runs("owner");
    }
    assert_eq!((&listed[0]["state"], listed[0]["steps_done"].as_u64()), (&Value::from("waiting"), Some(0)));
    s.fails("client", &["agree", "risk"], "nobody is there to be asked");
    // The same with one epoch more, and with the columns of another network, is another run.
    let text = std::fs::read_to_string(s.path("run.toml")).unwrap();
    for (to, differs) in
        [("epochs = 4", "epochs: 4 here, 3 there"), ("epochs = 3\nseed = 2\nshuffle_rows = true", "shuffled")]
    {
        write("else.toml", &text.replace("epochs = 3", to));
        s.fails("client", &["agree", "risk", "--description", &at("else.toml"), "--yes"], differs);
    }
    let said = s.run("client", &["agree", "risk", "--description", &at("run.toml"), "--yes"]);
    assert!(said.contains("to guest, at the end: trained weights dense/kernel (3 numbers)"), "{said}");
    assert!(
        said.contains("the run is the one of") && !said.contains("Not checked") && !said.contains("WARNING"),
        "{said}"
    );
    let said = s.run("client", &["agree", "risk", "--withdraw"]);
    assert!(said.contains("withdrawn from risk: it stops where it is"), "{said}");
    let listed = runs("owner");
    assert_eq!((&listed[0]["state"], &listed[0]["withdrawn"][0]), (&"lacks agreement".into(), &"client".into()));
    let said = s.run("client", &["agree", "risk", "--yes"]);
    assert!(said.contains("Not checked: what the programs make of the rows"), "{said}");
    s.run("guest", &["agree", "risk", "--yes"]);
    let done = training.wait_with_output().unwrap();
    assert!(done.status.success());
    let report = lines(&String::from_utf8(done.stdout).unwrap()).pop().unwrap();
    assert_eq!(report["steps"].as_u64(), Some(12));
    assert_eq!(runs("owner")[0]["state"], "done");
    let again = s.run("owner", &["train", &at("run.toml"), "--json"]);
    assert_eq!(lines(&again)[0]["steps"].as_u64(), Some(12), "the same run is watched, not begun anew");
    let other = std::fs::read_to_string(s.path("run.toml")).unwrap().replace("epochs = 3", "epochs = 4");
    write("other.toml", &other);
    s.fails("owner", &["train", &at("other.toml")], "there is another run named risk already");
    s.run("owner", &["runs", "--drop", "risk"]);
    assert_eq!(runs("owner").as_array().map(Vec::len), Some(0));
}

#[test]
fn what_fixed_point_cannot_hold_is_foretold() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    let path = file.to_str().unwrap();
    let write = |rate: &str| std::fs::write(&file, TINY.replace("rate = 0.5", rate)).unwrap();
    write("rate = 0.5");
    assert!(!run(&["train", path, "--dry-run"]).contains("warning"));
    write("rate = 120.0");
    let warned = run(&["train", path, "--dry-run"]);
    assert!(warned.contains("warning: layer") && warned.contains("lower the rate"), "{warned}");
    let warned = run(&["train", path, "--clear"]);
    assert!(warned.contains("warning: layer") && warned.contains("that fixed point holds there"), "{warned}");
    let events = lines(&run(&["train", path, "--clear", "--json"]));
    assert!(of(&events, "warning")[0]["text"].as_str().unwrap().contains("layer"));
}
