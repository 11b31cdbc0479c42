//! A training run as people write it: one TOML file, checked key by key.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use toml::{Table, Value};
use trefoil_client::training::Features;
use trefoil_client::{Reveals, Training};
use trefoil_import::keras_h5;
use trefoil_mpc::program::{Reveal, Shown};
use trefoil_nn::graph::{Graph, Post};
use trefoil_nn::layers::named;
use trefoil_nn::train::TrainSpec;
use trefoil_nn::train::init::Init;
use trefoil_proto::one_line;

use super::data::Source;
use super::layers;
use super::method::{On, flag, loss, method};
use super::section::{Section, choose};
use crate::model::whole;

/// Longest file read.
const LONGEST: u64 = 1 << 20;
/// The most rows of a set, epochs of a run, and so on.
const MOST: u64 = 1 << 26;

/// Everything about a run.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    /// What the servers are given, or what is trained in the clear.
    pub(crate) training: Training,
    /// Where rows come from without a cluster.
    pub(crate) source: Option<Source>,
    /// The set's rows for --dry-run, where no source says them.
    pub(crate) rows: Option<usize>,
    /// What is trained in the clear beforehand.
    pub(crate) pretrain: Option<Pretrain>,
    /// Files that it reads: not to be written.
    pub(crate) reads: Vec<PathBuf>,
}

/// Training in the clear on data of the owner's own, before the private run.
#[derive(Debug, Clone)]
pub(crate) struct Pretrain {
    /// How.
    pub(crate) spec: TrainSpec,
    /// On what.
    pub(crate) source: Source,
    /// Layers that get new weights afterwards.
    pub(crate) renew: Vec<String>,
}

/// Reads a description; `quick` takes the sizes in its `[quick]` section.
pub(crate) fn load(path: &Path, quick: bool) -> anyhow::Result<Description> {
    if !path.exists() {
        let there = "a run is described in a TOML file (docs/training.md; examples/lenet.toml is one)";
        bail!("there is no file {}: {there}", path.display());
    }
    let read = || -> anyhow::Result<Description> {
        let length = std::fs::metadata(path)?.len();
        if length > LONGEST {
            bail!("{length} bytes: a description has at most {LONGEST}");
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        parse(&std::fs::read_to_string(path)?, folder, quick)
    };
    read().with_context(|| format!("no usable run at {}", path.display()))
}

/// Reads the text of a description; files it names are relative to `folder`.
pub(super) fn parse(text: &str, folder: &Path, quick: bool) -> anyhow::Result<Description> {
    let mut file = Section::new("", text.parse::<Table>().map_err(|e| anyhow::anyhow!(one_line(text, &e)))?);
    let name = file.text("name")?;
    let name = file.need("name", name)?;
    let small = match file.section("quick")? {
        Some(s) => Quick::read(s)?,
        None => Quick::default(),
    };
    let small = if quick { small } else { Quick::default() };
    let part = file.section("model")?;
    let mut reads = Vec::new();
    let (graph, mut frozen, features) = network(file.need("[model]", part)?, folder, &mut reads)?;
    let loss = loss(file.section("loss")?)?;
    let part = file.section("optimizer")?;
    let how = method(file.need("[optimizer]", part)?, On::Shares)?;
    let part = file.section("train")?;
    let mut s = file.need("[train]", part)?;
    let set = s.text("set")?.unwrap_or_else(|| name.clone());
    let rows = s.count("rows", 1, MOST)?.map(|n| n as usize);
    let epochs = s.count("epochs", 1, 100_000)?;
    let epochs = small.epochs.unwrap_or(s.need("epochs", epochs)? as usize);
    let batch = s.count("batch", 1, 1 << 16)?.unwrap_or(128) as usize;
    let batch = small.batch.unwrap_or(batch);
    let validation = s.number("validation", 0.0, 0.9)?.unwrap_or(0.0);
    let seed = s.count("seed", 0, i64::MAX as u64)?.unwrap_or(1);
    let order = s.text("order")?.unwrap_or_else(|| "seed".into());
    let drawn = choose(&order, &[("seed", false), ("servers", true)]).map_err(|e| s.wrong("order", e))?;
    let shuffle = flag(&mut s, "shuffle_rows")?;
    let checkpoint = s.count("checkpoint", 1, 1 << 30)?.unwrap_or(100) as u32;
    let patience = s.count("patience", 1, 100_000)?.map(|n| n as u32);
    frozen.extend(s.texts("frozen")?.unwrap_or_default());
    s.end()?;
    let part = file.section("reveal")?;
    let reveal = part.map(reveals).transpose()?.unwrap_or_default();
    let likelihoods = file.section("privacy")?.map(privacy).transpose()?.unwrap_or_default();
    let source = file.section("data")?.map(|s| Source::read(s, folder)).transpose()?;
    let source = source.map(|s| s.limited(small.rows));
    let spec = TrainSpec {
        loss,
        optimiser: how.optimiser,
        schedule: how.schedule,
        epochs,
        batch,
        validation,
        clip: how.clip,
        weight_decay: how.weight_decay,
        decoupled_decay: how.decoupled_decay,
        frozen,
        likelihoods,
        seed,
    };
    let pretrain = file.section("pretrain")?.map(|s| pretraining(s, &spec, folder, &small)).transpose()?;
    file.end()?;
    spec.check()?;
    for name in spec.frozen.iter().chain(pretrain.iter().flat_map(|p| &p.renew)) {
        if graph.nodes.iter().all(|n| n.name != *name) {
            bail!("there is no layer {name:?}: {}", names(&graph));
        }
    }
    let still = |name: &str| spec.frozen.iter().any(|f| name.split('/').next() == Some(f));
    if named(&graph).next().is_none() {
        bail!("nothing is there to train: no layer of the network has weights");
    }
    if named(&graph).all(|(name, _)| still(&name)) {
        bail!("nothing is left to train: every layer with weights is frozen");
    }
    let training = Training { name, graph, spec, features, set, drawn, shuffle, checkpoint, patience, reveal };
    let sources = source.iter().chain(pretrain.iter().map(|p| &p.source));
    reads.extend(sources.flat_map(Source::files));
    Ok(Description { training, source, rows, pretrain, reads })
}

/// Layers that have weights.
fn names(graph: &Graph) -> String {
    graph.nodes.iter().skip(1).map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Sizes that end in a minute or two.
#[derive(Debug, Clone, Copy, Default)]
struct Quick {
    rows: Option<usize>,
    epochs: Option<usize>,
    batch: Option<usize>,
    pretrain_rows: Option<usize>,
}

impl Quick {
    fn read(mut s: Section) -> anyhow::Result<Self> {
        let size = |n: Option<u64>| n.map(|n| n as usize);
        let rows = size(s.count("rows", 1, MOST)?);
        let (epochs, batch) = (size(s.count("epochs", 1, 100_000)?), size(s.count("batch", 1, 1 << 16)?));
        let quick = Self { rows, epochs, batch, pretrain_rows: size(s.count("pretrain_rows", 1, MOST)?) };
        s.end()?;
        Ok(quick)
    }
}

fn network(mut s: Section, folder: &Path, reads: &mut Vec<PathBuf>) -> anyhow::Result<(Graph, Vec<String>, Features)> {
    let seed = s.count("seed", 0, i64::MAX as u64)?.unwrap_or(1);
    let input = s.counts("input", 1, 1 << 20)?;
    let init = match s.text("init")? {
        None => None,
        Some(t) => Some(choose(&t, &[("glorot", Init::Glorot), ("he", Init::He)]).map_err(|e| s.wrong("init", e))?),
    };
    let (file, net, list) = (s.text("file")?, s.text("net")?, s.value("layers"));
    let mut frozen = Vec::new();
    let mut graph = match (file, net, list) {
        (Some(file), None, None) => {
            let path = folder.join(file);
            let read = keras_h5::load_to_train(&path);
            let model = read
                .map_err(|e| whole(&path, e))
                .with_context(|| format!("cannot train the model {}", path.display()))?;
            frozen = model.frozen;
            reads.push(path);
            model.graph
        }
        (None, Some(net), None) => layers::built_in(&net, seed)?,
        (None, None, Some(Value::Array(list))) => {
            let input = s.need("input", input)?;
            if list.is_empty() {
                return Err(s.wrong("layers", "there are none: list them, such as [\"flatten\", { dense = 10 }]"));
            }
            layers::network(&input, list, seed, init)?
        }
        (None, None, Some(v)) => return Err(s.wrong("layers", format!("a list is due, not {v}"))),
        (None, None, None) => bail!("[model] one of layers, file and net is due"),
        _ => bail!("[model] layers, file and net exclude each other"),
    };
    frozen.extend(s.texts("frozen")?.unwrap_or_default());
    let features = s.text("features")?.unwrap_or_else(|| "servers".into());
    let known = [("servers", Features::Servers), ("owners", Features::Owners), ("steps", Features::Steps)];
    let features = choose(&features, &known).map_err(|e| s.wrong("features", e))?;
    if let Some(post) = s.text("answer")? {
        let known = [("none", Post::None), ("softmax", Post::Softmax), ("sigmoid", Post::Sigmoid)];
        graph.post = choose(&post, &known).map_err(|e| s.wrong("answer", e))?;
    }
    s.end()?;
    Ok((graph, frozen, features))
}

fn reveals(mut s: Section) -> anyhow::Result<Reveals> {
    let metrics = s.text("metrics")?.unwrap_or_else(|| "none".into());
    let metrics = choose(&metrics, &[("none", false), ("coordinator", true)]).map_err(|e| s.wrong("metrics", e))?;
    let weights = s.text("weights")?.filter(|w| w != "none");
    let publish = s.text("publish")?.filter(|p| p != "none");
    let answers = s.texts("answers")?;
    let kinds = [("logits", Reveal::Logits), ("label", Reveal::Label)];
    let answers = answers.map(|all| all.iter().map(|t| choose(t, &kinds)).collect::<Result<Vec<Reveal>, _>>());
    let answers = answers.transpose().map_err(|e| s.wrong("answers", e))?;
    let similar_below = s.number("similar_below", 1.0 / 256.0, 1e6)?;
    if answers.as_ref().is_some_and(Vec::is_empty) {
        return Err(s.wrong("answers", "names nothing: \"label\", \"logits\" or both"));
    }
    if publish.is_none() && (answers.is_some() || similar_below.is_some()) {
        bail!("[reveal] answers and similar_below are for a model that is served: publish names it");
    }
    s.end()?;
    Ok(Reveals { metrics, weights, publish, answers, similar_below })
}

/// Class likelihoods stay secret unless the file says which server is to learn them.
fn privacy(mut s: Section) -> anyhow::Result<Option<Shown>> {
    let likelihoods = match s.text("likelihoods")?.as_deref() {
        None | Some("none") => None,
        Some("alice") => Some(Shown::Alice),
        Some("carol") => Some(Shown::Carol),
        Some("helper") => Some(Shown::Helper),
        Some(other) => {
            let what = format!(
                "{other:?} does not exist: \"none\", by which no server sees a likelihood, \"helper\" or \"carol\", by which a \
                 fourth server or she sees every row's without their classes, or \"alice\", by which she sees them with \
                 their classes"
            );
            return Err(s.wrong("likelihoods", what));
        }
    };
    s.end()?;
    Ok(likelihoods)
}

fn pretraining(mut s: Section, run: &TrainSpec, folder: &Path, small: &Quick) -> anyhow::Result<Pretrain> {
    let epochs = s.count("epochs", 1, 100_000)?;
    let epochs = s.need("epochs", epochs)? as usize;
    let batch = s.count("batch", 1, 1 << 16)?.unwrap_or(32) as usize;
    let renew = s.texts("renew")?.unwrap_or_default();
    let part = s.section("optimizer")?;
    let how = method(s.need("optimizer", part)?, On::Clear)?;
    let part = s.section("data")?;
    let source = Source::read(s.need("data", part)?, folder)?.limited(small.pretrain_rows);
    s.end()?;
    let spec = TrainSpec {
        optimiser: how.optimiser,
        schedule: how.schedule,
        epochs,
        batch,
        validation: 0.0,
        clip: how.clip,
        weight_decay: how.weight_decay,
        decoupled_decay: how.decoupled_decay,
        frozen: Vec::new(),
        ..run.clone()
    };
    spec.check()?;
    Ok(Pretrain { spec, source, renew })
}

/// A file named in a description.
pub(super) fn beside(folder: &Path, file: &str) -> PathBuf {
    folder.join(file)
}
