//! Layers as people write them, such as `{ conv = 32, kernel = 3, padding = "same" }`, and the network they are.

use anyhow::{Context, anyhow};
use toml::{Table, Value};
use trefoil_nn::build::bench_net;
use trefoil_nn::graph::{Array, BatchNorm, Graph, Layer, Node, Post};
use trefoil_nn::train::init::{Init, initialise};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

use super::section::{Section, choose};

/// The most units of a layer, and the widest side of a kernel, window or image.
const MOST: u64 = 1 << 20;
const SIDE: u64 = 1 << 12;

/// The kinds of layers, each by the key that names it.
const KINDS: [&str; 12] = [
    "dense",
    "conv",
    "max_pool",
    "average_pool",
    "flatten",
    "reshape",
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "dropout",
    "batch_norm",
];

/// The network of a list of layers on inputs of `shape`, its first weights drawn from `seed`.
pub(super) fn network(shape: &[usize], layers: Vec<Value>, seed: u64, init: Option<Init>) -> anyhow::Result<Graph> {
    let input = Node { name: "input".into(), layer: Layer::Input { shape: shape.to_vec() }, inputs: vec![] };
    let mut graph = Graph { nodes: vec![input], post: Post::None };
    for (i, value) in layers.into_iter().enumerate() {
        add(&mut graph, value).with_context(|| format!("[model] layer {}", i + 1))?;
    }
    let relu = graph.nodes.iter().any(|n| matches!(n.layer, Layer::Relu | Layer::LeakyRelu { .. }));
    initialise(&mut graph, init.unwrap_or(if relu { Init::He } else { Init::Glorot }), 0.0, seed);
    graph.shapes()?;
    Ok(graph)
}

/// A network of the benchmarks under new weights.
pub(super) fn built_in(name: &str, seed: u64) -> anyhow::Result<Graph> {
    bench_net(name, seed).map_err(|_| anyhow!("[model] net: {name:?} is not one of A, B, C, D, S, T, vgg16, resnet18"))
}

fn add(graph: &mut Graph, value: Value) -> anyhow::Result<()> {
    let table = match value {
        Value::Table(t) => t,
        Value::String(s) => Table::from_iter([(s, Value::Boolean(true))]),
        v => return Err(anyhow!("a layer is due, such as \"relu\" or {{ dense = 10 }}, not {v}")),
    };
    let mut kinds = KINDS.iter().filter(|k| table.contains_key(**k));
    let kind = match (kinds.next(), kinds.next()) {
        (Some(kind), None) => *kind,
        (Some(a), Some(b)) => return Err(anyhow!("both {a} and {b}")),
        (None, _) => {
            let first = table.keys().next().map_or("", String::as_str);
            let known: Vec<(&'static str, ())> = KINDS.iter().map(|k| (*k, ())).collect();
            return Err(choose(first, &known).err().map_or_else(|| anyhow!("no layer"), |e| anyhow!("{e}")));
        }
    };
    let mut s = Section::new("", table);
    let named = s.text("name")?;
    let activation = s.text("activation")?;
    let shape = shape_of(graph)?;
    let layer = layer(&mut s, kind, &shape)?;
    s.end()?;
    push(graph, named.unwrap_or_else(|| kind.to_owned()), layer)?;
    match activation.as_deref().map(|a| choose(a, &ACTIVATIONS).map_err(|e| anyhow!("activation: {e}"))).transpose()? {
        None | Some(Activation::None) => Ok(()),
        Some(Activation::Softmax) => {
            graph.post = Post::Softmax;
            Ok(())
        }
        Some(Activation::Relu) => push(graph, "relu".into(), Layer::Relu),
        Some(Activation::Sigmoid) => push(graph, "sigmoid".into(), Layer::Sigmoid),
        Some(Activation::Tanh) => push(graph, "tanh".into(), Layer::Tanh),
    }
}

#[derive(Clone, Copy)]
enum Activation {
    None,
    Relu,
    Sigmoid,
    Tanh,
    Softmax,
}

const ACTIVATIONS: [(&str, Activation); 5] = [
    ("none", Activation::None),
    ("relu", Activation::Relu),
    ("sigmoid", Activation::Sigmoid),
    ("tanh", Activation::Tanh),
    ("softmax", Activation::Softmax),
];

fn shape_of(graph: &Graph) -> anyhow::Result<Vec<usize>> {
    Ok(graph.shapes()?.pop().unwrap_or_default())
}

/// Adds a layer under a name that nobody else has.
fn push(graph: &mut Graph, name: String, layer: Layer) -> anyhow::Result<()> {
    let taken = |n: &str| graph.nodes.iter().any(|node| node.name == n);
    let name = match taken(&name) {
        false => name,
        true => (2..).map(|i| format!("{name}-{i}")).find(|n| !taken(n)).unwrap_or(name),
    };
    let last = graph.nodes.len() - 1;
    graph.nodes.push(Node { name, layer, inputs: vec![last] });
    graph.shapes().map(|_| ()).map_err(|e| anyhow!("{}", e.reason))
}

fn layer(s: &mut Section, kind: &'static str, shape: &[usize]) -> anyhow::Result<Layer> {
    match kind {
        "dense" => {
            let units = s.count("dense", 1, MOST)?;
            let units = s.need("dense", units)? as usize;
            let [inputs] = *shape else { return Err(anyhow!("dense takes a vector, not {shape:?}: flatten first")) };
            Ok(Layer::Dense { kernel: zeros(vec![inputs, units])?, bias: Some(zeros(vec![units])?) })
        }
        "conv" => conv(s, shape),
        "max_pool" => Ok(Layer::MaxPool(pool(s, kind, shape)?)),
        "average_pool" => Ok(Layer::AveragePool(pool(s, kind, shape)?)),
        "reshape" => {
            let to = s.counts("reshape", 1, MOST)?;
            Ok(Layer::Reshape { shape: s.need("reshape", to)? })
        }
        "leaky_relu" => {
            let slope = s.number("leaky_relu", 0.0, 1.0)?;
            Ok(Layer::LeakyRelu { slope: s.need("leaky_relu", slope)? as f32 })
        }
        "dropout" => {
            let rate = s.number("dropout", 0.0, 0.99)?;
            Ok(Layer::Dropout { rate: s.need("dropout", rate)? as f32 })
        }
        "batch_norm" => {
            on(s, kind)?;
            let channels = shape.last().copied().unwrap_or_default();
            let filled = |v: f32| Array { shape: vec![channels], data: vec![v; channels] };
            let (gamma, beta, mean, variance) = (filled(1.0), filled(0.0), filled(0.0), filled(1.0));
            let epsilon = s.number("epsilon", 1e-6, 1.0)?.unwrap_or(1e-3) as f32;
            let momentum = s.number("momentum", 0.0, 1.0)?.unwrap_or(0.99) as f32;
            Ok(Layer::BatchNorm(BatchNorm { gamma, beta, mean, variance, epsilon, momentum }))
        }
        _ => {
            on(s, kind)?;
            Ok(match kind {
                "flatten" => Layer::Reshape { shape: vec![shape.iter().product()] },
                "relu" => Layer::Relu,
                "sigmoid" => Layer::Sigmoid,
                _ => Layer::Tanh,
            })
        }
    }
}

/// A layer without a number of its own: `true`.
fn on(s: &mut Section, kind: &'static str) -> anyhow::Result<()> {
    match s.value(kind) {
        Some(Value::Boolean(true)) => Ok(()),
        v => Err(s.wrong(kind, format!("true is due, not {}", v.map(|v| v.to_string()).unwrap_or_default()))),
    }
}

fn image(shape: &[usize], kind: &str) -> anyhow::Result<(usize, usize, usize)> {
    match *shape {
        [h, w, c] => Ok((h, w, c)),
        _ => Err(anyhow!("{kind} takes an image (height, width, channels), not {shape:?}")),
    }
}

/// One number for both sides, or one for each.
fn sides(s: &mut Section, key: &'static str) -> anyhow::Result<Option<(usize, usize)>> {
    match s.counts(key, 1, SIDE)?.as_deref() {
        None => Ok(None),
        Some([n]) => Ok(Some((*n, *n))),
        Some([h, w]) => Ok(Some((*h, *w))),
        Some(_) => Err(s.wrong(key, "one or two numbers are due")),
    }
}

fn conv(s: &mut Section, shape: &[usize]) -> anyhow::Result<Layer> {
    let (h, w, channels) = image(shape, "conv")?;
    let filters = s.count("conv", 1, MOST)?;
    let out_channels = s.need("conv", filters)? as usize;
    let kernel = sides(s, "kernel")?;
    let kernel = s.need("kernel", kernel)?;
    let stride = sides(s, "stride")?.unwrap_or((1, 1));
    let padding = s.text("padding")?.unwrap_or_else(|| "valid".into());
    let same = choose(&padding, &[("valid", false), ("same", true)]).map_err(|e| s.wrong("padding", e))?;
    let pads = if same { Pads::same((h, w), kernel, stride, (1, 1)) } else { Pads::default() };
    let (input, dilation) = ((h, w), (1, 1));
    let geometry = Conv2d { input, in_channels: channels, out_channels, kernel, stride, dilation, pads, groups: 1 };
    Ok(Layer::Conv2d { geometry, kernel: zeros(geometry.kernel_shape())?, bias: Some(zeros(vec![out_channels])?) })
}

fn pool(s: &mut Section, kind: &'static str, shape: &[usize]) -> anyhow::Result<Pool2d> {
    let (h, w, channels) = image(shape, kind)?;
    let window = sides(s, kind)?;
    let window = s.need(kind, window)?;
    let stride = sides(s, "stride")?.unwrap_or(window);
    Ok(Pool2d { input: (h, w), channels, window, stride, pads: Pads::default() })
}

fn zeros(shape: Vec<usize>) -> anyhow::Result<Array> {
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 28);
    let n = n.with_context(|| format!("weights of shape {shape:?} are too many"))?;
    Ok(Array { shape, data: vec![0.0; n] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> anyhow::Result<Graph> {
        let mut table: Table = format!("layers = {text}").parse().unwrap();
        let Some(Value::Array(layers)) = table.remove("layers") else { panic!() };
        network(&[28, 28, 1], layers, 1, None)
    }

    #[test]
    fn lists_become_networks() {
        let text = "[{ conv = 4, kernel = 5, activation = \"tanh\" }, { average_pool = 2 }, { dropout = 0.25 }, \
             \"flatten\", { dense = 10, name = \"out\", activation = \"softmax\" }]";
        let graph = build(text).unwrap();
        let names: Vec<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["input", "conv", "tanh", "average_pool", "dropout", "flatten", "out"]);
        assert_eq!((graph.shapes().unwrap()[5][0], graph.post), (576, Post::Softmax));
        let same = build(text).unwrap();
        assert_eq!(graph, same, "a seed gives the same weights");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            ("[\"rleu\"]", "[model] layer 1: \"rleu\" is not known; \"relu\" is the nearest"),
            ("[{ dense = 10 }]", "[model] layer 1: dense takes a vector, not [28, 28, 1]: flatten first"),
            ("[{ conv = 4 }]", "[model] layer 1: kernel is missing"),
            ("[{ conv = 4, kernal = 3 }]", "[model] layer 1: kernel is missing (is \"kernal\" meant for it?)"),
            ("[\"flatten\", { dense = 0 }]", "[model] layer 2: dense: 0 is not within 1 to 1048576"),
            ("[{ dropout = 1.5 }]", "[model] layer 1: dropout: 1.5 is not within 0 to 0.99"),
            ("[{ max_pool = 2, conv = 3 }]", "[model] layer 1: both conv and max_pool"),
            ("[\"flatten\", { dense = 2, activation = \"relo\" }]", "activation: \"relo\" is not known"),
        ] {
            let e = crate::output::chain(&build(text).unwrap_err());
            assert!(e.contains(said), "{said:?} not in {e:?}");
        }
    }
}
