//! What a training run will cost and reveal, before it runs.

use serde::Serialize;
use trefoil_client::training::{Features, learnt, words};
use trefoil_client::{Block, Content, Declaration, InputEncoding, METRIC_ROWS, Part, RunSpec, SetInfo};
use trefoil_link::Network;
use trefoil_mpc::cost::{StepCost, opening_weights};
use trefoil_mpc::plan;
use trefoil_mpc::program::Program;

use super::data::Source;
use super::description::Description;
use super::features::{self, ExtractionCost, by_owners, predicted};
use super::ranges::tried;
use crate::output;
use crate::plan::{layers, predict};
use crate::table::Table;

/// What one run of a program takes.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Cost {
    /// Rounds between the evaluators.
    pub(crate) rounds: u64,
    /// Bytes of all parties online.
    pub(crate) bytes_online: u64,
    /// Bytes that carol deals.
    pub(crate) bytes_offline: u64,
    /// Seconds online on the link, estimated.
    pub(crate) predicted_online_s: f64,
    /// Seconds offline.
    pub(crate) predicted_offline_s: f64,
}

#[derive(Serialize)]
struct LayerCost {
    layer: String,
    #[serde(flatten)]
    cost: Cost,
}

#[derive(Serialize)]
struct Explained {
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    name: String,
    network: Network,
    rows: u32,
    validation_rows: u32,
    batch: u32,
    epochs: u32,
    steps: u64,
    layers: Vec<LayerCost>,
    step: Cost,
    #[serde(skip_serializing_if = "Option::is_none")]
    extraction: Option<ExtractionCost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publication: Option<Cost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<String>,
    predicted_s: f64,
    reveals: Vec<String>,
    servers_learn: Vec<String>,
    ranges: Vec<String>,
}

impl Cost {
    pub(super) fn add(&mut self, o: &Cost) {
        self.rounds += o.rounds;
        self.bytes_online += o.bytes_online;
        self.bytes_offline += o.bytes_offline;
        self.predicted_online_s += o.predicted_online_s;
        self.predicted_offline_s += o.predicted_offline_s;
    }

    fn cells(&self) -> Vec<String> {
        let times = [self.predicted_online_s, self.predicted_offline_s].map(output::time);
        let bytes = [self.bytes_online, self.bytes_offline].map(output::bytes);
        std::iter::once(self.rounds.to_string()).chain(bytes).chain(times).collect()
    }
}

/// The cost of each layer of a program: forward and backward together.
fn by_layer(program: &Program, batch: u32, network: &Network) -> anyhow::Result<Vec<LayerCost>> {
    let mut all: Vec<LayerCost> = Vec::new();
    for l in layers(program, batch as usize)? {
        let (predicted_online_s, predicted_offline_s) = predict(network, &l);
        let (bytes_online, bytes_offline) = (l.bytes_online, l.bytes_offline);
        let cost = Cost { rounds: l.rounds, bytes_online, bytes_offline, predicted_online_s, predicted_offline_s };
        // A tensor's own steps count with its layer.
        let name = l.layer.split('/').next().unwrap_or_default();
        match all.iter_mut().find(|a| a.layer == name) {
            Some(a) => a.cost.add(&cost),
            None => all.push(LayerCost { layer: name.into(), cost }),
        }
    }
    Ok(all)
}

/// The cost of a whole program.
pub(crate) fn total(program: &Program, batch: u32, network: &Network) -> anyhow::Result<Cost> {
    let mut sum = Cost::default();
    by_layer(program, batch, network)?.iter().for_each(|l| sum.add(&l.cost));
    Ok(sum)
}

/// The cost of opening something.
pub(super) fn opened(c: &StepCost, network: &Network) -> Cost {
    let (predicted_online_s, _) = plan::predict(network, c);
    Cost { rounds: c.rounds, bytes_online: c.online, predicted_online_s, ..Cost::default() }
}

/// What it takes to publish the trained model: the program that computes its weights, if there is one, and their opening.
fn publishing(spec: &RunSpec, network: &Network) -> anyhow::Result<Option<Cost>> {
    let Some(publish) = &spec.publish else { return Ok(None) };
    let mut cost = opened(&opening_weights(&publish.manifest.program), network);
    if let Some(finish) = &publish.finish {
        cost.add(&total(finish, 1, network)?);
    }
    Ok(Some(cost))
}

/// The declaration of a set that is not there yet: as many columns as the network and its loss take.
pub(super) fn imagined(d: &Description) -> anyhow::Result<Declaration> {
    let rows = match (&d.source, d.rows) {
        (_, Some(rows)) => rows as u32,
        (Some(source), None) if d.training.features == Features::Owners => source.load()?.rows as u32,
        (Some(source), None) => return Ok(source.load()?.declaration(&d.training.set)),
        (None, None) => anyhow::bail!("[train] rows: how many rows does the set have?"),
    };
    let record = match d.training.cut()? {
        Some(cut) => cut.tape()?.record(),
        None => trefoil_nn::train::Tapes::new(&d.training.graph, &d.training.spec)?.record(),
    };
    let width = record as u32;
    let content = Content::Values(InputEncoding::default());
    let blocks = vec![Block { name: "columns".into(), width, content }];
    let parts = vec![Part { owner: "client".into(), block: 0, first: 0, end: rows }];
    let (name, metric_rows) = (d.training.set.clone(), METRIC_ROWS);
    Ok(Declaration { name, rows, fraction_bits: 16, metric_rows, blocks, parts })
}

/// Prints what the run would cost over `network` and what it would reveal.
pub(crate) fn explain(d: &Description, network: &Network, json: bool) -> anyhow::Result<()> {
    let ranges = tried(d);
    let mut d = d.clone();
    let owners = by_owners(&mut d, None)?;
    let note = d.source.as_ref().filter(|_| d.rows.is_none()).and_then(Source::note);
    let mut explained = Explained { note, ranges, ..explained(&imagined_run(&d, network)?, network)? };
    explained.features = explained.features.or(owners);
    if json { output::json(&explained) } else { explained.print() }
}

/// The run on such a set.
fn imagined_run(d: &Description, network: &Network) -> anyhow::Result<RunSpec> {
    let set = SetInfo { epoch: 0, coordinator: "owner".into(), declaration: imagined(d)?, arrived: Vec::new() };
    Ok(d.training.plan(&set, "owner", network)?.spec)
}

fn explained(spec: &RunSpec, network: &Network) -> anyhow::Result<Explained> {
    let step = total(&spec.step, spec.batch, network)?;
    let check = match &spec.check {
        Some(c) => {
            let each = total(&c.program, c.batch, network)?;
            let times = f64::from(spec.epochs) * f64::from(c.rows.rows() / c.batch);
            (each.predicted_online_s + each.predicted_offline_s) * times
        }
        None => 0.0,
    };
    let each = step.predicted_online_s + step.predicted_offline_s;
    let extraction = predicted(spec, network)?;
    let publication = publishing(spec, network)?;
    let once = extraction.iter().map(|e| &e.cost).chain(&publication);
    let once: f64 = once.map(|c| c.predicted_online_s + c.predicted_offline_s).sum();
    Ok(Explained {
        note: None,
        name: spec.name.clone(),
        network: *network,
        rows: spec.training.rows(),
        validation_rows: spec.check.as_ref().map_or(0, |c| c.rows.rows()),
        batch: spec.batch,
        epochs: spec.epochs,
        steps: spec.all_steps(),
        layers: by_layer(&spec.step, spec.batch, network)?,
        predicted_s: once + each * spec.all_steps() as f64 + check,
        step,
        extraction,
        publication,
        features: features::words(spec),
        reveals: words(spec),
        servers_learn: learnt(spec),
        ranges: Vec::new(),
    })
}

impl Explained {
    fn print(&self) -> anyhow::Result<()> {
        if let Some(note) = self.note {
            let rows = self.rows + self.validation_rows;
            output::line(format!("note: {note}; rows and times below are for {rows} of them"))?;
        }
        output::line(format!(
            "{}: {} of {} steps, each on {} of {} rows\n",
            self.name,
            output::count(self.epochs, "epoch"),
            self.steps / u64::from(self.epochs.max(1)),
            self.batch,
            self.rows
        ))?;
        let mut t = Table::new(&["layer", ">rounds", ">bytes online", ">offline", ">time online", ">offline"]);
        for l in self.layers.iter().filter(|l| l.cost.rounds + l.cost.bytes_offline > 0) {
            t.row(std::iter::once(l.layer.clone()).chain(l.cost.cells()).collect());
        }
        t.row(std::iter::once("a step".to_owned()).chain(self.step.cells()).collect());
        if let Some(e) = &self.extraction {
            t.row(std::iter::once("features, once".to_owned()).chain(e.cost.cells()).collect());
        }
        if let Some(cost) = &self.publication {
            t.row(std::iter::once("publication, once".to_owned()).chain(cost.cells()).collect());
        }
        output::line(t.text())?;
        output::line(format!(
            "\nRounds and bytes are exact; times are estimates, {} in all with checks and without working ahead.",
            output::time(self.predicted_s)
        ))?;
        if let Some(features) = &self.features {
            output::line(features)?;
        }
        print_reveals(&self.reveals, &self.servers_learn)?;
        self.ranges.iter().try_for_each(output::line)
    }
}

/// Prints what is revealed, and that nothing else is.
pub(crate) fn print_reveals(reveals: &[String], learnt: &[String]) -> anyhow::Result<()> {
    output::line("\nRevealed")?;
    if reveals.is_empty() {
        output::line("  nothing to anybody")?;
    }
    reveals.iter().try_for_each(|r| output::line(format!("  {r}")))?;
    learnt.iter().try_for_each(output::line)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::training::description::parse;

    const RUN: &str = "name = \"r\"\n[model]\ninput = [4]\nlayers = [{ dense = 3 }]\n[loss]\nname = \"cross-entropy\"\n\
                       [optimizer]\nname = \"sgd\"\nrate = 0.1\n[train]\nrows = 64\nepochs = 1\nbatch = 8\nvalidation = 0.25\n";

    fn explained_run(more: &str) -> anyhow::Result<Explained> {
        let d = parse(&format!("{RUN}{more}"), Path::new(""), false)?;
        explained(&imagined_run(&d, &Network::LAN)?, &Network::LAN)
    }

    #[test]
    fn what_leaks_to_whom_is_said() {
        let plain = explained_run("").unwrap();
        assert!(plain.reveals.is_empty());
        assert!(plain.servers_learn[0].ends_with("and the order of rows."));
        assert!(plain.servers_learn[1].contains("gradients and likelihoods stay shared"));
        let shown = |who: &str| explained_run(&format!("[privacy]\nlikelihoods = {who:?}")).unwrap();
        let cheaper = |e: &Explained| e.step.rounds + 10 < plain.step.rounds;
        let alice = shown("alice");
        let reveal =
            |rows| format!("to alice (the server): every {rows} row's class likelihoods, each time it is used");
        assert_eq!(alice.reveals, [reveal("training"), reveal("validation")]);
        assert!(
            alice.servers_learn[1]
                .starts_with("Alice, the server, learns every training and validation row's class likelihoods")
        );
        assert!(!alice.servers_learn[2].contains("likelihoods") && cheaper(&alice));
        let carol = shown("carol");
        let reveal = |rows| {
            let order = "in an order that hides which class is which";
            format!("to carol (the server): every {rows} row's class likelihoods, {order}, each time it is used")
        };
        assert_eq!(carol.reveals, [reveal("training"), reveal("validation")]);
        assert!(
            carol.servers_learn[1]
                .starts_with("Carol, the server, learns every training and validation row's class likelihoods")
        );
        assert!(carol.servers_learn[1].contains("a fresh order of the classes that\nonly alice and bob know"));
        assert!(!carol.servers_learn[2].contains("likelihoods") && cheaper(&carol));
        assert_eq!(carol.step.rounds, alice.step.rounds + 1, "her answer comes back");
        let helper = shown("helper");
        assert!(helper.reveals.iter().zip(&carol.reveals).all(|(h, c)| h.split(": ").nth(1) == c.split(": ").nth(1)));
        assert!(helper.reveals.iter().all(|r| r.starts_with("to helper (the fourth server): every ")));
        assert!(
            helper.servers_learn[1]
                .starts_with("The helper, a fourth server, learns every training and validation row's")
        );
        assert!(helper.servers_learn[1].contains("not which row it is"));
        assert_eq!(helper.step.rounds, carol.step.rounds);
        // Sixty-four bytes more of each evaluator, and no dealing.
        assert_eq!(helper.step.bytes_online, carol.step.bytes_online + 128);
        assert_eq!(helper.step.bytes_offline, carol.step.bytes_offline);
        let shuffled = explained_run("shuffle_rows = true").unwrap();
        assert!(shuffled.servers_learn[0].contains("no server knows whose a row is"));
    }

    #[test]
    fn publication_takes_a_program_where_weights_are_folded_and_their_opening() {
        let publish = "[reveal]\npublish = \"m\"\n";
        assert!(explained_run("").unwrap().publication.is_none());
        let cost = |layers: &str| {
            let text = format!("{RUN}{publish}").replace("layers = [", &format!("layers = [{layers}"));
            let d = parse(&text, Path::new(""), false).unwrap();
            let spec = imagined_run(&d, &Network::LAN).unwrap();
            let folds = spec.publish.as_ref().unwrap().finish.as_ref();
            let folds = folds.map(|p| total(p, 1, &Network::LAN).unwrap());
            (explained(&spec, &Network::LAN).unwrap().publication.unwrap(), folds)
        };
        let (plain, none) = cost("");
        assert!(none.is_none());
        assert_eq!((plain.rounds, plain.bytes_offline), (1, 0));
        let (normed, folds) = cost("{ batch_norm = true }, ");
        let folds = folds.unwrap();
        assert!(folds.rounds > 10 && folds.bytes_offline > 0);
        assert_eq!(normed.rounds, folds.rounds + plain.rounds);
        assert_eq!(normed.bytes_online, folds.bytes_online + plain.bytes_online);
        assert_eq!(normed.bytes_offline, folds.bytes_offline);
    }

    #[test]
    fn modes_that_do_not_exist_are_refused() {
        for who in ["bob", "dave", "servers"] {
            let e = explained_run(&format!("[privacy]\nlikelihoods = {who:?}")).err().unwrap().to_string();
            assert!(["does not exist", "\"alice\"", "\"carol\"", "\"helper\""].iter().all(|w| e.contains(w)), "{e}");
        }
    }
}
