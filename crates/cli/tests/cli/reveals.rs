//! What `explain`, `agree` and the report list as revealed is what the servers hand out and show, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use trefoil_client::{Reveal, RunSpec, RunStatus, Stage as At};
use trefoil_link::frame::HEADER;
use trefoil_mpc::program::{Op, Program, Shown as Server};
use trefoil_proto::control::{Reply, Request};

use crate::common::{eventually, run, trefoil, write_npy};
use crate::stage::{Messages, Stage};
use crate::tapped::Tap;

const CLIENTS: [&str; 3] = ["owner", "client", "guest"];
const EPOCHS: u32 = 3;

/// A value that somebody is shown: recipient, what (states or model or rows), how many numbers, when.
type Shown = BTreeSet<(String, String, usize, String)>;

/// What a list says, line by line.
fn listed(lines: &[String]) -> Shown {
    let mut all = Shown::new();
    for line in lines {
        let rest = line.strip_prefix("to ").unwrap();
        let add = |all: &mut Shown, to: &str, what: &str, size, when: &str| {
            assert!(all.insert((to.into(), what.into(), size, when.into())), "listed twice: {line}");
        };
        if let Some((to, rows)) = rest.split_once(" server): every ") {
            let (to, _) = to.split_once(" (the").unwrap();
            let (rows, when) = rows.split_once(" row's class likelihoods, ").unwrap();
            let order = "in an order that hides which class is which, ";
            let open = if to == "alice" { Some(when) } else { when.strip_prefix(order) };
            add(&mut all, to, rows, 0, open.unwrap());
        } else if let Some((to, what)) = rest.split_once(", on request: ") {
            let (kinds, model) = what.split_once(" the trained model, served as ").unwrap();
            for kind in kinds.split(" and ") {
                let (kind, _) = kind.split_once(' ').unwrap();
                add(&mut all, to, &format!("{kind} of {model}"), 0, "on request");
            }
        } else {
            let (head, states) = rest.strip_suffix(']').unwrap().rsplit_once(" [").unwrap();
            let (numbers, states) = states.split_once(" number").unwrap();
            let states = states.trim_start_matches('s').strip_prefix(" of ").unwrap();
            let (to, when) = head.split_once(": ").unwrap().0.split_once(", ").unwrap();
            add(&mut all, to, states, numbers.parse().unwrap(), when);
        }
    }
    all
}

/// The likelihoods that a program shows: to whom, its step, and the length of the message.
fn shows(program: &Program, batch: u32) -> Option<(&'static str, (u32, usize))> {
    let (at, op) = program.steps.iter().enumerate().find(|(_, s)| matches!(s.op, Op::Likelihoods { .. }))?;
    let Op::Likelihoods { x, shift, shown } = op.op else { return None };
    let to = match shown {
        Server::Alice => "alice",
        Server::Carol => "carol",
        Server::Helper => "helper",
    };
    let n = program.infer().unwrap()[x].count(batch as usize);
    Some((to, (at as u32, (n * (64 - shift as usize)).div_ceil(8))))
}

/// Numbers in an answer of so many bytes.
fn numbers(program: &Program, bytes: usize) -> usize {
    let Some(Op::Reveal { shift, .. }) = program.steps.last().map(|s| &s.op) else { panic!("no reveal") };
    8 * bytes / (64 - *shift as usize)
}

/// The program that answers with logits.
fn served(spec: &RunSpec) -> Program {
    let manifest = &spec.publish.as_ref().unwrap().manifest;
    manifest.program.ending_in(Reveal::Logits, manifest.window).unwrap()
}

/// What the taps have seen of a run: the same from both evaluators.
fn seen(stage: &Stage, status: &RunStatus, spec: &RunSpec) -> Shown {
    let of = |tap: &Tap| {
        let mut values: BTreeMap<(String, u32), (usize, BTreeSet<u32>)> = BTreeMap::new();
        let mut all = Shown::new();
        for (to, request, bytes) in tap.handed_out() {
            match request {
                Request::Revealed { run, index, epoch } if run == status.run => {
                    let known = values.entry((to, index)).or_insert((bytes, BTreeSet::new()));
                    assert_eq!(known.0, bytes);
                    known.1.insert(epoch);
                }
                Request::Predict { model, reveal, .. } if model == status.name => {
                    let program = served(spec);
                    let outputs = program.infer().unwrap().last().unwrap().count(1);
                    let kind = match (reveal, outputs) {
                        (Reveal::Label, 1) => "verdicts",
                        (Reveal::Label, _) => "labels",
                        // One number tells a distance from logits.
                        (Reveal::Logits, _) if numbers(&program, bytes) == 1 => "distances",
                        (Reveal::Logits, _) => "answers",
                    };
                    all.insert((to, format!("{kind} of {model}"), 0, "on request".into()));
                }
                Request::Revealed { .. } | Request::Predict { .. } => {}
                other => panic!("an answer to {other:?}"),
            }
        }
        for ((to, index), (bytes, epochs)) in values {
            let program = &spec.reveals[index as usize].program;
            let states: BTreeSet<&str> = program
                .steps
                .iter()
                .filter_map(|s| match s.op {
                    Op::State { slot } => Some(program.states[slot].name.as_str()),
                    _ => None,
                })
                .collect();
            let when = if epochs == (0..EPOCHS).collect() { "after each epoch" } else { "at the end" };
            assert!(when == "after each epoch" || epochs == BTreeSet::from([EPOCHS]), "{epochs:?}");
            let states = states.into_iter().collect::<Vec<_>>().join(", ");
            all.insert((to, states, numbers(program, bytes), when.into()));
        }
        all
    };
    let [mut all, bobs] = [of(&stage.taps[0]), of(&stage.taps[1])];
    assert_eq!(all, bobs, "alice and bob hand out different things");
    // What servers show each other in the steps of the run.
    let (messages, shuffled) = stage.shown();
    let each = spec.shuffled().map(|(words, _)| 8 * words.len());
    assert_eq!(shuffled, each.map_or(vec![], |n| vec![("alice", n), ("bob", n)]));
    let check = spec.check.as_ref().unwrap();
    let steps = [
        ("training", shows(&spec.step, spec.batch), spec.steps()),
        ("validation", shows(&check.program, check.batch), check.rows.rows() / check.batch),
    ];
    // Lanes take turns: sorted, not in the order of time.
    let mut due = Messages::new();
    for epoch in 0..EPOCHS {
        for (rows, shown, times) in &steps {
            let Some((to, message)) = shown else { continue };
            let from = if *to == "alice" { &["bob"][..] } else { &["alice", "bob"] };
            from.iter().for_each(|by| due.entry((to, by)).or_default().extend(vec![*message; *times as usize]));
            assert_eq!(all.insert((to.to_string(), rows.to_string(), 0, "each time it is used".into())), epoch == 0);
        }
    }
    due.values_mut().for_each(|m| m.sort_unstable());
    assert_eq!(messages, due, "servers were shown other things than the programs say");
    all
}

/// Every client asks both evaluators for everything that there might be.
fn probe(stage: &Stage, status: &RunStatus, spec: &RunSpec) {
    for name in CLIENTS {
        let value = |(index, epoch)| Request::Revealed { run: status.run, index, epoch };
        let values: Vec<Request> =
            (0..spec.reveals.len() as u32 + 2).flat_map(|i| (0..EPOCHS + 2).map(move |e| (i, e))).map(value).collect();
        let replies = stage.taps.each_ref().map(|tap| stage.ask(&tap.address, name, &values));
        let answered = replies.map(|all| all.iter().map(|r| matches!(r, Reply::Answer(_))).collect::<Vec<_>>());
        assert_eq!(answered[0], answered[1], "{name}: alice and bob refuse different things");
    }
    let Some(publication) = &spec.publish else { return };
    let mut epoch = 0;
    for name in CLIENTS {
        let mut client = stage.client(name);
        if let Ok(model) = client.model(&publication.manifest.name) {
            epoch = model.epoch;
            let n: usize = model.manifest.program.input_shape.iter().product();
            let granted = model.manifest.reveals_to(name);
            granted.iter().for_each(|r| assert!(client.predict(&model, *r, &vec![0.5; n], 1).is_ok()));
        }
    }
    // Whoever is not listed asks nevertheless.
    for name in CLIENTS {
        for reveal in [Reveal::Logits, Reveal::Label] {
            let granted = publication.manifest.reveals_to(name).contains(&reveal);
            let (model, seed) = (publication.manifest.name.clone(), vec![1; 32].into());
            let request = Request::Predict { id: [7; 16], model, epoch, batch: 1, reveal, seed };
            if !granted {
                let reply = stage.ask(&stage.taps[0].address, name, &[request]);
                assert!(matches!(reply[0], Reply::Refused { .. }), "{name} got {reveal:?}");
            }
        }
    }
}

/// The lines under "Revealed" up to what the servers learn.
fn told(text: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|l| *l != "Revealed").skip(1);
    lines.take_while(|l| l.starts_with("  ")).map(|l| l.trim().to_owned()).collect()
}

fn strings(v: &Value) -> Vec<String> {
    v.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
}

fn last(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn what_is_listed_is_what_is_revealed() {
    let stage = Stage::start();
    let s = &stage.servers;
    let at = |n: &str| s.path(n).display().to_string();
    let values = |name: &str, width: usize, from: usize| {
        let x: Vec<f32> = (from..from + 60 * width).map(|i| (i * 37 % 41) as f32 / 20.5 - 1.0).collect();
        write_npy(&s.path(name), &[60, width], &x);
    };
    [("x.npy", 0), ("a.npy", 7), ("b.npy", 19), ("c.npy", 5)].iter().for_each(|(name, from)| values(name, 4, *from));
    let same: Vec<f32> = (0..60).map(|i| (i * 7 % 3 % 2) as f32).collect();
    write_npy(&s.path("same.npy"), &[60, 1], &same);
    let labels: String = (0..60).map(|i| format!("{}\n", i * 7 % 3)).collect();
    std::fs::write(s.path("y.csv"), labels).unwrap();
    let (features, of_guest) = ("width = 4\nrange = \"-1..1\"", ["y", "same", "c"]);
    for (set, columns) in [
        ("wards", &[("x", features), ("y", "classes = 3")][..]),
        ("pairs", &[("a", features), ("b", features), ("same", "width = 1\nrange = \"0..1\"")]),
        ("triples", &[("a", features), ("b", features), ("c", features)]),
    ] {
        let mut text = format!("name = \"{set}\"\nrows = 60\n");
        let owner = |column: &str| if of_guest.contains(&column) { "guest" } else { "client" };
        columns.iter().for_each(|(column, what)| text += &format!("[[column]]\nname = \"{column}\"\n{what}\n"));
        for (column, _) in columns {
            text += &format!("[[part]]\nowner = \"{}\"\ncolumn = \"{column}\"\n", owner(column));
        }
        let file = at(&format!("{set}-set.toml"));
        std::fs::write(&file, text).unwrap();
        s.settled("owner", &["data", "declare", &file]);
        for (part, (column, _)) in columns.iter().enumerate() {
            let (part, npy, csv) = (part.to_string(), at(&format!("{column}.npy")), at("y.csv"));
            let input = if *column == "y" { &["--labels", "--input", &csv][..] } else { &["--input", &npy] };
            s.settled(owner(column), &[&["data", "contribute", set, "--part", &part], input].concat());
        }
    }

    let classes =
        "[model]\ninput = [4]\nlayers = [{ dense = 3, activation = \"softmax\" }]\n[loss]\nname = \"cross-entropy\"\n";
    let frozen = "[model]\ninput = [4]\nlayers = [{ dense = 5, activation = \"sigmoid\", name = \"base\" }, \
                  { dense = 3, activation = \"softmax\" }]\nfrozen = [\"base\"]\nfeatures = \"servers\"\n\
                  [loss]\nname = \"cross-entropy\"\n";
    let towers = |loss: &str| {
        format!("[model]\ninput = [4]\nlayers = [{{ dense = 3, activation = \"tanh\" }}]\n[loss]\nname = {loss:?}\n")
    };
    let (pairs, triples) = (&towers("contrastive")[..], &towers("triplet")[..]);
    let (metrics, own) = ("metrics = \"coordinator\"\n", "weights = \"owner\"\n");
    let publish = |name: &str| format!("publish = \"{name}\"\n");
    let none = String::new();
    // Name, set, network, [train], [reveal], [privacy].
    let configurations = [
        ("nothing", "wards", classes, "", none.clone(), ""),
        ("metrics", "wards", classes, "", metrics.into(), ""),
        ("own", "wards", classes, "", own.into(), ""),
        ("others", "wards", classes, "", format!("{metrics}weights = \"guest\"\n"), ""),
        ("served", "wards", classes, "", publish("served"), ""),
        ("labelled", "wards", classes, "", format!("{}answers = \"label\"\n", publish("labelled")), ""),
        ("likely", "wards", classes, "", metrics.into(), "alice"),
        (
            "shuffled",
            "wards",
            classes,
            "shuffle_rows = true\n",
            format!("weights = \"client\"\n{}", publish("shuffled")),
            "",
        ),
        ("all", "wards", classes, "", format!("{metrics}{own}{}", publish("all")), "alice"),
        // To servers that do not know which class is which, with metrics and without.
        ("carols", "wards", classes, "", metrics.into(), "carol"),
        ("carol-alone", "wards", classes, "", none.clone(), "carol"),
        ("helpers", "wards", classes, "", format!("{metrics}{own}"), "helper"),
        ("helper-alone", "wards", classes, "", none, "helper"),
        // Weights stay shared, and are served.
        ("helped", "wards", classes, "shuffle_rows = true\n", publish("helped"), "helper"),
        ("frozen", "wards", frozen, "", format!("{metrics}{}", publish("frozen")), ""),
        ("frozen-shown", "wards", frozen, "", own.into(), "carol"),
        ("pairs", "pairs", pairs, "", format!("{metrics}{}", publish("pairs")), ""),
        ("judged", "pairs", pairs, "", format!("{}answers = [\"label\", \"logits\"]\n", publish("judged")), ""),
        ("triples", "triples", triples, "", format!("weights = \"guest\"\n{}", publish("triples")), ""),
    ];
    let (mut lists, mut views) = (vec![], vec![]);
    for (name, set, network, train, reveal, likelihoods) in configurations {
        let privacy = if likelihoods.is_empty() { "none" } else { likelihoods };
        let text = format!(
            "name = \"{name}\"\n{network}[optimizer]\nname = \"sgd\"\nrate = 0.5\n[train]\nset = \"{set}\"\nrows = 60\n\
             epochs = {EPOCHS}\nbatch = 8\nvalidation = 0.2\n{train}[reveal]\n{reveal}[privacy]\nlikelihoods = {privacy:?}\n"
        );
        let file = at(&format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let explained = strings(&last(&run(&["explain", &file, "--json"]))["reveals"]);

        stage.forget();
        let args = s.with("owner", &["train", &file, "--json"]);
        let training = trefoil(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let training = { training }.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut owner = stage.client("owner");
        eventually("the run is listed", || owner.run_status(name).is_ok_and(|r| r.missing.len() == 2));
        for other in ["client", "guest"] {
            let text = s.run(other, &["agree", name, "--yes"]);
            let nothing = vec!["nothing to anybody".to_owned()];
            assert_eq!(told(&text), if explained.is_empty() { nothing } else { explained.clone() }, "{other}");
        }
        let out = training.wait_with_output().unwrap();
        assert!(out.status.success());
        assert_eq!(strings(&last(&String::from_utf8(out.stdout).unwrap())["reveals"]), explained, "the report");

        let status = owner.run_status(name).unwrap();
        let spec = owner.run_spec(&status).unwrap();
        assert_eq!(status.stage, At::Done);
        probe(&stage, &status, &spec);
        let view = seen(&stage, &status, &spec);
        assert_eq!(listed(&explained), view, "{name}: listed, and seen");
        // Everyone concerned sees the list of what was revealed so far: that is what was.
        let counted: u32 =
            spec.reveals.iter().map(|d| if d.when == trefoil_client::When::AtEnd { 1 } else { EPOCHS }).sum();
        assert_eq!(status.revealed.len(), counted as usize, "{name}");
        lists.push((name, listed(&explained)));
        views.push(view);
    }
    // No other run's list would have passed.
    for (i, (name, list)) in lists.iter().enumerate() {
        assert!(views.iter().enumerate().all(|(j, view)| (list == view) == (i == j)), "{name}");
    }
}

#[test]
fn what_a_prediction_reveals_is_what_explain_says() {
    let stage = Stage::start();
    let s = &stage.servers;
    let digits = s.path("digits").display().to_string();
    run(&["data", "digits", "--count", "6", "--out", &digits]);
    s.settled("owner", &["share", "--yes", "net:D", "--as", "d", "--allow", "client", "--allow", "guest=label"]);
    let judge = ["share", "--yes", "net:D", "--similar-below", "1.9", "--as", "same", "--allow", "client=logits,label"];
    s.settled("owner", &[&judge[..], &["--allow", "guest"]].concat());
    let images = format!("{digits}/images.npy");
    let mut before = [0, 1].map(|i| stage.taps[i].handed_out().len());
    stage.forget();
    for (who, name, reveal, explained) in [
        ("client", "d", "logits", "logits"),
        ("client", "d", "label", "label"),
        ("client", "d", "probabilities", "logits"),
        ("guest", "d", "label", "label"),
        ("client", "same", "logits", "logits"),
        ("client", "same", "label", "label"),
        ("guest", "same", "label", "label"),
    ] {
        let (batch, pair) = if name == "d" { ("6", &[][..]) } else { ("3", &["--similar-below", "1.9"][..]) };
        let explain = ["explain", "net:D", "--batch", batch, "--reveal", explained, "--json"];
        let plan = last(&run(&[&explain[..], pair].concat()));
        let reveals = plan["reveals"].as_array().unwrap();
        assert_eq!((reveals.len(), reveals[0]["recipient"].as_str()), (1, Some("the client")));
        s.run(who, &["predict", "--model", name, &images, "--reveal", reveal]);
        let mut bytes = 0;
        for (tap, before) in stage.taps.iter().zip(&mut before) {
            let all = tap.handed_out();
            let [(to, Request::Predict { model, reveal, .. }, n)] = &all[*before..] else { panic!("one answer") };
            let due = if explained == "label" { Reveal::Label } else { Reveal::Logits };
            assert_eq!((to.as_str(), model.as_str(), *reveal), (who, name, due));
            (*before, bytes) = (all.len(), bytes + n);
        }
        assert_eq!(reveals[0]["bytes"].as_u64(), Some((bytes + 2 * HEADER) as u64), "{who} {reveal}");
    }
    s.fails(
        "guest",
        &["predict", "--model", "d", &images, "--reveal", "logits"],
        "may not ask model d for logits (granted: labels)",
    );
    s.fails("owner", &["predict", "--model", "d", &images], "");
    s.fails(
        "guest",
        &["predict", "--model", "same", &images, "--reveal", "logits"],
        "may not ask model same for logits (granted: labels)",
    );
    s.fails("client", &["predict", "--model", "same", &images, "--reveal", "probabilities"], "ask for label or logits");
    assert_eq!([0, 1].map(|i| stage.taps[i].handed_out().len()), before, "more than was listed");
    assert_eq!(stage.shown(), Default::default(), "a server was shown something");
    // The verdict is what is asked for where nothing else is said, and the distance bears it out.
    let ask =
        |more: &[&str]| last(&s.run("client", &[&["predict", "--model", "same", &images, "--json"], more].concat()));
    let (verdicts, distances) = (ask(&[]), ask(&["--reveal", "logits"]));
    let both = verdicts["predictions"].as_array().unwrap().iter().zip(distances["predictions"].as_array().unwrap());
    assert_eq!((verdicts["reveal"].as_str(), both.len()), (Some("label"), 3));
    let of = |i: usize| verdicts["predictions"][i]["answer"].as_str();
    assert_ne!(of(0), of(1), "pairs of both kinds");
    for (verdict, distance) in both {
        let squared = distance["outputs"][0].as_f64().unwrap();
        let word = if squared < 3.61 { "Similar" } else { "Dissimilar" };
        let label = u64::from(squared < 3.61);
        assert!((squared - 3.61).abs() > 0.05, "a pair at the bound: {squared}");
        assert_eq!((verdict["answer"].as_str(), verdict["label"].as_u64()), (Some(word), Some(label)), "{squared}");
        assert!(verdict["outputs"].is_null() && distance["answer"].as_str().unwrap().starts_with(word));
    }
}
