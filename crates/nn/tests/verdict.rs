//! Pairs that are judged: the bound in the program, its edge, and distances as large as the ring holds.
#![allow(clippy::unwrap_used)]

use trefoil_mpc::ideal;
use trefoil_mpc::program::{Op, Reveal, Window};
use trefoil_nn::compile::{CompileOptions, Compiled, compile};
use trefoil_nn::graph::{Graph, Layer, Node, Post};
use trefoil_nn::range::{How, check};

/// A tower that leaves its two numbers as they are, for pairs.
fn plain(post: Post) -> Graph {
    let node = |name: &str, layer, inputs| Node { name: name.into(), layer, inputs };
    let input = node("input", Layer::Input { shape: vec![1, 2] }, vec![]);
    Graph { nodes: vec![input, node("flat", Layer::Reshape { shape: vec![2] }, vec![0])], post }
}

fn judge(post: Post, options: CompileOptions) -> Compiled {
    compile(&plain(post), &options).unwrap()
}

/// What the program reveals of pairs of numbers, in units.
fn revealed(c: &Compiled, what: Reveal, pairs: &[[f64; 4]]) -> Vec<i64> {
    let p = c.ending_in(what).unwrap();
    let unit = f64::from(p.fraction_bits).exp2();
    let x: Vec<u64> = pairs.iter().flatten().map(|v| (v * unit).round() as i64 as u64).collect();
    let values = ideal::evaluate(&p, pairs.len(), &x, &[]).unwrap();
    values.last().unwrap().iter().map(|v| *v as i64).collect()
}

const BIT: f64 = 1.0 / 65536.0;

#[test]
fn a_pair_at_the_bound_is_dissimilar() {
    let c = judge(Post::distance(0.5), CompileOptions::default());
    let pairs = [
        [0.5, 0.0, 0.0, 0.0],
        [0.0, 0.5, 0.0, 1.0],
        [0.5 - BIT, 0.0, 0.0, 0.0],
        [3.0, 1.0, 3.5 - BIT, 1.0],
        [0.5 + BIT, 0.0, 0.0, 0.0],
        // 0.3^2 + 0.4^2 is less than 0.25 by the rounding of its numbers.
        [(0.3f64 / BIT).floor() * BIT, (0.4f64 / BIT).floor() * BIT, 0.0, 0.0],
        [7.0, 7.0, 7.0, 7.0],
    ];
    assert_eq!(revealed(&c, Reveal::Label, &pairs), [0, 0, 1, 1, 0, 1, 1]);
    let clear: Vec<f32> = pairs.iter().flatten().map(|v| *v as f32).collect();
    let clear = c.graph.answers(pairs.len(), &clear).unwrap();
    let post = c.graph.post;
    let similar: Vec<bool> = clear.iter().map(|d| post.is_similar(*d).unwrap()).collect();
    assert_eq!(similar, [false, false, true, true, false, true, true]);
    // The distance itself is what the network says in the clear.
    let squared = |v: i64| post.answer(v as f64 * BIT);
    let told: Vec<f64> = revealed(&c, Reveal::Logits, &pairs).into_iter().map(squared).collect();
    assert!(told.iter().zip(&clear).all(|(t, c)| (t - f64::from(*c)).abs() <= 2.0 * BIT), "{told:?}");
}

#[test]
fn however_far_apart_a_pair_is_dissimilar() {
    let c = judge(Post::distance(0.5), CompileOptions::default());
    // Squares up to 2^29: the window of any other comparison here would take some of them for near ones.
    let far = (1..=14).map(|i| [f64::from(i).exp2(), 0.0, -f64::from(i).exp2(), 1.0]);
    let pairs: Vec<[f64; 4]> = far.collect();
    assert_eq!(revealed(&c, Reveal::Label, &pairs), [0; 14]);
    for reveal in [Reveal::Label, Reveal::Logits] {
        let report = check(&c, reveal, &(-4096.0..=4096.0), None).unwrap();
        assert!(report.wires.iter().all(|w| w.how == How::Proved) && report.notes.is_empty(), "{report:?}");
        let judged =
            report.wires.iter().filter(|w| w.op == "argmax").map(|w| w.high >= 2f64.powi(27)).collect::<Vec<_>>();
        assert_eq!(judged, if reveal == Reveal::Label { vec![true] } else { vec![] });
    }
    // Where the ring itself ends the owner is told, as for any network.
    assert!(check(&c, Reveal::Label, &(-65536.0..=65536.0), None).is_err());
    let p = c.ending_in(Reveal::Label).unwrap();
    let windows = p.steps.iter().filter_map(|s| if let Op::Argmax { window, .. } = s.op { Some(window) } else { None });
    assert_eq!(windows.collect::<Vec<_>>(), [Window { lo: 0, k: 64 }]);
}

#[test]
fn every_kind_of_fixed_point_judges() {
    for (fraction_bits, window_bits) in [(1, 61), (4, 20), (8, 8), (13, 20), (24, 38), (30, 32)] {
        let c = judge(Post::distance(1.0), CompileOptions { fraction_bits, window_bits });
        assert_eq!(revealed(&c, Reveal::Label, &[[0.5, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0; 4]]), [1, 0, 1]);
    }
}

#[test]
fn bounds_that_no_program_can_hold() {
    let refused = |post, fraction_bits| {
        let options = CompileOptions { fraction_bits, ..CompileOptions::default() };
        compile(&plain(post), &options).unwrap_err().to_string()
    };
    let large = refused(Post::Distance { similar: u64::MAX }, 16);
    assert!(large.contains("layer distance") && large.contains("too small or large at 32 bits"), "{large}");
    let small = refused(Post::distance(1.0 / 256.0), 4);
    assert!(small.contains("a distance of 0.00390625 is no bound"), "{small}");
}

#[test]
fn without_a_bound_the_distance_alone_is_told() {
    let c = judge(Post::distance(0.0), CompileOptions::default());
    let e = c.ending_in(Reveal::Label).unwrap_err().to_string();
    assert!(e.contains("neither similar nor dissimilar"), "{e}");
    assert_eq!(revealed(&c, Reveal::Logits, &[[3.0, 0.0, 0.0, 4.0]]), [25 << 16]);
    assert_eq!(c.graph.post.answer(25.0), 25.0);
    assert_eq!((c.graph.post.similar_below(), Post::distance(0.75).similar_below()), (None, Some(0.75)));
    assert!(!c.graph.post.judges() && Post::distance(0.5).judges() && !Post::Sigmoid.judges());
}
