//! Models that come of runs: whose word it takes until one is kept.
//!
//! Alice decides that a model exists; bob and carol are told. Each keeps what it has staged only if it comes of a run that
//! it knows itself, by number and hash; bob, as alice, only while all agree to that run, and only once.

use std::sync::Arc;

use trefoil_mpc::masked::EvaluatorWeights;
use trefoil_proto::control::Refusal;

use super::Run;
use crate::core::{Core, lock};
use crate::error::Fault;
use crate::models::{Model, Parts, Registry};
use crate::store::{Origin, StoreError};

impl Run {
    /// What its model says of where it comes from.
    pub(crate) fn origin(&self) -> Origin {
        Origin { run: self.number, hash: self.hash }
    }

    /// The model that it has published, at an evaluator.
    pub(crate) fn published(&self, core: &Core) -> Option<Arc<Model<EvaluatorWeights>>> {
        core.models.all().into_iter().find(|m| m.origin == Some(self.origin()))
    }
}

impl Core {
    /// Makes a staged model permanent and known, as alice says, if it may be.
    pub(crate) fn commit<W: Parts>(&self, models: &Registry<W>, epoch: u64) -> Result<(), Fault> {
        let _alone = lock(&self.reconciling);
        self.commit_alone(models, epoch)
    }

    /// The same for whoever holds the lock.
    pub(crate) fn commit_alone<W: Parts>(&self, models: &Registry<W>, epoch: u64) -> Result<(), Fault> {
        if models.get(epoch).is_some() {
            return Ok(());
        }
        let refused = |why, reason: String| Fault::Refused(why, format!("{}: {reason}", self.party));
        let staged = self.store.find(epoch)?;
        let staged = staged.ok_or_else(|| refused(Refusal::UnknownModel, format!("no model {epoch} is staged")))?;
        let origin = staged.origin;
        let model = Model::restore(staged).map_err(Fault::Own)?;
        let keep = || {
            self.store.commit(epoch)?;
            models.insert(model);
            Ok::<_, StoreError>(())
        };
        let Some(origin) = origin else { return Ok(keep()?) };
        let run = self.runs.get(origin.run).filter(|r| r.origin() == origin);
        let run =
            run.ok_or_else(|| refused(Refusal::UnknownRun, format!("the run that made model {epoch} is gone")))?;
        if run.published(self).is_some() {
            return Err(refused(Refusal::Mismatch, format!("run {} has published its model", run.spec.name)));
        }
        Ok(run.while_agreed(self, keep).map_err(|reason| refused(Refusal::Denied, reason))??)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::runs::keep::tests::stored;
    use crate::seal::StoreKey;
    use crate::store::{Checkpoint, Initial, Notes, Record, Share, Store};
    use trefoil_mpc::masked::ProducerWeights;
    use trefoil_mpc::masked::weights::HeldWeight;
    use trefoil_mpc::program::{Linear, Op, Program, Step, WeightSpec, Window};
    use trefoil_nn::graph::Post;
    use trefoil_prg::{Party, Seed};
    use trefoil_proto::control::{InputEncoding, Manifest};
    use trefoil_proto::dataset::{Block, Content, Declaration, Part};
    use trefoil_proto::run::{Position, RunSpec};
    use trefoil_ring::Tensor;
    use trefoil_transport::Security;

    const SET: u64 = 1;
    const RUN: u64 = 7;

    fn core(party: Party, dir: &Path) -> Core {
        let address = |p: Party| format!("[{p}]\naddress = \"127.0.0.1:{}\"\n", 9000 + p as u16);
        let text: String = Party::ALL.into_iter().map(address).collect();
        let cluster = format!("transport = \"tcp\"\n{text}").parse().unwrap();
        let store = Store::open(dir, party, StoreKey::from_seed(Seed::from_bytes([1; 32]))).unwrap();
        let config = (party, cluster, Security::Plain, None);
        Core::new(config, store, (0, Duration::from_secs(1)), None, None)
    }

    /// A set of one column, whose rows are all one owner's.
    fn declare(core: &Core, owner: &str) -> [u8; 32] {
        let content = Content::Values(InputEncoding::default());
        let declaration = Declaration {
            name: "wards".into(),
            rows: 4,
            fraction_bits: 16,
            metric_rows: 1,
            blocks: vec![Block { name: "x".into(), width: 1, content }],
            parts: vec![Part { owner: owner.into(), block: 0, first: 0, end: 4 }],
        };
        let hash = declaration.hash();
        let declaration = Box::new(declaration);
        core.sets.insert(SET, Record::Set { coordinator: "owner".into(), declaration }).unwrap();
        core.sets.insert(SET + 1, Record::Part { set: SET, part: 0, share: Share::Absent }).unwrap();
        hash
    }

    fn keep_run(core: &Core, spec: RunSpec) -> Arc<Run> {
        core.stage_run(RUN, Box::new(spec), Initial::Absent).unwrap();
        core.keep_run(RUN).unwrap();
        core.runs.get(RUN).unwrap()
    }

    /// A run to which its owner and ann have agreed.
    fn agreed(core: &Core) -> Arc<Run> {
        let declaration = declare(core, "ann");
        let run = keep_run(core, RunSpec { set: SET, declaration, ..*stored().spec });
        run.note_agreement(core, "ann", true).unwrap();
        run
    }

    fn program() -> Program {
        let map = Linear::Dense { inputs: 1, outputs: 1 };
        let ops = [Op::Input, Op::Open { x: 0 }, Op::Linear { x: 1, weights: 0, bias: None, map }];
        let steps = ops.into_iter().map(|op| Step { layer: "dense".into(), op }).collect();
        let weights = vec![WeightSpec { name: "w".into(), shape: vec![1, 1], scale: 16 }];
        Program { fraction_bits: 16, input_shape: vec![1], weights, states: vec![], rates: 0, steps }
    }

    const WINDOW: Window = Window { lo: 16, k: 32 };

    fn stage(core: &Core, epoch: u64, origin: Option<Origin>) {
        let program = program();
        let one = || Tensor::new(vec![1, 1], vec![1]).unwrap();
        let stored = match core.party {
            Party::Carol => {
                let weights = ProducerWeights::new(&program, vec![one()]).unwrap();
                Model::new(epoch, "owner".into(), origin, (program, WINDOW), weights).unwrap().stored()
            }
            _ => {
                let held = vec![HeldWeight { share: one(), delta: Some(one()) }];
                let weights = EvaluatorWeights::new(&program, held).unwrap();
                let manifest = Manifest {
                    name: "m".into(),
                    program,
                    window: WINDOW,
                    input: InputEncoding::default(),
                    post: Post::None,
                    grants: vec![],
                    ahead: vec![],
                };
                Model::new(epoch, "owner".into(), origin, manifest, weights).unwrap().stored()
            }
        };
        core.store.stage(&stored).unwrap();
    }

    /// Alice says that model `epoch` exists, in both ways that she has; it is refused, whichever she takes.
    fn is_refused<W: Parts>(core: &Core, models: &Registry<W>, epoch: u64, why: &str) {
        let Err(Fault::Refused(_, reason)) = core.commit(models, epoch) else { panic!("kept, though {why}") };
        assert!(reason.contains(why), "{reason}");
        let listed = [core.store.epochs().unwrap().0, vec![epoch]].concat();
        assert_eq!(core.reconcile(models, &listed, &[], 100).unwrap(), [epoch]);
        assert_eq!(core.store.epochs().unwrap().1, [epoch]);
    }

    #[test]
    fn bob_keeps_a_model_only_while_all_agree_to_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let bob = core(Party::Bob, dir.path());
        let run = agreed(&bob);
        stage(&bob, 20, Some(run.origin()));
        run.note_agreement(&bob, "ann", false).unwrap();
        is_refused(&bob, &bob.models, 20, "ann, who withdrew it");
        run.failed("without the agreement of ann, who withdrew it");
        run.note_agreement(&bob, "ann", true).unwrap();
        assert_eq!(run.info(&bob).note, "");
        assert!(bob.reconcile(&bob.models, &[20], &[], 100).unwrap().is_empty());
        assert_eq!(run.published(&bob).unwrap().epoch, 20);
        // Told once more, he has it; another of the same run he does not take.
        bob.commit(&bob.models, 20).unwrap();
        stage(&bob, 21, Some(run.origin()));
        is_refused(&bob, &bob.models, 21, "has published its model");
        // A commit that failed behind its renaming is taken up where it was, if it still may be.
        bob.store.erase(20).unwrap();
        bob.models.remove(20);
        bob.store.commit(21).unwrap();
        run.note_agreement(&bob, "ann", false).unwrap();
        assert!(matches!(bob.commit(&bob.models, 21), Err(Fault::Refused(Refusal::Denied, _))));
        run.note_agreement(&bob, "ann", true).unwrap();
        bob.commit(&bob.models, 21).unwrap();
        assert_eq!(run.published(&bob).unwrap().epoch, 21);
        // What an owner shares is nobody else's.
        stage(&bob, 22, None);
        bob.commit(&bob.models, 22).unwrap();
        assert!(matches!(bob.commit(&bob.models, 23), Err(Fault::Refused(Refusal::UnknownModel, _))));
    }

    #[test]
    fn alice_on_another_store_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let bob = core(Party::Bob, dir.path());
        agreed(&bob);
        stage(&bob, 20, None);
        bob.commit(&bob.models, 20).unwrap();
        let is_refused = |done: Result<Vec<u64>, Fault>, file: &str| {
            let Err(Fault::Refused(Refusal::Mismatch, reason)) = done else { panic!("not refused") };
            assert!(reason.contains("another store") && reason.contains(file), "{reason}");
        };
        is_refused(bob.reconcile(&bob.models, &[], &[], 100), "models/20.sealed");
        is_refused(bob.reconcile_runs(&[], &[], 100), &format!("runs/{RUN}.sealed"));
        // What is younger than the list, or was under way, is no sign.
        assert!(bob.reconcile(&bob.models, &[], &[], 20).unwrap().is_empty());
        assert!(bob.reconcile(&bob.models, &[], &[20], 100).unwrap().is_empty());
        assert!(bob.models.get(20).is_some());
    }

    #[test]
    fn a_run_that_is_over_leaves_no_states_whatever_came_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let alice = core(Party::Alice, dir.path());
        let initial = || Initial::Seed(vec![7; 32].into());
        alice.stage_run(RUN, stored().spec, initial()).unwrap();
        alice.keep_run(RUN).unwrap();
        let at = Position::START;
        alice.store.save(RUN, &Checkpoint { at, lot: 1, states: vec![vec![1; 8]] }).unwrap();
        alice.load_runs().unwrap();
        assert_eq!(alice.store.checkpoints(RUN).unwrap().len(), 1);
        // It dies when it has written that the run is over.
        alice.store.write_notes(RUN, &Notes { done: Some("over".into()), ..Notes::default() }).unwrap();
        alice.load_runs().unwrap();
        assert!(alice.store.checkpoints(RUN).unwrap().is_empty());
        assert!(matches!(alice.store.stored_run(RUN).unwrap().initial, Initial::Absent));
        assert_eq!(alice.store.notes(RUN).unwrap().done.as_deref(), Some("over"));
    }

    #[test]
    fn a_model_of_a_run_that_is_gone_or_another_is_not_kept() {
        for party in [Party::Bob, Party::Carol] {
            let dir = tempfile::tempdir().unwrap();
            let core = core(party, dir.path());
            let run = agreed(&core);
            stage(&core, 20, Some(run.origin()));
            core.erase_run(RUN).unwrap();
            let refused = |why| match party {
                Party::Carol => is_refused(&core, &core.masks, 20, why),
                _ => is_refused(&core, &core.models, 20, why),
            };
            refused("is gone");
            // Alice numbers another run, to which its own parties agreed, as that one.
            let other = RunSpec { name: "other".into(), ..run.spec.clone() };
            keep_run(&core, other).note_agreement(&core, "ann", true).unwrap();
            refused("is gone");
        }
    }

    #[test]
    fn another_set_under_the_same_number_brings_no_other_owners() {
        let dir = tempfile::tempdir().unwrap();
        let bob = core(Party::Bob, dir.path());
        let run = agreed(&bob);
        stage(&bob, 20, Some(run.origin()));
        run.note_agreement(&bob, "ann", false).unwrap();
        bob.erase_set(SET).unwrap();
        assert!(run.concerns(&bob, "ann") && !run.concerns(&bob, "bert"), "what was revealed stays to be seen");
        declare(&bob, "owner");
        is_refused(&bob, &bob.models, 20, "the data set of run prices is gone");
        assert!(run.unobstructed(&bob).is_err());
    }
}
