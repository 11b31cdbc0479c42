//! A model argument: a file, or the name of a network that is built in.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use trefoil_import::{ImportError, keras_h5};
use trefoil_nn::build::{BENCH_NETS, bench_net, demo_cnn};
use trefoil_nn::compile::CompileOptions;
use trefoil_nn::graph::{Graph, Post};
use trefoil_proto::control::InputEncoding;

/// A model and how it is brought to fixed point.
#[derive(Args)]
pub(crate) struct ModelArgs {
    /// A Keras file (.keras or .h5); or net:A, B, C, D, S, T, vgg16, resnet18 or demo: built-in networks with random weights, to plan with
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// The architecture (model.to_json()) of a file that holds weights only
    #[arg(long, value_name = "JSON")]
    pub(crate) architecture: Option<PathBuf>,
    /// Fraction bits of fixed point
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) fraction_bits: u32,
    /// Bits that a comparison reads
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) window_bits: u32,
    /// Make it a judge of pairs: two inputs are similar if the network's outputs for them are closer than D
    #[arg(long, value_name = "D", value_parser = number, allow_hyphen_values = true)]
    pub(crate) similar_below: Option<f64>,
    #[command(flatten)]
    pub(crate) input: InputArgs,
}

/// How inputs are brought to the model's scale.
#[derive(Args)]
pub(crate) struct InputArgs {
    /// Factor on every input value
    #[arg(long, value_name = "X", default_value = "1/255", value_parser = factor, allow_hyphen_values = true)]
    scale: f64,
    /// Added after the factor
    #[arg(long, value_name = "X", default_value = "0", value_parser = number, allow_hyphen_values = true)]
    offset: f64,
    /// Range of inputs after scaling [default: where 0 to 255 come to lie]
    #[arg(long, value_name = "LO..HI", value_parser = range, allow_hyphen_values = true)]
    range: Option<(f64, f64)>,
}

impl ModelArgs {
    /// Reads the model.
    pub(crate) fn load(&self) -> anyhow::Result<Graph> {
        let graph = load(&self.model, self.architecture.as_deref())?;
        let Some(bound) = self.similar_below else { return Ok(graph) };
        judge(graph, bound).context("--similar-below")
    }

    /// The options of fixed point.
    pub(crate) fn options(&self) -> CompileOptions {
        CompileOptions { fraction_bits: self.fraction_bits, window_bits: self.window_bits }
    }
}

impl InputArgs {
    /// The encoding that the arguments say.
    pub(crate) fn encoding(&self) -> InputEncoding {
        let end = 255.0 * self.scale + self.offset;
        let (low, high) = self.range.unwrap_or((self.offset.min(end), self.offset.max(end)));
        InputEncoding { scale: self.scale, offset: self.offset, low, high }
    }
}

/// The network as a judge of pairs.
fn judge(graph: Graph, bound: f64) -> anyhow::Result<Graph> {
    if graph.post != Post::None {
        bail!(
            "the network ends in softmax or sigmoid, which clients compute: distances are of what stands before it; save it without"
        );
    }
    if !(1.0 / 256.0..=1e6).contains(&bound) {
        bail!("{bound} is not within 1/256 to 1000000");
    }
    Ok(Graph { post: Post::distance(bound), ..graph })
}

/// Reads a model file, or builds a network.
pub(crate) fn load(path: &Path, architecture: Option<&Path>) -> anyhow::Result<Graph> {
    if let Some(name) = path.to_str().and_then(|p| p.strip_prefix("net:")) {
        return match name {
            "demo" => demo_cnn(1).context("the demo's network"),
            _ => bench_net(name, 1).map_err(|_| {
                let all = BENCH_NETS.map(|n| format!("net:{n}")).join(", ");
                anyhow!("no built-in network {name:?}: there are {all} and net:demo")
            }),
        };
    }
    if !path.exists() {
        bail!(
            "there is no file {}: a model is a Keras file (.keras or .h5), or net:NAME, a built-in one",
            path.display()
        );
    }
    let graph = match architecture {
        Some(json) => keras_h5::load_with_architecture(path, json),
        None => keras_h5::load(path),
    };
    graph.with_context(|| format!("cannot use the model {}", path.display()))
}

/// The error `e` of a model file where no architecture can be given beside it.
pub(crate) fn whole(path: &Path, e: ImportError) -> anyhow::Error {
    match e {
        ImportError::NoArchitecture => anyhow!(
            "{} holds weights only: load them into the Keras model and save all of it (model.save)",
            path.display()
        ),
        e => e.into(),
    }
}

/// A number or a fraction such as 1/255.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    let one = |t: &str| t.trim().parse::<f64>().map_err(|e| format!("{t:?}: {e}"));
    let value = match text.split_once('/') {
        Some((a, b)) => one(a)? / one(b)?,
        None => one(text)?,
    };
    if value.is_finite() { Ok(value) } else { Err("must be a finite number".into()) }
}

/// A factor on values: anything but zero.
pub(crate) fn factor(text: &str) -> Result<f64, String> {
    match number(text)? {
        0.0 => {
            Err("makes the same number of every value: give the factor that brings them to scale, such as 1/255".into())
        }
        factor => Ok(factor),
    }
}

/// Two numbers in order.
pub(crate) fn range(text: &str) -> Result<(f64, f64), String> {
    let (low, high) = text.split_once("..").ok_or("LO..HI is due, such as -1..1")?;
    let (low, high) = (number(low)?, number(high.trim_start_matches('='))?);
    if low < high { Ok((low, high)) } else { Err(format!("{low} is not below {high}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(number("1/255"), Ok(1.0 / 255.0));
        assert_eq!(range("-1..1"), Ok((-1.0, 1.0)));
        assert_eq!(range("0..=2"), Ok((0.0, 2.0)));
        for bad in ["1..1", "2..1", "1", "a..b", "nan..1", "0..inf"] {
            assert!(range(bad).is_err(), "{bad}");
        }
        assert!(number("1/0").is_err());
        assert_eq!(factor("-1/2"), Ok(-0.5));
        assert!(factor("0").unwrap_err().contains("such as 1/255") && factor("-0.0").is_err());
    }

    #[test]
    fn networks_become_judges_of_pairs() {
        let net = || bench_net("A", 1).unwrap();
        let made = judge(net(), 0.5).unwrap();
        assert_eq!((made.post, made.towers()), (Post::distance(0.5), 2));
        for bad in [0.0, -1.0, f64::NAN, 1e9] {
            assert!(judge(net(), bad).unwrap_err().to_string().contains("is not within"));
        }
        let ends = Graph { post: Post::Sigmoid, ..net() };
        assert!(judge(ends, 0.5).unwrap_err().to_string().contains("save it without"));
    }

    #[test]
    fn the_range_follows_the_scale() {
        let input = InputArgs { scale: 1.0 / 127.5, offset: -1.0, range: None };
        let e = input.encoding();
        assert_eq!((e.low, e.high), (-1.0, 1.0));
        let e = InputArgs { scale: 1.0 / 255.0, offset: 0.0, range: None }.encoding();
        assert_eq!(e, InputEncoding::default());
    }
}
