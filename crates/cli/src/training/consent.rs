//! What an owner can know of a run before agreeing: what its form tells, and whether it is the run of a description.

use std::path::Path;

use anyhow::{Context, bail};
use trefoil_client::{RunSpec, SetInfo};
use trefoil_link::Network;

use super::description::{Description, load};
use super::features::by_owners;

/// How the author of a run described it.
pub(crate) struct Described<'a> {
    /// The description.
    pub(crate) file: &'a Path,
    /// What it says.
    description: Description,
    /// The link that was planned for.
    network: Network,
}

impl<'a> Described<'a> {
    /// Reads the description at `file`, with its small sizes if `quick`, planned for `network`.
    pub(crate) fn read(file: &'a Path, quick: bool, network: Network) -> anyhow::Result<Self> {
        Ok(Self { file, description: load(file, quick)?, network })
    }
}

/// What the form of the programs tells, in words: how many rows are behind each metric, and states that may contain rows.
pub(crate) fn told_by_form(spec: &RunSpec, least: u32) -> Vec<String> {
    let mut all = vec!["Whatever is revealed is computed from what the run keeps, never from rows at once.".to_owned()];
    for (i, d) in spec.reveals.iter().enumerate() {
        if let Some(rows) = spec.rows_behind(&d.program) {
            all.push(format!("Reveal {} ({}): sums over at least {rows} rows of an epoch.", i + 1, d.purpose));
        }
    }
    for slot in spec.may_contain_rows(least) {
        let name = spec.step.states.get(slot as usize).map_or("", |s| s.name.as_str());
        all.push(format!(
            "WARNING: {name} may contain rows as they are, and leaves the servers: a step stores there what comes of rows \
             without a weight in between, or sums over less than {least} of them."
        ));
    }
    all
}

/// Rebuilds the run of a description for this data set, and compares it with the one at the servers.
pub(crate) fn compare(described: &Described, spec: &RunSpec, set: &SetInfo) -> anyhow::Result<()> {
    let mut d = described.description.clone();
    by_owners(&mut d, None)?;
    let training = &d.training;
    let file = described.file.display();
    if training.set != set.declaration.name {
        let (here, there) = (&training.set, &set.declaration.name);
        bail!("not agreed: {file} is for data set {here}, the run at the servers for {there}");
    }
    let own = training.plan(set, &spec.owner, &described.network);
    let own = own.with_context(|| format!("{file} describes no run on data set {}", training.set))?;
    match own.spec.difference(spec) {
        None => Ok(()),
        Some(differs) => bail!(
            "not agreed: the run at the servers is not the one of {file}: {differs} (\"here\" is the file; its author must \
             have used the same version, --network and --quick)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use trefoil_client::{Block, Content, Declaration, InputEncoding, Part, When};
    use trefoil_mpc::program::{Op, Step, WeightSpec};

    use super::*;
    use crate::training::explain::imagined;

    fn set() -> SetInfo {
        let block =
            |name: &str, width| Block { name: name.into(), width, content: Content::Values(InputEncoding::default()) };
        let part = |block| Part { owner: "ann".into(), block, first: 0, end: 64 };
        let declaration = Declaration {
            name: "wards".into(),
            rows: 64,
            fraction_bits: 16,
            metric_rows: 10,
            blocks: vec![block("x", 4), block("y", 1)],
            parts: vec![part(0), part(1)],
        };
        SetInfo { epoch: 7, coordinator: "owner".into(), declaration, arrived: vec![true; 2] }
    }

    const RUN: &str = "name = \"r\"\n[model]\ninput = [4]\nlayers = [{ dense = 6, activation = \"sigmoid\" }, { dense = 1 }]\n\
                       [loss]\nname = \"mean-squared-error\"\n[optimizer]\nname = \"adam\"\nrate = 0.1\n\
                       [train]\nset = \"wards\"\nepochs = 2\nbatch = 8\nvalidation = 0.25\n\
                       [reveal]\nmetrics = \"coordinator\"\nweights = \"owner\"\n";

    fn planned(text: &str) -> (tempfile::TempDir, RunSpec) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("run.toml"), text).unwrap();
        let d = load(&dir.path().join("run.toml"), false).unwrap();
        let set = set();
        let spec = d.training.plan(&set, "owner", &Network::LAN).unwrap().spec;
        (dir, spec)
    }

    #[test]
    fn the_run_of_a_description_is_told_from_every_other() {
        let (dir, spec) = planned(RUN);
        let file = dir.path().join("run.toml");
        let described = Described::read(&file, false, Network::LAN).unwrap();
        compare(&described, &spec, &set()).unwrap();
        let said = |spec: &RunSpec| compare(&described, spec, &set()).unwrap_err().to_string();
        // A step that keeps the sum of a batch's rows where the weights are: no name and no size differs.
        let mut malicious = spec.clone();
        let kernel = spec.step.states.iter().position(|s| s.name == "dense/kernel").unwrap();
        let at = spec.step.steps.iter().position(|s| matches!(s.op, Op::Store { slot, .. } if slot == kernel)).unwrap();
        malicious.step.steps[at].op = Op::Store { slot: kernel, x: 1 };
        let differs = said(&malicious);
        assert!(differs.contains(&format!("program of a step, step {at} (store of layer dense/kernel)")), "{differs}");
        let more = RunSpec { epochs: 3, ..spec.clone() };
        assert!(said(&more).contains("epochs: 2 here, 3 there"));
        let mut shown = spec.clone();
        shown.reveals[0].recipient = "eve".into();
        assert!(said(&shown).contains("recipient of reveal 0: \"owner\" here, \"eve\" there"));
        let other = Described { network: Network::WAN, ..described };
        assert!(compare(&other, &spec, &set()).unwrap_err().to_string().contains("--network"));
    }

    #[test]
    fn the_examples_are_not_suspected() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let normed = RUN
            .replace("layers = [", "layers = [{ batch_norm = true }, { dropout = 0.25 }, ")
            .replace("batch = 8", "batch = 16")
            .replace("weights = \"owner\"", "weights = \"owner\"\npublish = \"r\"");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("normed.toml"), normed).unwrap();
        let examples = ["hospitals", "lenet", "siamese", "transfer"].map(|n| folder.join(n).with_extension("toml"));
        for file in examples.into_iter().chain([dir.path().join("normed.toml")]) {
            let d = load(&file, true).unwrap();
            let declaration = if d.training.name == "r" { set().declaration } else { imagined(&d).unwrap() };
            let set = SetInfo { declaration, ..set() };
            let spec = d.training.plan(&set, "owner", &Network::LAN).unwrap().spec;
            assert!(spec.may_contain_rows(set.declaration.metric_rows).is_empty(), "{}", file.display());
            let metrics = spec.reveals.iter().filter(|r| r.when == When::EachEpoch);
            assert!(metrics.map(|r| spec.rows_behind(&r.program)).all(|n| n >= Some(10)), "{}", file.display());
        }
    }

    #[test]
    fn honest_runs_are_not_suspected_and_copied_rows_are() {
        let (_dir, spec) = planned(RUN);
        let told = told_by_form(&spec, 10);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].contains("sums over at least 16 rows of an epoch"), "{told:?}");
        let mut copies = RunSpec { batch: 1, ..spec };
        let slot = copies.step.states.len();
        let rows = copies.step.input_shape.clone();
        copies.step.states.push(WeightSpec { name: "momentum".into(), shape: rows, scale: 16 });
        let n = copies.step.steps.len();
        let ops = [
            Op::Sum { x: 0, keep: 1, batch: true },
            Op::Scale { x: n, factor: 2, extra: 1 },
            Op::Truncate { x: n + 1, shift: 1 },
            Op::Store { slot, x: n + 2 },
        ];
        copies.step.steps.extend(ops.map(|op| Step { layer: "optimiser".into(), op }));
        let reveal = copies.reveals.last_mut().unwrap();
        reveal.program.states.clone_from(&copies.step.states);
        reveal.program.steps[1].op = Op::State { slot };
        let told = told_by_form(&copies, 10);
        assert!(told.iter().any(|t| t.starts_with("WARNING: momentum may contain rows as they are")), "{told:?}");
    }
}
