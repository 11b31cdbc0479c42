//! Models at alice's lanes: shared by an owner or published by a run, staged at all three, and removed.

use trefoil_mpc::masked::weights::open_weights;
use trefoil_proto::control::{Manifest, encode};
use trefoil_proto::run::Phase as Part;
use trefoil_ring::Tensor;

use super::*;
use crate::jobs::Upload;
use crate::models::plans;
use crate::runs::{Run, account};

impl Lane<'_> {
    pub(super) fn upload(&mut self, u: Upload) -> Result<(), Fault> {
        self.need_carol()?;
        let epoch = self.name_upload(&u.manifest.name)?;
        let done = self.upload_as(u, epoch);
        self.end_upload(epoch, done)
    }

    /// Numbers a model that is to be staged under a name that no other has.
    pub(super) fn name_upload(&self, name: &str) -> Result<u64, Fault> {
        let mut uploading = lock(&self.desk.uploading);
        if self.core.models.named(name).is_some() || uploading.iter().any(|(_, n)| n == name) {
            return Err(Fault::Refused(
                Refusal::Invalid,
                format!("a model named {name} exists: remove it first or choose another name"),
            ));
        }
        let epoch = self.core.store.take_lot()?;
        uploading.push((epoch, name.into()));
        Ok(epoch)
    }

    /// Clears up after an upload, whatever came of it.
    pub(super) fn end_upload(&mut self, epoch: u64, done: Result<(), Fault>) -> Result<(), Fault> {
        lock(&self.desk.uploading).retain(|(e, _)| *e != epoch);
        if done.is_err() && self.core.models.get(epoch).is_none() {
            self.core.store.erase(epoch)?;
        }
        if let Err(Fault::Producer(_) | Fault::Refused(..)) = &done {
            // The lane goes on, and bob may have staged what will not be.
            self.take_stock()?;
        }
        done
    }

    fn upload_as(&mut self, u: Upload, epoch: u64) -> Result<(), Fault> {
        let Upload { id, owner, manifest, shares } = u;
        let manifest_hash = *blake3::hash(&encode(&manifest)).as_bytes();
        let invalid = |reason: String| Fault::Refused(Refusal::Invalid, reason);
        plans(&manifest.program, manifest.window).map_err(invalid)?;
        let program = Some(Box::new((manifest.program.clone(), manifest.window)));
        let to_bob = Command::Upload { id, owner: owner.clone(), epoch, manifest_hash, program: None };
        let to_carol = Command::Upload { id, owner: owner.clone(), epoch, manifest_hash, program };
        let bob = Self::ask(self.bob.as_mut(), &to_bob).map_err(evaluator)?;
        let Some((link, _)) = &mut self.carol else { return Err(Fault::Own("no session with carol".into())) };
        let carol =
            if bob == Status::Ok { Self::ask(link.as_mut(), &to_carol).map_err(producer) } else { Ok(Status::Ok) };
        match (bob, carol) {
            (Status::Ok, Ok(Status::Ok)) => {}
            (Status::Ok, carol) => {
                say(self.bob.as_mut(), tag::COMMAND, &Command::Cancel).map_err(evaluator)?;
                return Err(match carol {
                    Err(fault) => fault,
                    Ok(Status::Refused { why, reason }) => Fault::Refused(why, reason),
                    Ok(other) => Fault::Producer(format!("carol answered {other:?}")),
                });
            }
            (Status::Refused { why, reason }, _) => return Err(Fault::Refused(why, reason)),
            (other, _) => return Err(Fault::Evaluator(format!("bob answered {other:?}"))),
        }
        self.go()?;
        self.open_model(epoch, owner, *manifest, shares, None)
    }

    /// Opens a model's weights under masks of its own, stages it everywhere and decides that it exists, if it comes of a
    /// run: unless that lacks an agreement by now.
    pub(super) fn open_model(
        &mut self,
        epoch: u64,
        owner: String,
        manifest: Manifest,
        shares: Vec<Tensor>,
        of: Option<&Run>,
    ) -> Result<(), Fault> {
        let Some((_, session)) = &self.carol else { return Err(Fault::Own("no session with carol".into())) };
        let source = session.source(Party::Carol, epoch).map_err(producer)?;
        let weights = open_weights(Role::A, &manifest.program, shares, &source, self.bob.as_mut());
        let weights = weights.map_err(|e| Fault::of(&e, Party::Bob))?;
        if let Some(run) = of {
            account(run, Part::Publish, self.bob.as_mut(), [None, None]);
        }
        self.bob.meter().take();
        let model = Model::new(epoch, owner, of.map(Run::origin), manifest, weights).map_err(Fault::Own)?;
        self.core.store.stage(&model.stored())?;
        self.everyone("stage")?;
        self.core.reached(Point::Staged);
        let name = model.public.name.clone();
        let owner = model.owner.clone();
        let commit = || {
            self.core.store.commit(epoch)?;
            self.core.reached(Point::Committed);
            self.core.models.insert(model);
            Ok::<_, Fault>(())
        };
        match of {
            None => commit()?,
            Some(run) => {
                run.while_agreed(self.core, commit).map_err(|reason| Fault::Refused(Refusal::Denied, reason))??
            }
        }
        self.tell_everyone(&Command::Commit { epoch })?;
        tracing::info!(owner, model = name, epoch, "model shared");
        Ok(())
    }

    /// Bob and carol first: alice's own part names the model until nobody else holds any.
    pub(super) fn remove(&mut self, model: &Model<EvaluatorWeights>) -> Result<(), Fault> {
        self.need_carol()?;
        let epoch = model.epoch;
        self.tell_everyone(&Command::Erase { epoch })?;
        self.core.models.remove(epoch);
        self.core.pool.retain(|kind, _| kind.0 != epoch);
        self.core.store.erase(epoch)?;
        tracing::info!(owner = model.owner, model = model.public.name, epoch, "model removed");
        Ok(())
    }
}
