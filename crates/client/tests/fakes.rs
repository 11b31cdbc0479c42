//! The client against evaluators that answer, refuse, lie, vanish or disagree.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use trefoil_client::{
    Client, ClientConfig, ClientError, InputEncoding, Manifest, ModelInfo, Refusal, Reveal, RunReport,
};
use trefoil_link::Link;
use trefoil_mpc::masked::input::alice_share;
use trefoil_mpc::program::{Op, Program, Step, Window};
use trefoil_nn::graph::Post;
use trefoil_prg::Seed;
use trefoil_proto::Cluster;
use trefoil_proto::control::{Grant, Opening, Reply, Request, decode, encode, tag};
use trefoil_transport::{Listener, Security};

const SIZE: usize = 3;
const LIMIT: usize = 1 << 20;
/// What has not happened after this will not: far more than a loaded machine needs.
const LONG: Duration = Duration::from_secs(300);

/// What a fake does with a request.
enum Act {
    Reply(Reply),
    Answer(Vec<u8>),
    Garbage,
    Hang,
    Close,
    Die,
}

type Script = dyn Fn(usize, &Request, &[u8]) -> Act + Send + Sync;

/// A fake evaluator that follows a script; the number counts its requests. Gives its address.
fn fake(script: impl Fn(usize, &Request, &[u8]) -> Act + Send + Sync + 'static) -> String {
    let script: Arc<Script> = Arc::new(script);
    let listener = Listener::bind("127.0.0.1:0", &Security::Plain).unwrap();
    let address = listener.address().to_string();
    let (count, dead) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    thread::spawn(move || {
        while !dead.load(Ordering::SeqCst) {
            let Some(incoming) = listener.accept(Duration::from_millis(5)).unwrap() else { continue };
            let (script, count, dead) = (script.clone(), count.clone(), dead.clone());
            thread::spawn(move || {
                let connection = incoming.handshake(&Security::Plain, LONG).unwrap();
                serve(connection.link, &*script, &count, &dead);
            });
        }
    });
    address
}

fn serve(mut link: Box<dyn Link>, script: &Script, count: &AtomicUsize, dead: &AtomicBool) {
    let opening: Opening = decode("opening", &link.recv_any(tag::OPENING, LIMIT).unwrap()).unwrap();
    assert_eq!(opening, Opening::Client { name: "ann".into() });
    while let Ok(bytes) = link.recv_any(tag::REQUEST, LIMIT) {
        let request: Request = decode("request", &bytes).unwrap();
        let to_bob = matches!(&request, Request::Predict { seed, .. } if seed.expose().is_empty());
        let share = if to_bob { link.recv_any(tag::SHARES, LIMIT).unwrap() } else { Vec::new() };
        match script(count.fetch_add(1, Ordering::SeqCst), &request, &share) {
            Act::Reply(reply) => link.send(tag::REPLY, &[&encode(&reply)]).unwrap(),
            Act::Answer(payload) => {
                let report = RunReport { lot: 7, ..RunReport::default() };
                link.send(tag::REPLY, &[&encode(&Reply::Answer(Box::new(report)))]).unwrap();
                link.send(tag::ANSWER, &[&payload]).unwrap();
            }
            Act::Garbage => link.send(tag::REPLY, &[&[99; 40]]).unwrap(),
            Act::Hang => thread::sleep(LONG),
            Act::Close => return,
            Act::Die => return dead.store(true, Ordering::SeqCst),
        }
    }
}

/// Alice's honest answer: of a network that does nothing, her share is the answer.
fn alice(request: &Request) -> Act {
    let Request::Predict { seed, batch, .. } = request else { return Act::Close };
    let seed = Seed::from_bytes(seed.expose().try_into().unwrap());
    Act::Answer(alice_share(&seed, SIZE * *batch as usize).bytes().to_vec())
}

/// Bob's honest answer.
fn bob(share: &[u8]) -> Act {
    Act::Answer(share.to_vec())
}

fn refused(why: Refusal) -> Act {
    Act::Reply(Reply::Refused { why, reason: "as scripted".into() })
}

fn model(epoch: u64) -> ModelInfo {
    let input = Step { layer: "input".into(), op: Op::Input };
    let program = Program {
        fraction_bits: 16,
        input_shape: vec![SIZE],
        weights: vec![],
        states: vec![],
        rates: 0,
        steps: vec![input],
    };
    let manifest = Manifest {
        name: "nothing".into(),
        program,
        window: Window { lo: 0, k: 32 },
        input: InputEncoding { scale: 0.5, offset: 1.0, low: 0.0, high: 10.0 },
        post: Post::None,
        grants: vec![Grant { client: "ann".into(), reveals: vec![Reveal::Logits] }],
        ahead: vec![],
    };
    ModelInfo { epoch, owner: "olga".into(), manifest, ready: 3 }
}

fn client(alice: &str, bob: &str) -> Client {
    with_patience(LONG, alice, bob)
}

fn with_patience(patience: Duration, alice: &str, bob: &str) -> Client {
    let text = format!(
        "transport = \"tcp\"\n[alice]\naddress = \"{alice}\"\n[bob]\naddress = \"{bob}\"\n\
         [carol]\naddress = \"127.0.0.1:1\"\n[[client]]\nname = \"ann\"\n"
    );
    let cluster: Cluster = text.parse().unwrap();
    Client::connect(ClientConfig { patience, ..ClientConfig::new(cluster, None, "ann") }).unwrap()
}

#[test]
fn shares_go_out_and_the_answer_comes_together() {
    let mut c = client(&fake(|_, r, _| alice(r)), &fake(|_, _, s| bob(s)));
    for _ in 0..3 {
        let p = c.predict(&model(1), Reveal::Logits, &[0.0, 2.0, 4.0, -2.0, 1.0, 18.0], 2).unwrap();
        assert_eq!(p.logits.as_deref(), Some(&[1.0, 2.0, 3.0, 0.0, 1.5, 10.0][..]));
        assert_eq!((p.outputs, p.alice.lot, p.labels, p.revealed), (SIZE, 7, None, 2 * (48 + 12)));
    }
}

#[test]
fn what_the_client_can_know_is_refused_without_asking() {
    let never = || fake(|_, _, _| panic!("asked"));
    let mut c = client(&never(), &never());
    let mut ask = |reveal, samples: &[f32], batch| c.predict(&model(1), reveal, samples, batch).unwrap_err();
    assert!(matches!(ask(Reveal::Label, &[0.0; 3], 1), ClientError::NotGranted { .. }));
    assert!(matches!(ask(Reveal::Logits, &[0.0; 4], 1), ClientError::Input(_)));
    assert!(matches!(ask(Reveal::Logits, &[], 0), ClientError::Input(_)));
    assert!(matches!(ask(Reveal::Logits, &[0.0; 3], usize::MAX), ClientError::Input(_)));
    let e = ask(Reveal::Logits, &[0.0, 0.0, 0.0, 0.0, 19.0, 0.0], 2).to_string();
    assert!(e.contains("sample 1: element 1 is 19, after scaling 10.5"), "{e}");
}

#[test]
fn busy_is_waited_for_with_fresh_shares() {
    let forgotten = Arc::new(AtomicBool::new(false));
    let ids = Arc::new(Mutex::new(Vec::new()));
    let (seen, known) = (ids.clone(), ids.clone());
    let a = fake(move |n, r, _| {
        let Request::Predict { id, seed, .. } = r else { panic!("{r:?}") };
        seen.lock().unwrap().push((*id, seed.clone()));
        if n < 2 { refused(Refusal::Busy) } else { alice(r) }
    });
    let b = fake(move |_, r, s| {
        if matches!(r, Request::Forget { .. }) {
            forgotten.store(true, Ordering::SeqCst);
            return Act::Reply(Reply::Done);
        }
        // Bob waits for alice's word; he holds two halves that she never asks for, and the one that she does.
        let Request::Predict { id: own, .. } = r else { panic!("{r:?}") };
        let asked_for = || known.lock().unwrap().get(2).is_some_and(|(id, _)| id == own);
        while !asked_for() {
            if forgotten.swap(false, Ordering::SeqCst) {
                return refused(Refusal::Unavailable);
            }
            thread::sleep(Duration::from_millis(1));
        }
        bob(s)
    });
    let p = client(&a, &b).predict(&model(1), Reveal::Logits, &[0.0; 3], 1).unwrap();
    assert_eq!(p.logits.as_deref(), Some(&[1.0; 3][..]));
    let ids = ids.lock().unwrap();
    assert_eq!(ids.len(), 3);
    assert!(ids[0].0 != ids[1].0 && ids[1].0 != ids[2].0 && ids[0].1 != ids[1].1);
}

#[test]
fn patience_ends() {
    let (alice, bob) = (fake(|_, _, _| refused(Refusal::Busy)), fake(|_, _, _| refused(Refusal::Unavailable)));
    let mut c = with_patience(Duration::from_secs(2), &alice, &bob);
    let e = c.predict(&model(1), Reveal::Logits, &[0.0; 3], 1).unwrap_err();
    assert!(matches!(e, ClientError::Busy { waited } if waited >= Duration::from_secs(2)), "{e}");
}

#[test]
fn a_lost_connection_is_made_again_once_with_the_same_request() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = sent.clone();
    let b = fake(move |n, r, s| {
        seen.lock().unwrap().push((r.clone(), s.to_vec()));
        if n == 0 { Act::Close } else { bob(s) }
    });
    let p = client(&fake(|_, r, _| alice(r)), &b).predict(&model(1), Reveal::Logits, &[0.0; 3], 1).unwrap();
    assert_eq!(p.logits.as_deref(), Some(&[1.0; 3][..]));
    let sent = sent.lock().unwrap();
    assert_eq!((sent.len(), &sent[0]), (2, &sent[1]));
}

#[test]
fn the_dead_and_the_silent_are_named_in_time() {
    let ask = |a: String, b: String| {
        let mut c = client(&a, &b);
        let began = Instant::now();
        let e = c.predict(&model(1), Reveal::Logits, &[0.0; 3], 1).unwrap_err();
        (e.to_string(), began.elapsed())
    };
    let waits = |_: usize, r: &Request, _: &[u8]| match r {
        Request::Forget { .. } => Act::Reply(Reply::Done),
        _ => Act::Hang,
    };
    let complains = |_: usize, _: &Request, _: &[u8]| refused(Refusal::Unavailable);
    for (a, b, name) in [
        (fake(|_, _, _| Act::Die), fake(waits), "alice"),
        (fake(waits), fake(|_, _, _| Act::Die), "bob"),
        (fake(complains), fake(|_, _, _| Act::Die), "bob"),
    ] {
        let (e, took) = ask(a, b);
        assert!(e.contains(&format!("connection to {name} was lost")), "{e}");
        assert!(took < LONG, "{took:?}");
    }
}

#[test]
fn lies_are_named() {
    let ask =
        |a: String, b: String| client(&a, &b).predict(&model(1), Reveal::Logits, &[0.0; 3], 1).unwrap_err().to_string();
    let (honest_alice, honest_bob) = (|| fake(|_, r, _| alice(r)), || fake(|_, _, s| bob(s)));
    assert!(ask(fake(|_, _, _| Act::Garbage), honest_bob()).contains("alice misbehaved"));
    assert!(ask(honest_alice(), fake(|_, _, _| Act::Reply(Reply::Done))).contains("bob misbehaved: a confirmation"));
    assert!(ask(honest_alice(), fake(|_, _, _| Act::Answer(vec![0; 1000]))).contains("bob misbehaved"));
    assert!(ask(honest_alice(), fake(|_, _, _| Act::Answer(vec![0; 5]))).contains("answer of bob"));
}

#[test]
fn lists_must_be_the_same() {
    let list = |epoch, ready| fake(move |_, _, _| Act::Reply(Reply::Models(vec![ModelInfo { ready, ..model(epoch) }])));
    let all = client(&list(1, 5), &list(1, 2)).models().unwrap();
    assert_eq!((all.len(), all[0].ready), (1, 2));
    assert!(matches!(client(&list(1, 0), &list(1, 0)).model("other"), Err(ClientError::UnknownModel { .. })));
    let torn = |client: &mut Client| client.model("nothing").unwrap_err().to_string();
    let e = torn(&mut client(&list(1, 0), &list(2, 0)));
    assert!(e.contains("disagree on what model nothing is"), "{e}");
    let none = fake(|_, _, _| Act::Reply(Reply::Models(vec![])));
    let mut client = client(&none, &list(1, 0));
    assert!(torn(&mut client).contains("alice does not list"));
    assert!(client.models().unwrap().is_empty());
}
