//! What `explain`, `agree` and the report list as revealed is what the servers hand out and show, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use trefoil_client::{Client, ClientConfig, Reveal, RunSpec, RunStatus, Stage};
use trefoil_link::frame::HEADER;
use trefoil_mpc::program::{Op, Program};
use trefoil_proto::Cluster;
use trefoil_proto::control::{MAX_CONTROL, Opening, Reply, Request, decode, encode, tag};
use trefoil_transport::{Security, connect};

use crate::common::{LIMIT, Servers, eventually, run, trefoil, write_npy};
use crate::tapped::Tap;

const CLIENTS: [&str; 3] = ["owner", "client", "guest"];
const EPOCHS: u32 = 3;

/// A value that somebody is shown: recipient, what (states or model or rows), how many numbers, when.
type Shown = BTreeSet<(String, String, usize, String)>;

/// Servers on plain TCP, behind taps: alice's and bob's clients, and bob's way to alice.
struct Tapped {
    servers: Servers,
    taps: [Tap; 2],
}

impl Tapped {
    fn start() -> Self {
        let mut servers = Servers::prepared(false);
        let text = std::fs::read_to_string(servers.path("cluster.toml")).unwrap();
        let cluster: Cluster = text.parse().unwrap();
        let own = [&cluster.alice, &cluster.bob].map(|p| p.address.as_str().to_owned());
        let taps = [Tap::before(&own[0]), Tap::before(&own[1])];
        let tapped = |text: &str, i: usize| text.replace(&own[i], &taps[i].address);
        std::fs::write(servers.path("for-bob.toml"), tapped(&text, 0)).unwrap();
        std::fs::write(servers.path("for-clients.toml"), tapped(&tapped(&text, 0), 1)).unwrap();
        for (party, config) in [("alice", "cluster.toml"), ("bob", "for-bob.toml"), ("carol", "cluster.toml")] {
            servers.launch_with(party, config);
        }
        servers.clients_use("for-clients.toml");
        Self { servers, taps }
    }

    fn cluster(&self) -> Cluster {
        std::fs::read_to_string(self.servers.path("for-clients.toml")).unwrap().parse().unwrap()
    }

    fn client(&self, name: &str) -> Client {
        Client::connect(ClientConfig::new(self.cluster(), None, name)).unwrap()
    }

    /// What one evaluator replies to a request, whoever makes it.
    fn ask(&self, address: &str, name: &str, requests: &[Request]) -> Vec<Reply> {
        let mut link = connect(address, "evaluator", &Security::Plain, LIMIT).unwrap().link;
        link.set_timeout(Some(LIMIT));
        link.send(tag::OPENING, &[&encode(&Opening::Client { name: name.into() })]).unwrap();
        let one = |r: &Request| {
            link.send(tag::REQUEST, &[&encode(r)]).unwrap();
            let reply = decode("reply", &link.recv_any(tag::REPLY, MAX_CONTROL).unwrap()).unwrap();
            if matches!(reply, Reply::Answer(_)) {
                link.recv_any(tag::ANSWER, MAX_CONTROL).unwrap();
            }
            reply
        };
        requests.iter().map(one).collect()
    }
}

/// What a list says, line by line.
fn listed(lines: &[String]) -> Shown {
    let mut all = Shown::new();
    for line in lines {
        let rest = line.strip_prefix("to ").unwrap();
        let add = |all: &mut Shown, to: &str, what: &str, size, when: &str| {
            assert!(all.insert((to.into(), what.into(), size, when.into())), "listed twice: {line}");
        };
        if let Some((to, rows)) = rest.split_once(" (the server): every ") {
            let (rows, when) = rows.split_once(" row's class likelihoods, ").unwrap();
            add(&mut all, to, rows, 0, when);
        } else if let Some((to, what)) = rest.split_once(", on request: ") {
            let (kind, model) = what.split_once(" of the trained model, served as ").unwrap();
            add(&mut all, to, &format!("{kind} of {model}"), 0, "on request");
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

/// The likelihoods that a program shows: its step, and the length of the message.
fn shows(program: &Program, batch: u32) -> Option<(u32, usize)> {
    let (at, op) = program.steps.iter().enumerate().find(|(_, s)| matches!(s.op, Op::Likelihoods { .. }))?;
    let Op::Likelihoods { x, shift, .. } = op.op else { return None };
    let n = program.infer().unwrap()[x].count(batch as usize);
    Some((at as u32, (n * (64 - shift as usize)).div_ceil(8)))
}

/// What the taps have seen of a run: the same from both evaluators.
fn seen(stage: &Tapped, status: &RunStatus, spec: &RunSpec, before: &[(u32, usize)]) -> Shown {
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
                    let kind = if reveal == Reveal::Label { "labels" } else { "answers" };
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
            let Some(Op::Reveal { shift, .. }) = program.steps.last().map(|s| &s.op) else { panic!("no reveal") };
            let when = if epochs == (0..EPOCHS).collect() { "after each epoch" } else { "at the end" };
            assert!(when == "after each epoch" || epochs == BTreeSet::from([EPOCHS]), "{epochs:?}");
            let numbers = 8 * bytes / (64 - *shift as usize);
            all.insert((to, states.into_iter().collect::<Vec<_>>().join(", "), numbers, when.into()));
        }
        all
    };
    let [mut all, bobs] = [of(&stage.taps[0]), of(&stage.taps[1])];
    assert_eq!(all, bobs, "alice and bob hand out different things");
    // What bob shows alice in the steps of the run.
    let mut one_way = stage.taps[0].one_way("bob");
    for known in before {
        one_way.remove(one_way.iter().position(|o| o == known).unwrap());
    }
    let check = spec.check.as_ref().unwrap();
    let steps = [
        ("training", shows(&spec.step, spec.batch), spec.steps()),
        ("validation", shows(&check.program, check.batch), check.rows.rows() / check.batch),
    ];
    let mut known = 0;
    for (rows, shown, times) in steps {
        let Some((at, bytes)) = shown else { continue };
        let count = one_way.iter().filter(|(t, n)| (t >> 12, *n) == (at, bytes)).count();
        if count > 0 {
            assert_eq!(count, (EPOCHS * times) as usize, "{rows} rows");
            all.insert(("alice".into(), rows.into(), 0, "each time it is used".into()));
        }
        known += count;
    }
    assert_eq!(known, one_way.len(), "shown to alice besides: {one_way:?}");
    all
}

/// Every client asks both evaluators for everything that there might be.
fn probe(stage: &Tapped, status: &RunStatus, spec: &RunSpec) {
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
    let stage = Tapped::start();
    let s = &stage.servers;
    let at = |n: &str| s.path(n).display().to_string();
    let set = "name = \"wards\"\nrows = 60\n[[column]]\nname = \"x\"\nwidth = 4\nrange = \"-1..1\"\n\
               [[column]]\nname = \"y\"\nclasses = 3\n\
               [[part]]\nowner = \"client\"\ncolumn = \"x\"\n[[part]]\nowner = \"guest\"\ncolumn = \"y\"\n";
    std::fs::write(s.path("set.toml"), set).unwrap();
    let x: Vec<f32> = (0..240).map(|i| (i * 37 % 41) as f32 / 20.5 - 1.0).collect();
    write_npy(&s.path("x.npy"), &[60, 4], &x);
    let labels: String = (0..60).map(|i| format!("{}\n", i * 7 % 3)).collect();
    std::fs::write(s.path("y.csv"), labels).unwrap();
    s.settled("owner", &["data", "declare", &at("set.toml")]);
    s.settled("client", &["data", "contribute", "wards", "--part", "0", "--input", &at("x.npy")]);
    s.settled("guest", &["data", "contribute", "wards", "--part", "1", "--labels", "--input", &at("y.csv")]);

    let metrics = "metrics = \"coordinator\"\n";
    let configurations = [
        ("nothing", String::new(), ""),
        ("metrics", metrics.into(), ""),
        ("own", "weights = \"owner\"\n".into(), ""),
        ("others", format!("{metrics}weights = \"guest\"\n"), ""),
        ("served", "publish = \"served\"\n".into(), ""),
        ("labelled", "publish = \"labelled\"\nanswers = \"label\"\n".into(), ""),
        ("likely", metrics.into(), "[privacy]\nlikelihoods = \"alice\"\n"),
        ("shuffled", "weights = \"client\"\npublish = \"shuffled\"\n".into(), "shuffle_rows = true\n"),
        ("all", format!("{metrics}weights = \"owner\"\npublish = \"all\"\n"), "[privacy]\nlikelihoods = \"alice\"\n"),
    ];
    let (mut lists, mut views) = (vec![], vec![]);
    for (name, reveal, more) in configurations {
        let (shuffle, privacy) = if more.starts_with('[') { ("", more) } else { (more, "") };
        let text = format!(
            "name = \"{name}\"\n[model]\ninput = [4]\nlayers = [{{ dense = 3, activation = \"softmax\" }}]\n\
             [loss]\nname = \"cross-entropy\"\n[optimizer]\nname = \"sgd\"\nrate = 0.5\n[train]\nset = \"wards\"\n\
             rows = 60\nepochs = {EPOCHS}\nbatch = 8\nvalidation = 0.2\n{shuffle}[reveal]\n{reveal}{privacy}"
        );
        let file = at(&format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let explained = strings(&last(&run(&["explain", &file, "--json"]))["reveals"]);

        let before = stage.taps[0].one_way("bob");
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
        assert_eq!(status.stage, Stage::Done);
        probe(&stage, &status, &spec);
        let view = seen(&stage, &status, &spec, &before);
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
    let stage = Tapped::start();
    let s = &stage.servers;
    let digits = s.path("digits").display().to_string();
    run(&["data", "digits", "--count", "6", "--out", &digits]);
    s.settled("owner", &["share", "--yes", "net:D", "--as", "d", "--allow", "client", "--allow", "guest=label"]);
    let judge = ["share", "--yes", "net:D", "--similar-below", "1.9", "--as", "same", "--allow", "client=logits,label"];
    s.settled("owner", &[&judge[..], &["--allow", "guest"]].concat());
    let images = format!("{digits}/images.npy");
    let mut before = [0, 1].map(|i| stage.taps[i].handed_out().len());
    let shown_before = stage.taps[0].one_way("bob").len();
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
    assert_eq!(stage.taps[0].one_way("bob").len(), shown_before, "alice was shown something");
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
