//! Layers as people write them, such as `{ conv = 32, kernel = 3, padding = "same" }`, and the network they are.

use anyhow::{Context, anyhow};
use toml::{Table, Value};
use trefoil_nn::build::{self, Activation, LayerSpec, Sequential, Sides, bench_net};
use trefoil_nn::graph::Graph;
use trefoil_nn::train::init::Init;

use super::section::{Section, choose};

/// The most units of a layer, and the widest side of a kernel, window or image.
const MOST: u64 = 1 << 20;
const SIDE: u64 = 1 << 12;

/// The kinds of layers, each by the key that names it.
const KINDS: [&str; 19] = [
    "dense",
    "conv",
    "depthwise_conv",
    "max_pool",
    "average_pool",
    "global_average_pool",
    "flatten",
    "reshape",
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "hard_sigmoid",
    "softplus",
    "elu",
    "silu",
    "gelu",
    "dropout",
    "batch_norm",
];

/// Keys that say more of a layer.
const SETTINGS: [&str; 7] = ["name", "activation", "kernel", "stride", "padding", "epsilon", "momentum"];

const ACTIVATIONS: [(&str, Activation); 10] = [
    ("none", Activation::None),
    ("relu", Activation::Relu),
    ("sigmoid", Activation::Sigmoid),
    ("tanh", Activation::Tanh),
    ("hard_sigmoid", Activation::HardSigmoid),
    ("softplus", Activation::Softplus),
    ("elu", Activation::Elu),
    ("silu", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("softmax", Activation::Softmax),
];

/// The network of a list of layers on inputs of `shape`, its first weights drawn from `seed`.
pub(super) fn network(shape: &[usize], layers: Vec<Value>, seed: u64, init: Option<Init>) -> anyhow::Result<Graph> {
    let mut net = Sequential::new(shape);
    for (i, value) in layers.into_iter().enumerate() {
        let layer = read(value).with_context(|| format!("[model] layer {}", i + 1))?;
        net.push(layer).map_err(|e| anyhow!("[model] layer {}: {}", i + 1, e.reason))?;
    }
    let net = init.into_iter().fold(net, Sequential::init);
    net.build(seed).map_err(|e| anyhow!("[model] {e}"))
}

/// A network of the benchmarks under new weights.
pub(super) fn built_in(name: &str, seed: u64) -> anyhow::Result<Graph> {
    bench_net(name, seed).map_err(|e| anyhow!("[model] net: {e}"))
}

fn read(value: Value) -> anyhow::Result<LayerSpec> {
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
            let Some(first) = table.keys().find(|k| !SETTINGS.contains(&k.as_str())) else {
                return Err(anyhow!("names no layer: one of {} is due", KINDS.join(", ")));
            };
            let known: Vec<(&'static str, ())> = KINDS.iter().map(|k| (*k, ())).collect();
            return Err(choose(first, &known).err().map_or_else(|| anyhow!("no layer"), |e| anyhow!("{e}")));
        }
    };
    let mut s = Section::new("", table);
    let mut layer = layer(&mut s, kind)?;
    if let Some(name) = s.text("name")? {
        layer = layer.named(name);
    }
    if let Some(activation) = s.text("activation")? {
        layer = layer.activation(choose(&activation, &ACTIVATIONS).map_err(|e| anyhow!("activation: {e}"))?);
    }
    s.end()?;
    Ok(layer)
}

fn layer(s: &mut Section, kind: &'static str) -> anyhow::Result<LayerSpec> {
    match kind {
        "dense" => {
            let units = s.count(kind, 1, MOST)?;
            Ok(build::dense(s.need(kind, units)? as usize))
        }
        "conv" => {
            let filters = s.count(kind, 1, MOST)?;
            let filters = s.need(kind, filters)? as usize;
            let kernel = sides(s, "kernel")?;
            let kernel = s.need("kernel", kernel)?;
            windows(s, build::conv(filters, kernel))
        }
        "depthwise_conv" | "max_pool" | "average_pool" => {
            let size = sides(s, kind)?;
            let size = s.need(kind, size)?;
            let layer = match kind {
                "max_pool" => build::max_pool(size),
                "average_pool" => build::average_pool(size),
                _ => build::depthwise_conv(size),
            };
            windows(s, layer)
        }
        "reshape" => {
            let to = s.counts(kind, 1, MOST)?;
            Ok(build::reshape(&s.need(kind, to)?))
        }
        "leaky_relu" => {
            let slope = s.number(kind, 0.0, 1.0)?;
            Ok(build::leaky_relu(s.need(kind, slope)? as f32))
        }
        "elu" => {
            let alpha = s.number(kind, 0.0, 16.0)?;
            Ok(build::elu(s.need(kind, alpha)? as f32))
        }
        "dropout" => {
            let rate = s.number(kind, 0.0, 0.99)?;
            Ok(build::dropout(s.need(kind, rate)? as f32))
        }
        "batch_norm" => {
            on(s, kind)?;
            let epsilon = s.number("epsilon", 1e-6, 1.0)?.unwrap_or(1e-3) as f32;
            let momentum = s.number("momentum", 0.0, 1.0)?.unwrap_or(0.99) as f32;
            Ok(build::batch_norm_with(epsilon, momentum))
        }
        _ => {
            on(s, kind)?;
            Ok(match kind {
                "global_average_pool" => build::global_average_pool(),
                "flatten" => build::flatten(),
                "relu" => build::relu(),
                "sigmoid" => build::sigmoid(),
                "hard_sigmoid" => build::hard_sigmoid(),
                "softplus" => build::softplus(),
                "silu" => build::silu(),
                "gelu" => build::gelu(),
                _ => build::tanh(),
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

/// One number for both sides, or one for each.
fn sides(s: &mut Section, key: &'static str) -> anyhow::Result<Option<Sides>> {
    match s.counts(key, 1, SIDE)?.as_deref() {
        None => Ok(None),
        Some([n]) => Ok(Some((*n).into())),
        Some([h, w]) => Ok(Some(Sides(*h, *w))),
        Some(_) => Err(s.wrong(key, "one or two numbers are due")),
    }
}

/// Stride and padding.
fn windows(s: &mut Section, layer: LayerSpec) -> anyhow::Result<LayerSpec> {
    let layer = sides(s, "stride")?.into_iter().fold(layer, LayerSpec::stride);
    let padding = s.text("padding")?.unwrap_or_else(|| "valid".into());
    let same = choose(&padding, &[("valid", false), ("same", true)]).map_err(|e| s.wrong("padding", e))?;
    Ok(if same { layer.same() } else { layer })
}

#[cfg(test)]
mod tests {
    use trefoil_nn::graph::Post;

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
    fn every_activation_is_a_layer_and_a_setting() {
        for (name, _) in ACTIVATIONS.iter().filter(|(n, _)| !["none", "softmax"].contains(n)) {
            let alone = if *name == "elu" { "{ elu = 1.0 }".into() } else { format!("{name:?}") };
            let apart = build(&format!("[\"flatten\", {{ dense = 2 }}, {alone}]")).unwrap();
            let inside = build(&format!("[\"flatten\", {{ dense = 2, activation = {name:?} }}]")).unwrap();
            assert_eq!(apart, inside);
            assert_eq!(apart.nodes[3].name, *name);
        }
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
            ("[{ max_pool = 2, padding = \"smae\" }]", "[model] layer 1: padding: \"smae\" is not known"),
            ("[{ max_pool = 40 }]", "[model] layer 1: "),
            ("[{}]", "[model] layer 1: names no layer"),
            ("[\"tanh\", { relu = true, name = \"tanh\" }]", "[model] layer 2: another layer has this name"),
            ("[\"flatten\", { dense = 2, activation = \"softmax\" }, \"relu\"]", "layer 3: comes after a softmax"),
        ] {
            let e = crate::output::chain(&build(text).unwrap_err());
            assert!(e.contains(said), "{said:?} not in {e:?}");
        }
    }
}
