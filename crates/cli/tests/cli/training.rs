//! Training from the command line: what is wrong with a description, a trial beside the clear run, a cluster.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::common::{Servers, eventually, fails, run, trefoil, write_npy};

pub(crate) const TINY: &str = "name = \"tiny\"\n\
    [model]\ninput = [28, 28, 1]\n\
    layers = [{ average_pool = 4 }, \"flatten\", { dense = 12, activation = \"relu\" }, { dense = 10 }]\n\
    [loss]\nname = \"cross-entropy\"\n\
    [optimizer]\nname = \"sgd\"\nrate = 0.5\nmomentum = 0.5\n\
    [train]\nepochs = 2\nbatch = 16\nvalidation = 0.2\n\
    [reveal]\nmetrics = \"coordinator\"\nweights = \"owner\"\n\
    [data]\nset = \"digits\"\nrows = 100\n";

pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

pub(crate) fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
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
        ("batch = 16", "batch = 90", "a batch of 90, but there are 80 rows to train on"),
        ("validation = 0.2", "validation = 1.5", "[train] validation: 1.5 is not within 0 to 0.9"),
        ("validation = 0.2", "order = \"random\"", "[train] order: \"random\" is not known; there are: seed, servers"),
        (
            "validation = 0.2",
            "patience = 2",
            "patience needs rows kept for validation ([train] validation = 0.1), and metrics revealed",
        ),
        ("validation = 0.2", "frozen = [\"dnse\"]", "there is no layer \"dnse\": average_pool, flatten, dense"),
        ("rate = 0.5", "rate = 0.0000001", "learning rate: public number 0 is 0.00000000625: must be zero or at least"),
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
        (
            "{ dense = 12, activation",
            "{ dnese = 12, activation",
            "[model] layer 3: \"dnese\" is not known; \"dense\" is the nearest",
        ),
        ("{ dense = 12, activation", "{ activation", "[model] layer 3: names no layer: one of dense, conv"),
        ("layers = [", "layers = []\nfrozen = [", "[model] layers: there are none: list them"),
        (
            "\"flatten\", { dense = 12, activation = \"relu\" }, { dense = 10 }",
            "\"flatten\"",
            "no layer of the network has weights",
        ),
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

#[test]
fn damaged_descriptions_are_understood_or_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    let whole = format!("{TINY}[privacy]\nlikelihoods = \"alice\"\n[quick]\nrows = 50\n");
    let mut state = 1_u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % n
    };
    let mut understood = 0;
    for kind in 0..60 {
        let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        let (a, b) = (below(lines.len()), below(lines.len()));
        match kind % 4 {
            0 => drop(lines.remove(a)),
            1 => lines.swap(a, b),
            2 => lines.insert(a, lines[b].clone()),
            _ => {
                let at = below(lines[a].len());
                let with = ["[", "]", "\"", "=", "{", "-", "\u{e9}", "\0", ",", "."][below(10)];
                lines[a].replace_range(at..=at, with);
            }
        }
        std::fs::write(&file, lines.join("\n")).unwrap();
        let out = trefoil(&["train", file.to_str().unwrap(), "--dry-run", "--json"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        match out.status.code() {
            Some(0) => understood += 1,
            Some(1) => assert_eq!(said.lines().count(), 1, "{said}\n{}", lines.join("\n")),
            code => panic!("{code:?}: {said}\n{}", lines.join("\n")),
        }
    }
    assert!((1..55).contains(&understood), "{understood} of 60 understood");
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
fn models_of_keras_are_trained_on_and_weights_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    std::fs::write(dir.path().join("run.toml"), TINY).unwrap();
    let (file, trained, wrong) = (at("run.toml"), at("trained.h5"), at("x.weights.h5"));
    run(&["train", &file, "--clear", "--weights", &trained]);
    run(&["train", &file, "--clear", "--weights", &at("again.HDF5")]);
    assert!(Path::new(&at("again.HDF5")).is_file());
    let layers = TINY.find("input =").unwrap()..TINY.find("[loss]").unwrap();
    let mut text = TINY.to_owned();
    text.replace_range(layers, "file = \"trained.h5\"\n");
    std::fs::write(dir.path().join("whole.toml"), text).unwrap();
    fails(&["train", &at("whole.toml"), "--clear"], "trained.h5 holds weights only");
    assert_eq!(std::fs::read(&trained).unwrap()[..4], *b"\x89HDF");
    fails(&["train", &file, "--clear", "--weights", &wrong], "Keras reads names that end in .weights.h5 otherwise");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../import/tests/data/keras3_sequential.h5");
    let (from, to) = (TINY.find("[model]").unwrap(), TINY.find("[loss]").unwrap());
    let text = format!("{}[model]\nfile = {:?}\n{}", &TINY[..from], model.display().to_string(), &TINY[to..]);
    std::fs::write(&file, text).unwrap();
    fails(&["train", &file, "--clear"], "(SpatialDropout2D): does in training what Trefoil does not");
    // What a run begins with is not written over.
    std::fs::copy(model.with_file_name("keras3_transfer.h5"), at("start.h5")).unwrap();
    let text = format!("{}[model]\nfile = \"start.h5\"\n{}", &TINY[..from], &TINY[to..]);
    std::fs::write(&file, text).unwrap();
    fails(&["train", &file, "--clear", "--weights", &at("start.h5")], "start.h5; take another name");
}

#[test]
fn what_cannot_end_well_is_refused_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    let file = at("run.toml");
    let secret = TINY.replace("metrics = \"coordinator\"\nweights = \"owner\"\n", "");
    std::fs::write(&file, secret).unwrap();
    fails(&["train", &file, "--trial", "--weights", &at("w.h5")], "--weights: none will be revealed to you");
    fails(&["train", &file, "--trial", "--curve", &at("c.svg")], "--curve: loss and accuracy will not be revealed");
    fails(&["train", &file, "--clear", "--curve", &at("no/c.svg")], "there is no folder");
    fails(&["train", &file, "--clear", "--weights", &at("no/w.h5")], "there is no folder");
    fails(&["explain", &file, "--batch", "3"], "--batch is not for training runs: the file says it");
    let (from, to) = (TINY.find("input =").unwrap(), TINY.find("[loss]").unwrap());
    let with = |model: &str| {
        let text = format!("{}{model}\n{}", &TINY[..from], &TINY[to..]);
        std::fs::write(&file, text).unwrap();
    };
    with("input = [393]\nlayers = [{ dense = 4 }]");
    fails(
        &["train", &file, "--clear"],
        "[data] has rows of 794 numbers, [model] and [loss] take 397 (393 features, 4 for",
    );
    with("input = [784]\nlayers = [{ dense = 10 }]\nfrozen = [\"dense\"]");
    fails(&["train", &file, "--clear"], "nothing is left to train");
    std::fs::write(&file, TINY.replace("set = \"digits\"", "set = \"mnist\"\npath = \"nowhere\"")).unwrap();
    assert!(run(&["explain", &file]).starts_with("note: MNIST is not here"));
    assert!(lines(&run(&["explain", &file, "--json"]))[0]["note"].as_str().unwrap().contains("generated"));
}

#[test]
fn columns_are_as_their_ranges_say_and_alike_to_be_published() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    let file = at("run.toml");
    let column = |name: &str, range: &str| {
        format!("[[data.column]]\nname = \"{name}\"\nowner = \"client\"\nfile = \"{name}.npy\"\nwidth = 1\n{range}\n")
    };
    let numbers: Vec<f32> = (0..40).map(|i| i as f32 / 10.0).collect();
    write_npy(&dir.path().join("a.npy"), &[40, 1], &numbers);
    write_npy(&dir.path().join("b.npy"), &[40, 1], &numbers);
    write_npy(&dir.path().join("y.npy"), &[40, 1], &[1.0; 40]);
    let text = |a: &str, b: &str| {
        let run = "name = \"r\"\n[model]\ninput = [2]\nlayers = [{ dense = 1 }]\n[loss]\nname = \"mean-squared-error\"\n\
                   [optimizer]\nname = \"sgd\"\nrate = 0.1\n[train]\nepochs = 1\nbatch = 8\n[reveal]\npublish = \"r\"\n";
        let columns = [column("a", a), column("b", b), column("y", "range = \"0..1\"")].concat();
        std::fs::write(&file, format!("{run}{columns}")).unwrap();
    };
    text("range = \"0..4\"", "range = \"0..4\"");
    run(&["train", &file, "--dry-run"]);
    let normed = std::fs::read_to_string(&file).unwrap().replace("layers = [", "layers = [{ batch_norm = true }, ");
    std::fs::write(&file, normed.replace("batch = 8", "batch = 16")).unwrap();
    assert!(run(&["train", &file, "--dry-run"]).contains("\npublication, once "));
    text("range = \"0..4\"", "range = \"0..2\"\nscale = 0.5");
    fails(&["train", &file, "--dry-run"], "but columns a and b have different scales or ranges");
    text("range = \"0..4\"", "range = \"0..2\"");
    fails(&["train", &file, "--clear"], "column b, row 21: 2.1 becomes 2.0999");
    let column = dir.path().join("b.npy").display().to_string();
    fails(&["train", &file, "--clear", "--curve", &column], "b.npy; take another name");
}

#[test]
fn patience_ends_a_run_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    let wild = TINY.replace("epochs = 2", "epochs = 400\npatience = 2").replace("rate = 0.5", "rate = 1.0");
    std::fs::write(&file, wild).unwrap();
    let events = lines(&run(&["train", file.to_str().unwrap(), "--clear", "--json"]));
    let losses: Vec<f64> = of(&events, "epoch").iter().map(|e| e["validation_loss"].as_f64().unwrap()).collect();
    let best = (0..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
    assert!(losses.len() < 400 && losses.len() == best + 3, "{losses:?}");
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
    fails(&["train", &at("run.toml"), "--trial", "--weights", &at("w")], "none will be revealed to you");
    let served = TINY.replace("metrics = \"coordinator\"\nweights = \"owner\"\n", "publish = \"tiny\"\n");
    std::fs::write(dir.path().join("run.toml"), served).unwrap();
    let due = lines(&run(&["explain", &at("run.toml"), "--json"]))[0]["publication"]["rounds"].clone();
    let text = run(&["train", &at("run.toml"), "--trial", "--link", "tcp"]);
    assert!(text.contains(&format!("\npublication: {due} rounds, ")), "{due} rounds: {text}");
    assert!(text.contains("answers of the trained model, served as tiny"), "{text}");
    assert!(text.contains("Private predictions of tiny, 20 validation rows"), "{text}");
    assert!(text.contains("accuracy on 20 samples, computed on shares"), "{text}");
}

/// Runs `text` as a trial beside the clear run; gives what is printed and the last line of its JSON.
fn compared(text: &str) -> (String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    std::fs::write(&file, text).unwrap();
    let args = ["train", file.to_str().unwrap(), "--trial", "--quick", "--compare", "--link", "tcp"];
    let events = lines(&run(&[&args[..], &["--json"]].concat()));
    (run(&args), of(&events, "predictions")[0].clone())
}

#[test]
fn a_network_of_sigmoids_is_served_after_transfer() {
    let (text, answers) = compared(
        "name = \"transfer\"\n[model]\ninput = [28, 28, 1]\n\
         layers = [{ average_pool = 2 }, { conv = 3, kernel = 3, stride = 2, activation = \"sigmoid\", name = \"features\" },\n\
         { average_pool = 2 }, { dropout = 0.1 }, \"flatten\", { dense = 8, activation = \"sigmoid\", name = \"hidden\" },\n\
         { dense = 5, activation = \"softmax\", name = \"classes\" }]\nfrozen = [\"features\"]\n\
         [pretrain]\nepochs = 1\nbatch = 16\nrenew = [\"hidden\", \"classes\"]\n\
         [pretrain.optimizer]\nname = \"adam\"\nrate = 0.01\n[pretrain.data]\nset = \"digits\"\nclasses = [0, 1, 2, 3, 4]\n\
         [optimizer]\nname = \"sgd\"\nrate = 0.5\n[train]\nepochs = 9\nbatch = 16\nvalidation = 0.2\n\
         [reveal]\npublish = \"transfer\"\n[data]\nset = \"digits\"\nclasses = [5, 6, 7, 8, 9]\n\
         [quick]\nrows = 60\nepochs = 1\npretrain_rows = 64\n",
    );
    assert!(text.contains("Private predictions of transfer, 12 validation rows"), "{text}");
    assert!(text.contains("by the network trained in the clear"), "{text}");
    assert_eq!(answers["count"].as_u64(), Some(12));
    assert!(answers["clear_accuracy"].is_f64() && answers["rounds"].as_u64() > Some(10), "{answers}");
}

#[test]
fn a_siamese_network_is_served_as_a_judge_of_pairs() {
    let (text, answers) = compared(
        "name = \"same\"\n[model]\ninput = [28, 28, 1]\n\
         layers = [{ conv = 2, kernel = 5, stride = 4, activation = \"tanh\" }, { average_pool = 2 }, \"flatten\",\n\
         { dense = 4, activation = \"tanh\" }]\n[loss]\nname = \"contrastive\"\nmargin = 1.0\n\
         [optimizer]\nname = \"rmsprop\"\nrate = 0.01\n[train]\nepochs = 9\nbatch = 16\nvalidation = 0.2\n\
         [reveal]\npublish = \"same\"\n[data]\nset = \"digits\"\npairs = true\n[quick]\nrows = 60\nepochs = 2\n",
    );
    let told = "to owner, on request: verdicts on pairs (closer than 0.5000 or not, nothing else) by the trained model, served as same";
    assert!(text.contains(told), "{text}");
    assert!(text.contains("pair 0: ") && text.contains("imilar; it is ") && !text.contains("(distance "), "{text}");
    assert_eq!(answers["count"].as_u64(), Some(12));
    // No dropout: both runs see the same and differ by fixed point alone.
    assert!(answers["label_agreement"].as_f64() >= Some(0.75), "{answers}");
    assert!(answers["max_logit_error"].is_null(), "a distance was told: {answers}");
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

    let text = std::fs::read_to_string(s.path("run.toml")).unwrap();
    write("more.toml", &text.replace("epochs = 3", "epochs = 3\nrows = 41"));
    s.fails("owner", &["train", &at("more.toml")], "[train] rows: 41, but data set wards has 40: correct it");
    let args = s.with("owner", &["train", &at("run.toml"), "--json"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let training = trefoil(&args).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let runs = |who: &str| lines(&s.settled(who, &["runs", "--json"]))[0].clone();
    let mut listed = Value::Null;
    eventually("the run is listed", || {
        listed = runs("owner");
        listed[0]["missing"].as_array().is_some_and(|m| m.len() == 2)
    });
    assert_eq!((&listed[0]["state"], listed[0]["steps_done"].as_u64()), (&Value::from("waiting"), Some(0)));
    s.fails("client", &["agree", "risk"], "nobody is there to be asked");
    // The same with one epoch more, and with the columns of another network, is another run.
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
    assert!(said.contains("withdrawn from risk, which had not begun; nothing was revealed"), "{said}");
    let listed = runs("owner");
    assert_eq!((&listed[0]["state"], &listed[0]["withdrawn"][0]), (&"lacks agreement".into(), &"client".into()));
    let said = s.run("client", &["agree", "risk", "--yes"]);
    assert!(said.contains("Not checked: what the programs make of the rows"), "{said}");
    s.fails("guest", &["runs", "risk", "--weights", &at("w")], "has revealed no weights to guest yet");
    s.run("guest", &["agree", "risk", "--yes"]);
    let done = training.wait_with_output().unwrap();
    assert!(done.status.success());
    let report = lines(&String::from_utf8(done.stdout).unwrap()).pop().unwrap();
    assert_eq!(report["steps"].as_u64(), Some(12));
    let over = runs("owner")[0].clone();
    assert_eq!(over["state"], "done");
    let revealed = over["revealed"].as_array().unwrap();
    assert_eq!(revealed.len(), 2, "{over}");
    assert!(revealed.iter().all(|r| r["recipient"] == "guest" && r["epoch"] == 3), "{over}");
    assert!(["rounds", "bytes_online", "bytes_offline"].iter().all(|k| over[k].as_u64() > Some(0)), "{over}");
    let shown = s.run("client", &["runs", "risk"]);
    assert!(shown.contains("Revealed so far") && shown.contains("trained weights dense/bias (1 number)"), "{shown}");
    let hint = "trefoil runs risk --weights DIR writes them";
    assert!(s.run("guest", &["runs", "risk"]).contains(hint) && !shown.contains(hint));
    // The one to whom they were revealed fetches them; with the description also as a file for Keras.
    let fetch = |to: &str, more: &[&str]| s.run("guest", &[&["runs", "risk", "--weights", to], more].concat());
    assert!(fetch(&at("w"), &[]).contains("the weights that risk revealed to guest are in "));
    assert_eq!((numbers(&s.path("w/dense-kernel.npy")).len(), numbers(&s.path("w/dense-bias.npy")).len()), (3, 1));
    lines(&fetch(&at("w.h5"), &["--description", &at("run.toml"), "--json"]));
    let twin = std::fs::read_to_string(s.path("run.toml"))
        .unwrap()
        .replace("input = [3]\nlayers = [{ dense = 1 }]", "input = [3]\nlayers = [{ dense = 2 }]");
    write("twin.toml", &twin);
    let wrong = ["runs", "risk", "--weights", &at("x.h5"), "--description", &at("twin.toml")];
    s.fails("guest", &wrong, "has shape [3, 1], must have [3, 2]");
    s.fails("guest", &["runs", "risk", "--weights", &at("w.h5")], "give --description RUN.toml");
    s.fails("client", &["runs", "risk", "--weights", &at("c")], "has revealed no weights to client and will not");
    let said = "there is a run named risk of owner already: take another name; `trefoil runs risk` shows that one";
    s.fails("guest", &["train", &at("run.toml"), "--weights", &at("g")], said);
    for private in ["w.h5", "w/dense-kernel.npy"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&s.path(private).metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    s.fails("owner", &["runs", "--stop", "risk"], "run risk is over: there is nothing left to stop");
    s.fails("guest", &["agree", "risk", "--yes"], "run risk is over");
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
