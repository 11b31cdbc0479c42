//! Data sets while servers die, on hostile frames, and as each evaluator holds them.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use cluster::wire::Wire;
use cluster::{LIMIT, PATIENT, Processes, Trial, eventually, party, within};
use rustix::process::Signal;
use trefoil_client::{Block, Content, Contribution, Declaration, InputEncoding, Part};
use trefoil_prg::Party;
use trefoil_proto::Transport;
use trefoil_proto::control::{Refusal, Reply, Request, SecretSeed, tag};
use trefoil_proto::dataset::pieces;
use trefoil_testkit::uniform::{Place, Report, Samples};

const WIDTH: u32 = 60_000;

#[test]
#[ignore = "the body of the other tests' servers"]
fn party_process() {
    party::run();
}

/// One part of several pieces.
fn declaration(rows: u32) -> Declaration {
    let values = InputEncoding { scale: 1.0, offset: 0.0, low: -1.0, high: 1.0 };
    Declaration {
        name: "set".into(),
        rows,
        fraction_bits: 16,
        metric_rows: 10,
        blocks: vec![Block { name: "x".into(), width: WIDTH, content: Content::Values(values) }],
        parts: vec![Part { owner: "ann".into(), block: 0, first: 0, end: rows }],
    }
}

/// Files of data sets in a party's store: kept ones, staged ones and pieces.
fn files(p: &Processes, party: Party) -> [usize; 3] {
    let names = std::fs::read_dir(p.trial.store(party).join("sets")).unwrap();
    let names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    ["sealed", "staged", "pieces"].map(|ending| names.iter().filter(|n| n.ends_with(ending)).count())
}

const NOTHING: [[usize; 3]; 3] = [[1, 0, 0], [1, 0, 0], [1, 0, 0]];
const WHOLE: [[usize; 3]; 3] = [[2, 0, 0], [2, 0, 1], [2, 0, 0]];

/// A party dies at a point of an upload: afterwards all hold the whole part or nothing of it, and it can be sent again.
fn dies_in_a_part(dead: Party, points: &[&str]) {
    let values = vec![0.25; 40 * WIDTH as usize];
    for point in points {
        let mut p = Processes::start(Transport::Tls, "lanes = 2", PATIENT);
        p.client("owner").declare(&declaration(40)).unwrap();
        let set = p.client("ann").set("set").unwrap();
        let before = p.sessions();
        p.kill(dead);
        p.launch(dead, Some(&format!("{point}:{}", if *point == "piece" { 2 } else { 1 })));
        p.met(before);
        let mut ann = p.client("ann");
        let sent = within(point, || ann.contribute(&set, 0, Contribution::Values(&values)));
        assert!(sent.is_err(), "{dead} died at {point}");
        assert_eq!(p.ended(dead).signal(), Some(Signal::ABORT.as_raw()), "{dead} at {point}");
        p.launch(dead, None);
        let held = |p: &Processes| Party::ALL.map(|party| files(p, party));
        let mut ann = p.client("ann");
        eventually(&format!("all hold the part or nothing, after {dead} at {point}: {:?}", held(&p)), || {
            [NOTHING, WHOLE].contains(&held(&p))
        });
        let all = held(&p) == WHOLE;
        // What alice committed is there; what she did not is not.
        assert_eq!(all, *point == "committed", "{dead} at {point}");
        let until = Instant::now() + LIMIT;
        while !all && let Err(e) = ann.contribute(&set, 0, Contribution::Values(&values)) {
            let again = e.is_unavailable() || e.to_string().contains("busy");
            assert!(again && Instant::now() < until, "{dead} at {point}: {e}");
            std::thread::sleep(Duration::from_millis(100));
        }
        eventually("the whole part is there", || held(&p) == WHOLE);
        eventually("it is listed", || ann.set("set").is_ok_and(|s| s.is_complete()));
    }
}

#[test]
fn alice_dies_in_a_part() {
    dies_in_a_part(Party::Alice, &["staged", "committed"]);
}

#[test]
fn bob_dies_in_a_part() {
    dies_in_a_part(Party::Bob, &["piece", "staged", "committed"]);
}

#[test]
fn carol_dies_in_a_part() {
    dies_in_a_part(Party::Carol, &["staged", "committed"]);
}

/// An owner that hangs up, or sends what is none of its pieces, leaves nothing, and the part can still come.
#[test]
fn hostile_pieces_leave_nothing() {
    let p = Processes::start(Transport::Tcp, "lanes = 1", PATIENT);
    p.client("owner").declare(&declaration(40)).unwrap();
    let set = p.client("ann").set("set").unwrap();
    let bob = p.trial.cluster.party(Party::Bob).address.as_str().to_owned();
    let seed = |n: usize| SecretSeed::from(vec![7; n]);
    let request = |id: u8, part, seed| Request::Contribute {
        id: [id; 16],
        set: set.epoch,
        declaration: set.declaration.hash(),
        part,
        seed,
    };
    let begun = |id| {
        let mut wire = Wire::client(&bob, "ann");
        wire.message(tag::REQUEST, &request(id, 0, seed(0)));
        assert_eq!(wire.reply(), Reply::Ready);
        wire
    };
    let length = 8 * WIDTH as usize * pieces(40, WIDTH as usize).next().unwrap();
    drop(begun(1));
    let mut short = begun(2);
    short.frame(tag::SHARES, &vec![1; length]);
    short.finish();
    let mut long = begun(3);
    long.frame(tag::SHARES, &vec![1; length + 8]);
    long.hangs_up("a piece too long");
    let mut other = begun(4);
    other.frame(tag::REQUEST, &[1; 8]);
    other.hangs_up("another frame");
    let mut giant = begun(5);
    giant.bytes(&trefoil_link::frame::encode(tag::SHARES, 1 << 30));
    giant.hangs_up("a piece of 1 GiB");
    drop(short);
    eventually("nothing stays", || files(&p, Party::Bob) == [1, 0, 0]);
    let alice = p.trial.cluster.party(Party::Alice).address.as_str().to_owned();
    let refusal = |name: &str, r: &Request| Wire::client(&alice, name).refusal(r);
    assert_eq!(refusal("bert", &request(6, 0, seed(32))).0, Refusal::UnknownSet);
    assert_eq!(refusal("ann", &request(6, 1, seed(32))).0, Refusal::Invalid);
    assert_eq!(refusal("ann", &request(6, u32::MAX, seed(32))).0, Refusal::Invalid);
    assert_eq!(refusal("ann", &request(6, 0, seed(31))).0, Refusal::Invalid);
    assert_eq!(refusal("ann", &request(6, 0, seed(32))), {
        (Refusal::Unavailable, "bob has not received his half of the part".into())
    });
    let mut endless = declaration(40);
    endless.rows = u32::MAX;
    endless.parts[0].end = u32::MAX;
    let (why, reason) = refusal("owner", &Request::Declare { declaration: Box::new(endless) });
    assert!(why == Refusal::Invalid && reason.contains("elements"), "{reason}");
    p.client("ann").contribute(&set, 0, Contribution::Values(&vec![0.5; 40 * WIDTH as usize])).unwrap();
}

/// What each evaluator holds of a contributed part says nothing of the values: word by word, pair by pair, and for two
/// inputs alike.
#[test]
fn each_evaluators_share_is_uniform() {
    const WORDS: usize = 12;
    let trial = Trial::start(Transport::Tcp, "lanes = 1");
    let [mut owner, mut ann] = ["owner", "ann"].map(|n| trial.client(n));
    let mut small = declaration(3);
    small.blocks[0].width = WORDS as u32 / 3;
    let places: Vec<Place> = (0..WORDS).map(|i| Place { name: format!("word {i}"), width: 64 }).collect();
    let evaluators = [Party::Alice, Party::Bob];
    let mut views = evaluators.map(|_| Samples::new(places.clone()));
    let mut clear = Samples::new(places);
    for session in 0..128 {
        let group = session % 2;
        let values = [[0.0; WORDS], [-0.75; WORDS]][group as usize];
        owner.declare(&small).unwrap();
        let set = ann.set("set").unwrap();
        ann.contribute(&set, 0, Contribution::Values(&values)).unwrap();
        let shares = evaluators.map(|p| trial.servers[&p].data_set("set").unwrap().words);
        let sum = shares[0].iter().zip(shares[1].iter()).map(|(a, b)| a.wrapping_add(*b) as i64);
        assert!(sum.zip(values).all(|(got, v)| got == (v * 65536.0) as i64));
        clear.push(group, &values.map(|v| (v * 65536.0) as i64 as u64));
        views.iter_mut().zip(&shares).for_each(|(view, share)| view.push(group, share));
        owner.remove_set("set").unwrap();
    }
    let mut report = Report::default();
    for view in &views {
        report.add(view.singles(1e-7));
        report.add(view.pairs(1e-7));
        for group in view.by_group() {
            report.add(group.singles(1e-7));
        }
    }
    let named: Vec<String> = report.findings.iter().take(5).map(ToString::to_string).collect();
    assert!(named.is_empty() && report.tests > 0, "{} findings: {named:#?}", report.findings.len());
    assert!(report.alarm < 1e-5);
    assert!(!clear.singles(1e-7).findings.is_empty(), "clear values are found");
}
