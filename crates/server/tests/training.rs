//! Training runs on three servers: agreed to, computed, revealed as listed, stopped, published, refused.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Trial, eventually, training};
use training::{
    FEATURES, TRUTH, agree, close, contribute, finished, ideal, initial, initial_with_features, on_features,
    publication, shown, spec,
};
use trefoil_client::{Client, ClientError, Order, Reveal, RowRange, RunSpec, Stage};
use trefoil_link::LinkError;
use trefoil_mpc::cost::{StepCost, cost, opening_rows, opening_weights};
use trefoil_mpc::program::{Op, Shown, Step};
use trefoil_prg::Party;
use trefoil_proto::control::{Opening, encode, tag};
use trefoil_proto::{Identity, Transport};
use trefoil_transport::{Security, Tls, connect};

fn clients(trial: &Trial) -> [Client; 3] {
    ["owner", "ann", "bert"].map(|n| trial.client(n))
}

fn said<T: std::fmt::Debug>(outcome: Result<T, ClientError>, what: &str) {
    let e = outcome.unwrap_err().to_string();
    assert!(e.contains(what), "{what:?} not in {e:?}");
}

#[test]
fn two_owners_train_a_regression_that_ends_as_in_the_clear() {
    let trial = Trial::start(Transport::Tls, "lanes = 2");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let spec = spec(&mut owner, "prices", 6);
    owner.train(&spec, &initial()).unwrap();
    let waits = owner.run_status("prices").unwrap();
    assert_eq!((waits.stage, &waits.missing[..]), (Stage::Waiting, &["ann".to_owned(), "bert".to_owned()][..]));
    agree(&mut [&mut ann, &mut bert], "prices");
    let status = finished(&mut owner, "prices");
    assert_eq!((status.note.as_str(), status.alice.steps, status.bob.steps), ("all epochs done", 30, 30));
    let want = ideal(&spec, 6);
    close(&shown(&mut owner, "prices", 1)[0], &want.weights, 40);
    close(&shown(&mut ann, "prices", 0).concat(), &want.losses, 400);
    close(&shown(&mut owner, "prices", 2).concat(), &want.validation, 400);
    assert!(want.losses.windows(2).all(|w| w[1] < w[0] * 4 / 5), "{:?}", want.losses);
    // Each is shown what is listed for it, and nothing else.
    assert!(shown(&mut ann, "prices", 1).is_empty() && shown(&mut bert, "prices", 0).is_empty());
    assert!(status.revealed.len() == 13, "everyone concerned knows of all that was revealed");
    let r = status.revealed[0];
    assert_eq!(r.index, 0);
    said(bert.revealed(&spec, &status, r), "is not for bert");
    let (a, b) = (status.alice, status.bob);
    assert!(a.rounds == b.rounds && a.online_bytes == b.online_bytes && b.offline_bytes > 0 && a.rounds % 30 == 0);
    owner.drop_run("prices").unwrap();
    for p in Party::ALL {
        assert_eq!(std::fs::read_dir(trial.store(p).join("runs")).unwrap().count(), 0, "{p}");
    }
}

#[test]
fn features_are_made_once_and_cost_what_was_predicted() {
    let trial = Trial::start(Transport::Tcp, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let run = on_features(spec(&mut owner, "prices", 6), 7);
    let mut trained = run.clone();
    trained.extraction.as_mut().unwrap().weights = vec![0];
    said(owner.train(&trained, &initial_with_features()), "weight mix of the extraction: shape [4, 4] at scale 16");
    owner.train(&run, &initial_with_features()).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
    let status = finished(&mut owner, "prices");
    let want = ideal(&run, 6);
    close(&shown(&mut owner, "prices", 1)[0], &want.weights, 40);
    close(&shown(&mut owner, "prices", 2).concat(), &want.validation, 400);
    assert_ne!(want.weights, ideal(&spec(&mut owner, "prices", 6), 6).weights, "features are other numbers");
    let program = &run.extraction.as_ref().unwrap().program;
    let mut due = opening_weights(program);
    for rows in [7, 7, 7, 7, 7, 7, 6] {
        cost(program, rows).unwrap().iter().for_each(|c| due.add(c));
        due.add(&opening_rows(rows * (FEATURES + 1)));
    }
    for party in [&status.alice, &status.bob] {
        let e = party.extracted;
        assert_eq!((e.rows, e.rounds, e.online_bytes), (48, due.rounds, due.online));
        assert_eq!((party.steps, party.rounds % 30), (30, 0));
    }
    assert_eq!(status.bob.extracted.offline_bytes, due.offline);
}

#[test]
fn features_of_shuffled_rows_are_made_anew_after_a_restart() {
    let mut trial = Trial::start(Transport::Tcp, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let mut run = on_features(spec(&mut owner, "prices", 400), 16);
    (run.order, run.shuffle) = (Order::Drawn, true);
    owner.train(&run, &initial_with_features()).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
    eventually("some epochs are over", || ann.run_status("prices").unwrap().at.epoch > 5);
    drop((owner, ann, bert));
    trial.stop(Party::Carol);
    trial.launch(Party::Carol);
    trial.wait();
    let [mut owner, mut ann, _] = clients(&trial);
    let status = finished(&mut owner, "prices");
    assert_eq!((status.alice.extracted.rows, status.alice.resumed), (96, 1));
    let losses = shown(&mut ann, "prices", 0).concat();
    assert!(losses[losses.len() - 1] * 50 < losses[0], "{losses:?}");
}

#[test]
fn a_drawn_order_a_stop_and_a_model_that_is_served_without_being_put_together() {
    let mut trial = Trial::start(Transport::Tls, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let mut spec = spec(&mut owner, "prices", 100_000);
    spec.coordinator = "ann".into();
    (spec.order, spec.publish) = (Order::Drawn, Some(publication("prices")));
    spec.shuffle = true;
    spec.reveals.truncate(1);
    spec.step = training::step_with_dropout();
    // More than may be revealed in all.
    said(owner.train(&spec, &initial()), "values revealed: 100000");
    spec.epochs = 9_000;
    owner.train(&spec, &initial()).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
    eventually("some epochs are over", || ann.run_status("prices").unwrap().at.epoch > 12);
    // Everyone goes and comes back; the run goes on by itself.
    drop((owner, ann, bert));
    Party::ALL.iter().for_each(|p| trial.stop(*p));
    Party::ALL.iter().for_each(|p| trial.launch(*p));
    trial.wait();
    let [mut owner, mut ann, mut bert] = clients(&trial);
    let before = ann.run_status("prices").unwrap();
    eventually("it goes on", || ann.run_status("prices").unwrap().done > before.done.max(150));
    said(bert.stop("prices"), "only owner (owner) or ann (coordinator) may stop this run");
    ann.stop("prices").unwrap();
    let status = finished(&mut ann, "prices");
    assert_eq!((status.note.as_str(), status.stopped, status.alice.resumed), ("stopped early", true, 1));
    assert_eq!(shown(&mut ann, "prices", 0).len(), status.at.epoch as usize);
    let losses = shown(&mut ann, "prices", 0).concat();
    assert!(losses[losses.len() - 1] * 50 < losses[0], "{losses:?}");
    assert!(shown(&mut owner, "prices", 1).is_empty());
    // The model answers, for whom the run's owner said.
    let model = bert.model("prices").unwrap();
    assert_eq!(model.owner, "owner");
    let x: Vec<f32> = (0..2 * FEATURES).map(|i| i as f32 / 8.0 - 0.5).collect();
    let answers = bert.predict(&model, Reveal::Logits, &x, 2).unwrap().logits.unwrap();
    for (row, answer) in x.chunks(FEATURES).zip(answers) {
        let want: f32 = row.iter().zip(TRUTH).map(|(a, t)| a * t as f32).sum();
        assert!((want - answer).abs() < 0.05, "{answer}, should be {want}");
    }
    // A run does not take an older model for its own.
    let again = RunSpec { name: "again".into(), ..spec };
    said(owner.train(&again, &initial()), "a model named prices exists: remove it first");
    for p in [Party::Alice, Party::Bob] {
        let kept: Vec<_> = std::fs::read_dir(trial.store(p).join("runs")).unwrap().map(|e| e.unwrap().path()).collect();
        let folder = kept.iter().find(|p| p.is_dir()).unwrap();
        let checkpoints = std::fs::read_dir(folder).unwrap();
        let left = checkpoints.filter(|e| e.as_ref().unwrap().path().display().to_string().contains("checkpoint"));
        assert_eq!(left.count(), 0, "{p} keeps states of a run that is over");
    }
}

#[test]
fn two_runs_go_on_at_once_beside_predictions() {
    let trial = Trial::start(Transport::Tcp, "lanes = 3");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let graph = common::network(1);
    let compiled = common::compiled(&graph);
    owner.share(&common::manifest("m", &compiled, vec![]), &compiled.weights).unwrap();
    let model = ann.model("m").unwrap();
    for name in ["one", "two"] {
        let spec = spec(&mut owner, name, 2000);
        owner.train(&spec, &initial()).unwrap();
        said(owner.train(&spec, &initial()), "drop it first");
    }
    for name in ["one", "two"] {
        agree(&mut [&mut ann, &mut bert], name);
    }
    let mut seed = 0;
    eventually("both go on", || {
        common::check(&mut ann, &model, &graph, 2, seed);
        seed += 1;
        let runs = ann.runs().unwrap();
        assert!(runs.iter().all(|r| r.stage != Stage::Done), "one after the other");
        runs.iter().all(|r| r.done > 0)
    });
    for name in ["one", "two"] {
        owner.stop(name).unwrap();
        let over = finished(&mut owner, name);
        let want = ideal(&spec(&mut owner, name, 2000), over.at.epoch);
        close(&shown(&mut owner, name, 1)[0], &want.weights, 200);
    }
}

#[test]
fn what_makes_no_sense_or_was_not_agreed_to_is_refused() {
    let mut trial = Trial::start(Transport::Tls, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let good = spec(&mut owner, "prices", 2);
    let mut refused = |change: &dyn Fn(&mut RunSpec), what: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        said(owner.train(&bad, &initial()), what);
    };
    refused(&|s| s.set += 1, "no data set of number");
    refused(&|s| s.declaration = [0; 32], "not the one that this run is for");
    refused(&|s| s.owner = "ann".into(), "the run's owner is ann, not owner");
    refused(&|s| s.reveals[0].recipient = "eve".into(), "no client \"eve\"");
    refused(&|s| s.training = RowRange { first: 0, end: 49 }, "training rows 0..49 of a set of 48");
    refused(&|s| s.batch = 41, "rows of a batch of a step: 41");
    refused(&|s| s.rates.extend([vec![1], vec![1]]), "3 lists");
    refused(&|s| s.metrics.push(5), "metric 5 is none of the 5 states");
    refused(&|s| s.metrics.clear(), "stores state 2, which is no metric");
    refused(&|s| s.reveals[0].program = s.check.as_ref().unwrap().program.clone(), "reveals nothing");
    refused(&|s| s.check.as_mut().unwrap().program = training::reveal(1), "the check: reveals something");
    // Weights are no likelihoods: a value to be revealed cannot show them to a server on its way.
    let shown = |s: &mut RunSpec| {
        let program = &mut s.reveals[1].program;
        let shift = program.states[0].scale.saturating_sub(16);
        let ops = [
            Op::Reshape { x: 1, shape: vec![FEATURES] },
            Op::Broadcast { x: 2, shape: vec![FEATURES], batch: true },
            Op::Likelihoods { x: 3, shift, shown: Shown::Alice },
        ];
        for (at, op) in (2..).zip(ops) {
            program.steps.insert(at, Step { layer: "leak".into(), op });
        }
    };
    refused(&shown, "shows likelihoods to a server");
    let shown_at_last = |s: &mut RunSpec| {
        let mut publish = publication("prices");
        let program = publish.finish.as_mut().unwrap();
        let ops = [
            Op::Reshape { x: 1, shape: vec![FEATURES] },
            Op::Broadcast { x: 6, shape: vec![FEATURES], batch: true },
            Op::Likelihoods { x: 7, shift: 0, shown: Shown::Alice },
        ];
        program.steps.extend(ops.map(|op| Step { layer: "leak".into(), op }));
        s.publish = Some(publish);
    };
    refused(&shown_at_last, "the published model's weights: shows likelihoods to a server");
    refused(&|s| s.step = training::step_showing(Shown::Helper), "the cluster file has no [helper]");
    let overlapping = |s: &mut RunSpec| {
        s.shuffle = true;
        s.check.as_mut().unwrap().rows = RowRange { first: 36, end: 44 };
    };
    refused(&overlapping, "validation rows 36..44 are in part training rows, which are shuffled");
    let mut other = good.clone();
    other.epochs = 3;
    other.order = Order::Fixed(training::order(1));
    owner.train(&good, &initial()).unwrap();
    let status = ann.run_status("prices").unwrap();
    said(ann.agree(&status, &other), "not the one that the client read");
    agree(&mut [&mut ann], "prices");
    std::thread::sleep(std::time::Duration::from_millis(700));
    let status = owner.run_status("prices").unwrap();
    assert_eq!((status.stage, status.missing, status.done), (Stage::Waiting, vec!["bert".to_owned()], 0));
    // Owners see the run before it begins; the owner may drop it.
    let status = bert.run_status("prices").unwrap();
    assert_eq!(bert.run_spec(&status).unwrap(), good);
    said(bert.drop_run("prices"), "may remove this run");
    // A removal that broke off once bob had forgotten the run can be tried again.
    drop((owner, ann, bert));
    trial.stop(Party::Bob);
    std::fs::remove_dir_all(trial.store(Party::Bob).join("runs")).unwrap();
    trial.launch(Party::Bob);
    trial.wait();
    let [mut owner, mut ann, _] = clients(&trial);
    said(owner.run_status("prices"), "which bob does not list");
    owner.drop_run("prices").unwrap();
    said(ann.run_status("prices"), "no run \"prices\"");
}

#[test]
fn likelihoods_that_one_server_computes_are_those_of_the_ideal() {
    let servers = [
        (Transport::Tls, Shown::Carol),
        (Transport::Tcp, Shown::Alice),
        (Transport::Tls, Shown::Helper),
        (Transport::Tcp, Shown::Helper),
    ];
    for (transport, to) in servers {
        let trial = Trial::with_helper(transport, "lanes = 2");
        let [mut owner, mut ann, mut bert] = clients(&trial);
        contribute(&mut owner, &mut ann, &mut bert);
        let mut run = spec(&mut owner, "prices", 12);
        run.step = training::step_showing(to);
        owner.train(&run, &initial()).unwrap();
        agree(&mut [&mut ann, &mut bert], "prices");
        let last = finished(&mut owner, "prices");
        let want = ideal(&run, 12);
        close(&shown(&mut owner, "prices", 1)[0], &want.weights, 40);
        close(&shown(&mut ann, "prices", 0).concat(), &want.losses, 2000);
        // What was metered is what was predicted, at bob: he hears the answer.
        let steps = u64::from(run.steps()) * 12;
        let mut due = StepCost::default();
        cost(&run.step, run.batch as usize).unwrap().iter().for_each(|c| due.add(c));
        let got = (last.bob.rounds, last.bob.online_bytes, last.bob.offline_bytes);
        assert_eq!(got, (steps * due.rounds, steps * due.online, steps * due.offline), "{to:?}");
    }
}

#[test]
fn a_run_waits_for_its_helper_and_goes_on_when_it_is_back() {
    let mut trial = Trial::with_helper(Transport::Tls, "lanes = 1");
    let [mut owner, mut ann, mut bert] = clients(&trial);
    contribute(&mut owner, &mut ann, &mut bert);
    let epochs = 200;
    let mut run = spec(&mut owner, "prices", epochs);
    run.step = training::step_showing(Shown::Helper);
    trial.helper = None;
    owner.train(&run, &initial()).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
    for _ in 0..2 {
        let mut reason = String::new();
        eventually("the run says what it waits for", || {
            reason = owner.run_status("prices").map_or_else(|e| e.to_string(), |s| s.note);
            reason.contains("helper")
        });
        let stands = owner.run_status("prices").unwrap();
        assert!(stands.stage == Stage::Running && stands.done < run.all_steps(), "{stands:?}");
        trial.launch_helper();
        eventually("it goes on", || owner.run_status("prices").is_ok_and(|s| s.done > stands.done + 20));
        trial.helper = None;
    }
    trial.launch_helper();
    finished(&mut owner, "prices");
    let want = ideal(&run, epochs);
    close(&shown(&mut owner, "prices", 1)[0], &want.weights, 200);
    let losses = shown(&mut ann, "prices", 0);
    assert_eq!(losses.len(), epochs as usize, "each epoch's loss is shown once");
    close(&losses.concat(), &want.losses, 4000);
}

#[test]
fn the_helper_hears_the_evaluators_alone() {
    let trial = Trial::with_helper(Transport::Tls, "lanes = 1");
    let address = trial.cluster.helper.as_ref().unwrap().address.as_str();
    let call = |name: &str, opening: &Opening| {
        let identity = Identity::load(trial.dir.path(), name).unwrap();
        let security = Security::Tls(Tls::new(&identity, trial.cluster.trusted()).unwrap());
        let limit = Duration::from_secs(5);
        // Under TLS 1.3 a caller hears of its certificate's refusal when it reads.
        let Ok(mut connection) = connect(address, "helper", &security, limit) else { return true };
        connection.link.set_timeout(Some(Duration::from_millis(500)));
        let said = connection.link.send(tag::OPENING, &[&encode(opening)]);
        said.is_err()
            || matches!(connection.link.recv(1, &mut [0; 8]), Err(e) if !matches!(e, LinkError::Timeout { .. }))
    };
    let lane = |party: &str, lane| Opening::Lane { party: party.into(), lane };
    for (name, opening) in [
        ("carol", lane("carol", 0)),
        ("carol", lane("alice", 0)),
        ("bob", lane("alice", 0)),
        ("alice", lane("alice", 1)),
        ("alice", Opening::Client { name: "alice".into() }),
        ("owner", Opening::Client { name: "owner".into() }),
        ("owner", lane("bob", 0)),
    ] {
        assert!(call(name, &opening), "{name} was heard as {opening:?}");
    }
    assert!(!call("alice", &lane("alice", 0)), "alice was not heard");
}
