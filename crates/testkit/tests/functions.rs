//! Networks with sigmoid, tanh and their relatives, and pairs of inputs: private predictions close to the clear ones, dealt ahead and in
//! step, with the same bits over every link.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod sockets;

use sockets::{tcp, tls};
use trefoil_link::Phase;
use trefoil_mpc::cost::cost;
use trefoil_mpc::masked::output::{open_labels, open_values};
use trefoil_mpc::program::Reveal;
use trefoil_mpc::{Compare, Program};
use trefoil_nn::compile::{CompileOptions, Compiled, compile};
use trefoil_nn::graph::{Array, Graph, Layer, Node, Post};
use trefoil_nn::train::init::{Init, initialise};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};
use trefoil_testkit::World;
use trefoil_testkit::world::Links;

const ONE: f64 = 65536.0;

/// Conv 3 3x3, `f`, average pool, dense 4, `f`.
fn network(f: &Layer) -> Graph {
    let zeros = |shape: Vec<usize>| Array::new(shape.clone(), vec![0.0; shape.iter().product()]).unwrap();
    let (stride, dilation, pads) = ((1, 1), (1, 1), Pads::default());
    let g =
        Conv2d { input: (6, 6), in_channels: 1, out_channels: 3, kernel: (3, 3), stride, dilation, pads, groups: 1 };
    let pool = Pool2d { input: (4, 4), channels: 3, window: (2, 2), stride: (2, 2), pads };
    let layers = [
        Layer::Input { shape: vec![6, 6, 1] },
        Layer::Conv2d { geometry: g, kernel: zeros(g.kernel_shape()), bias: Some(zeros(vec![3])) },
        f.clone(),
        Layer::AveragePool(pool),
        Layer::Reshape { shape: vec![12] },
        Layer::Dense { kernel: zeros(vec![12, 4]), bias: Some(zeros(vec![4])) },
        f.clone(),
    ];
    let node = |(i, layer): (usize, Layer)| {
        let inputs = if i == 0 { vec![] } else { vec![i - 1] };
        Node { name: format!("n{i}"), layer, inputs }
    };
    let mut graph = Graph { nodes: layers.into_iter().enumerate().map(node).collect(), post: Post::None };
    initialise(&mut graph, Init::Glorot, 0.0, 5);
    graph
}

/// The compiled networks, for one input and for pairs.
fn all() -> Vec<(Compiled, Graph)> {
    let (hard, elu) = (Layer::HardSigmoid { slope: 1.0 / 6.0 }, Layer::Elu { alpha: 0.5 });
    let graphs = [Layer::Sigmoid, Layer::Tanh, hard, elu, Layer::Gelu].map(|f| network(&f)).into_iter();
    let both = graphs.flat_map(|g| [g.clone(), Graph { post: Post::distance(0.5), ..g }]);
    both.map(|g| (compile(&g, &CompileOptions::default()).unwrap(), g)).collect()
}

fn input(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

/// What alice and bob send the client, at the cost predicted.
fn payloads(world: &mut World, c: &Compiled, p: &Program, batch: usize, links: &mut Links) -> [Vec<u8>; 2] {
    let size: usize = p.input_shape.iter().product();
    let x: Vec<u64> = input(batch * size).iter().map(|v| (f64::from(*v) * ONE).round() as i64 as u64).collect();
    let model = world.share(p, &c.weights).unwrap();
    let answer = world.run_over(&model, batch, &x, links).unwrap();
    for (i, predicted) in cost(p, batch).unwrap().iter().enumerate() {
        let online = answer.online.get(&(Phase::Online, i)).copied().unwrap_or_default();
        let offline = answer.offline.get(&(Phase::Offline, i)).copied().unwrap_or_default();
        let counted = (online.rounds, online.sent + online.received, offline.sent);
        assert_eq!(counted, (predicted.rounds, predicted.online, predicted.offline), "step {i}");
    }
    [answer.alice.payload.to_vec(), answer.bob.payload.to_vec()]
}

/// The frames of an answer, and its numbers.
fn answered(world: &mut World, c: &Compiled, p: &Program, batch: usize, links: &mut Links) -> (Vec<u8>, Vec<f64>) {
    let [alice, bob] = payloads(world, c, p, batch, links);
    let infos = p.infer().unwrap();
    let (last, before) = (&infos[infos.len() - 1], &infos[infos.len() - 2]);
    let shift = before.scale - last.scale;
    let values = open_values(&alice, &bob, batch * last.elements(), shift).unwrap();
    let payload = [alice, bob].concat();
    (payload, values.iter().map(|v| *v as f64 / ONE).collect())
}

#[test]
fn private_is_clear_however_it_compares_and_is_dealt() {
    for (compiled, graph) in all() {
        for way in [Compare::default(), Compare::Tree { block: 8, arity: 8 }, Compare::Keys] {
            let mut p = compiled.ending_in(Reveal::Logits).unwrap();
            p.steps.iter_mut().for_each(|s| s.op = s.op.comparing(way));
            for batch in [1, 5] {
                let mut ahead = World::new(3);
                let (bits, got) = answered(&mut ahead, &compiled, &p, batch, &mut Links::memory());
                for log in [&ahead.alice_draws, &ahead.bob_draws, &ahead.carol_draws] {
                    assert_eq!(log.repeated(), []);
                }
                let in_step = answered(&mut World::new(3).in_step(), &compiled, &p, batch, &mut Links::memory());
                assert!(bits == in_step.0, "the same bits in step");
                let want = graph.answers(batch, &input(batch * graph.towers() * 36)).unwrap();
                assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().map(|v| graph.post.answer(*v)).zip(want) {
                    assert!((got - f64::from(want)).abs() < 2e-3, "{got} where the clear network says {want}");
                }
            }
        }
    }
}

#[test]
fn verdicts_are_those_of_the_distances() {
    const PAIRS: usize = 6;
    let graph = Graph { post: Post::distance(1.0), ..network(&Layer::Tanh) };
    let squared = graph.answers(PAIRS, &input(PAIRS * 72)).unwrap();
    let mut sorted = squared.clone();
    sorted.sort_by(f32::total_cmp);
    // In the widest gap: some are similar, some are not, and none is close to the bound.
    let gap = sorted.windows(2).max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0]))).unwrap();
    assert!(gap[1] - gap[0] > 0.02, "{sorted:?}");
    let graph = Graph { post: Post::distance(f64::from((gap[0] + gap[1]) / 2.0).sqrt()), ..graph };
    let want: Vec<u32> = squared.iter().map(|d| u32::from(graph.post.is_similar(*d).unwrap())).collect();
    let compiled = compile(&graph, &CompileOptions::default()).unwrap();
    for way in [Compare::default(), Compare::Tree { block: 8, arity: 8 }, Compare::Keys] {
        let mut p = compiled.ending_in(Reveal::Label).unwrap();
        p.steps.iter_mut().for_each(|s| s.op = s.op.comparing(way));
        let ahead = payloads(&mut World::new(4), &compiled, &p, PAIRS, &mut Links::memory());
        let in_step = payloads(&mut World::new(4).in_step(), &compiled, &p, PAIRS, &mut Links::memory());
        assert!(ahead == in_step, "the same bits in step");
        assert_eq!(open_labels(&ahead[0], &ahead[1], PAIRS, 1).unwrap(), want, "{way}");
    }
}

#[test]
fn the_same_bits_over_every_link() {
    for (compiled, _) in all() {
        let p = compiled.ending_in(Reveal::Logits).unwrap();
        let over = |mut links: Links| answered(&mut World::new(9), &compiled, &p, 2, &mut links).0;
        let first = over(Links::memory());
        assert!(first == over(tcp()) && first == over(tls()));
    }
}
