//! Data sets of several owners over TLS: declared, contributed, listed, loaded, removed, and what is refused.
#![allow(clippy::unwrap_used)]

mod common;

use common::Trial;
use trefoil_client::{Block, Client, ClientError, Content, Contribution, Declaration, InputEncoding, Part};
use trefoil_prg::Party;
use trefoil_proto::Transport;
use trefoil_proto::dataset::pieces;
use trefoil_server::SetError;

const PIXELS: Content = Content::Values(InputEncoding { scale: 0.5, offset: 0.0, low: -1.0, high: 1.0 });

fn part(owner: &str, block: u32, first: u32, end: u32) -> Part {
    Part { owner: owner.into(), block, first, end }
}

fn block(name: &str, width: u32, content: Content) -> Block {
    Block { name: name.into(), width, content }
}

/// Two wards with rows of their own, and a laboratory with the labels.
fn wards(rows: u32, width: u32) -> Declaration {
    Declaration {
        name: "wards".into(),
        rows,
        fraction_bits: 16,
        metric_rows: 10,
        blocks: vec![block("pixels", width, PIXELS), block("label", 3, Content::OneHot)],
        parts: vec![part("ann", 0, 0, rows / 2), part("bert", 0, rows / 2, rows), part("owner", 1, 0, rows)],
    }
}

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 4001) as f32 / 1000.0 - 2.0).collect()
}

fn labels(rows: u32) -> Vec<u32> {
    (0..rows).map(|i| (i * 5 + 1) % 3).collect()
}

/// The table that both evaluators hold together.
fn opened(trial: &Trial, name: &str) -> Vec<f64> {
    let [a, b] = [Party::Alice, Party::Bob].map(|p| trial.servers[&p].data_set(name).unwrap());
    assert_eq!((a.epoch, &a.coordinator, &a.declaration), (b.epoch, &b.coordinator, &b.declaration));
    let (epoch, declaration) = trial.servers[&Party::Carol].declaration(name).unwrap();
    assert_eq!((epoch, &*declaration), (a.epoch, &a.declaration));
    assert!(matches!(trial.servers[&Party::Carol].data_set(name), Err(SetError::NoShare(_))));
    a.words.iter().zip(b.words.iter()).map(|(a, b)| a.wrapping_add(*b) as i64 as f64 / 65536.0).collect()
}

fn contribute(client: &mut Client, part: u32, given: Contribution<'_>) -> Result<(), ClientError> {
    let set = client.set("wards")?;
    client.contribute(&set, part, given)
}

fn said<T: std::fmt::Debug>(outcome: Result<T, ClientError>, what: &str) {
    let e = outcome.unwrap_err().to_string();
    assert!(e.contains(what), "{what:?} not in {e:?}");
}

#[test]
fn three_owners_make_one_table_that_outlives_a_restart() {
    let mut trial = Trial::start(Transport::Tls, "lanes = 2");
    // Wide enough for several pieces a part.
    let (rows, width) = (300_u32, 9000_u32);
    let (half, d) = ((rows / 2) as usize, wards(rows, width));
    assert!(pieces(half, width as usize).count() > 1);
    let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| trial.client(n));
    owner.declare(&d).unwrap();
    let [x, y] = [1, 2].map(|seed| values(half * width as usize, seed));
    contribute(&mut bert, 1, Contribution::Values(&y)).unwrap();
    let missing = trial.servers[&Party::Bob].data_set("wards").unwrap_err().to_string();
    assert!(missing.contains("[0, 2] of its 3 parts are missing"), "{missing}");
    assert_eq!(ann.sets().unwrap()[0].arrived, [false, true, false]);
    contribute(&mut ann, 0, Contribution::Values(&x)).unwrap();
    contribute(&mut owner, 2, Contribution::Labels(&labels(rows))).unwrap();
    let info = owner.set("wards").unwrap();
    assert!(info.is_complete() && info.coordinator == "owner");

    let check = |trial: &Trial| {
        let table = opened(trial, "wards");
        let all: Vec<f32> = [&x[..], &y].concat();
        for (i, row) in table.chunks(width as usize + 3).enumerate() {
            let want = &all[i * width as usize..(i + 1) * width as usize];
            assert!(row.iter().zip(want).all(|(got, v)| (got - f64::from(*v) * 0.5).abs() <= 0.5 / 65536.0), "row {i}");
            let hot: Vec<f64> = (0..3).map(|c| f64::from(u8::from(c == labels(rows)[i]))).collect();
            assert_eq!(row[width as usize..], hot, "row {i}");
        }
    };
    check(&trial);
    drop((owner, ann, bert));
    Party::ALL.iter().for_each(|p| trial.stop(*p));
    for p in Party::ALL {
        trial.launch(p);
    }
    trial.wait();
    check(&trial);
    let mut owner = trial.client("owner");
    owner.remove_set("wards").unwrap();
    assert!(owner.sets().unwrap().is_empty());
    for p in Party::ALL {
        assert_eq!(std::fs::read_dir(trial.store(p).join("sets")).unwrap().count(), 0, "{p}");
        assert!(matches!(trial.servers[&p].declaration("wards"), Err(SetError::Unknown(_))));
    }
    // The same name is another set.
    owner.declare(&d).unwrap();
    assert!(owner.set("wards").unwrap().epoch > info.epoch);
}

#[test]
fn columns_of_several_owners_stand_side_by_side() {
    let trial = Trial::start(Transport::Tls, "lanes = 1");
    let d = Declaration {
        blocks: vec![block("scan", 2, PIXELS), block("blood", 1, PIXELS), block("label", 3, Content::OneHot)],
        parts: vec![part("bert", 1, 0, 4), part("ann", 0, 0, 4), part("bert", 2, 0, 1), part("owner", 2, 1, 4)],
        ..wards(4, 1)
    };
    let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| trial.client(n));
    owner.declare(&d).unwrap();
    contribute(&mut ann, 1, Contribution::Values(&[0.0, 1.0, 2.0, -1.0, -2.0, 0.5, 1.5, 0.25])).unwrap();
    contribute(&mut bert, 0, Contribution::Values(&[2.0, -2.0, 1.0, 0.0])).unwrap();
    contribute(&mut owner, 3, Contribution::Labels(&[1, 0, 2])).unwrap();
    contribute(&mut bert, 2, Contribution::Labels(&[2])).unwrap();
    #[rustfmt::skip]
    assert_eq!(opened(&trial, "wards"), [
        0.0, 0.5, 1.0, 0.0, 0.0, 1.0,
        1.0, -0.5, -1.0, 0.0, 1.0, 0.0,
        -1.0, 0.25, 0.5, 1.0, 0.0, 0.0,
        0.75, 0.125, 0.0, 0.0, 0.0, 1.0,
    ]);
}

#[test]
fn what_is_wrong_is_refused_in_words() {
    let trial = Trial::start(Transport::Tls, "lanes = 1");
    let d = wards(4, 2);
    let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| trial.client(n));
    said(ann.declare(&d), "ann may not declare data sets");
    let mut other = d.clone();
    other.parts[0].owner = "zoe".into();
    said(owner.declare(&other), "names no client \"zoe\"");
    other.parts[0] = part("ann", 0, 0, 1);
    said(owner.declare(&other), "a hole: nobody contributes rows 1..2 of block pixels");
    said(ann.set("wards"), "no data set \"wards\"");
    owner.declare(&d).unwrap();
    said(owner.declare(&d), "a data set named wards exists");
    let two = Contribution::Values(&[0.0; 4]);
    said(contribute(&mut bert, 0, two), "part 0 of data set wards is ann's");
    said(contribute(&mut ann, 3, two), "has no part 3");
    said(contribute(&mut ann, 0, Contribution::Values(&[0.0; 3])), "3 values were given");
    // A client that does not look first is told by the servers.
    let mut set = ann.set("wards").unwrap();
    set.declaration.parts[0].owner = "bert".into();
    said(bert.contribute(&set, 0, two), "part 0 of wards is ann's");
    let mut set = ann.set("wards").unwrap();
    set.declaration.fraction_bits = 15;
    said(ann.contribute(&set, 0, two), "not the one that the owner read");
    set.epoch += 1;
    said(ann.contribute(&set, 0, two), "no data set of number");
    let set = ann.set("wards").unwrap();
    ann.contribute(&set, 0, two).unwrap();
    said(contribute(&mut ann, 0, two), "already there");
    said(ann.contribute(&set, 0, two), "already there");
    said(ann.remove_set("wards"), "ann has declared no data set wards");
    owner.remove_set("wards").unwrap();
    said(owner.remove_set("wards"), "owner has declared no data set wards");
    said(ann.contribute(&set, 0, two), "no data set of number");
}

#[test]
fn owners_at_once_and_a_part_sent_twice() {
    let trial = Trial::start(Transport::Tcp, "lanes = 3");
    let rows = 60_u32;
    let d = wards(rows, 40_000);
    trial.client("owner").declare(&d).unwrap();
    let x = values(rows as usize / 2 * 40_000, 3);
    let set = trial.client("ann").set("wards").unwrap();
    let kept: usize = std::thread::scope(|s| {
        let send = |name: &'static str, part| {
            let (trial, set, x) = (&trial, &set, &x);
            s.spawn(move || usize::from(trial.client(name).contribute(set, part, Contribution::Values(x)).is_ok()))
        };
        let all = [send("ann", 0), send("bert", 1), send("ann", 0), send("ann", 0)];
        all.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(kept, 2, "each part once");
    trial.client("owner").contribute(&set, 2, Contribution::Labels(&labels(rows))).unwrap();
    let table = opened(&trial, "wards");
    assert!(table.chunks(40_003).zip(x.chunks(40_000).cycle()).all(|(row, want)| {
        row.iter().zip(want).all(|(got, v)| (got - f64::from(*v) * 0.5).abs() <= 0.5 / 65536.0)
    }));
    // Nothing of the refused uploads stays: three parts, a declaration, three files of pieces at bob.
    common::eventually("refused uploads are erased", || {
        std::fs::read_dir(trial.store(Party::Bob).join("sets")).unwrap().count() == 7
    });
}

/// Sixty thousand rows of 784 pixels and a label, by two wards and a laboratory: how long each step takes.
#[test]
#[ignore = "a measurement: run it in release"]
fn timings_of_sixty_thousand_rows() {
    let trial = Trial::start(Transport::Tls, "lanes = 2");
    let mut d = wards(60_000, 784);
    d.blocks[1].width = 10;
    let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| trial.client(n));
    let x = values(30_000 * 784, 1);
    let time = |what: &str, step: &mut dyn FnMut()| {
        let began = std::time::Instant::now();
        step();
        println!("{what}: {:.2?}", began.elapsed());
    };
    time("declare", &mut || owner.declare(&d).unwrap());
    time("30,000 x 784", &mut || contribute(&mut ann, 0, Contribution::Values(&x)).unwrap());
    time("30,000 x 784", &mut || contribute(&mut bert, 1, Contribution::Values(&x)).unwrap());
    time("60,000 labels", &mut || contribute(&mut owner, 2, Contribution::Labels(&labels(60_000))).unwrap());
    for party in [Party::Alice, Party::Bob] {
        let load = || assert_eq!(trial.servers[&party].data_set("wards").unwrap().words.len(), 60_000 * 794);
        time(&format!("{party} loads"), &mut || load());
    }
    time("remove", &mut || owner.remove_set("wards").unwrap());
}
