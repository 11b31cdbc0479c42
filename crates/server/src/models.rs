//! The models a party holds: what is public about each, its weights or masks, and its programs by what they reveal.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use trefoil_mpc::masked::weights::{HeldWeight, masked_weights};
use trefoil_mpc::masked::{EvaluatorWeights, ProducerWeights};
use trefoil_mpc::program::{Op, Prediction, Program, Reveal, Window};
use trefoil_nn::graph::Post;
use trefoil_proto::control::{InputEncoding, MAX_BULK, Manifest, Refusal, decode, encode};
use trefoil_ring::Tensor;

use crate::error::Fault;
use crate::store::{Origin, StoredModel, StoredTensor};

/// A program that ends in a reveal, the hash that all parties compare, and the largest batch it may be run on.
pub(crate) struct Plan {
    pub(crate) program: Prediction,
    pub(crate) hash: [u8; 32],
    pub(crate) most: usize,
}

impl Plan {
    /// Refuses batches that no server can hold.
    pub(crate) fn fits(&self, batch: u32) -> Result<(), Fault> {
        if (1..=self.most).contains(&(batch as usize)) {
            return Ok(());
        }
        Err(Fault::Refused(Refusal::Invalid, format!("a batch of {batch}: 1 to {}", self.most)))
    }
}

/// A party's part of a model's tensors.
pub(crate) trait Parts: Sized {
    /// What is public about the model at this party.
    type Public;

    fn program(public: &Self::Public) -> (&Program, Window);
    fn encode(public: &Self::Public) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Result<Self::Public, String>;
    fn store(&self) -> Vec<StoredTensor>;
    fn restore(program: &Program, tensors: Vec<StoredTensor>) -> Result<Self, String>;
}

fn to_bytes(t: &Tensor) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(t.data()));
    t.data().iter().for_each(|w| bytes.extend_from_slice(&w.to_le_bytes()));
    bytes
}

fn to_tensor(shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
    let words = bytes.as_chunks::<8>().0.iter().map(|c| u64::from_le_bytes(*c)).collect();
    Tensor::new(shape.to_vec(), words).map_err(|e| e.to_string())
}

impl Parts for EvaluatorWeights {
    type Public = Manifest;

    fn program(public: &Manifest) -> (&Program, Window) {
        (&public.program, public.window)
    }

    fn encode(public: &Manifest) -> Vec<u8> {
        encode(public)
    }

    fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        decode("manifest", bytes).map_err(|e| e.to_string())
    }

    fn store(&self) -> Vec<StoredTensor> {
        let one = |w: &HeldWeight| StoredTensor { share: to_bytes(&w.share), delta: w.delta.as_ref().map(to_bytes) };
        self.held().iter().map(one).collect()
    }

    fn restore(program: &Program, tensors: Vec<StoredTensor>) -> Result<Self, String> {
        let one = |(spec, t): (&trefoil_mpc::program::WeightSpec, &StoredTensor)| {
            let delta = t.delta.as_ref().map(|d| to_tensor(&spec.shape, d)).transpose()?;
            Ok(HeldWeight { share: to_tensor(&spec.shape, &t.share)?, delta })
        };
        let held = program.weights.iter().zip(&tensors).map(one).collect::<Result<Vec<_>, String>>()?;
        EvaluatorWeights::new(program, held).map_err(|e| e.to_string())
    }
}

impl Parts for ProducerWeights {
    type Public = (Program, Window);

    fn program(public: &(Program, Window)) -> (&Program, Window) {
        (&public.0, public.1)
    }

    fn encode(public: &(Program, Window)) -> Vec<u8> {
        encode(public)
    }

    fn decode(bytes: &[u8]) -> Result<(Program, Window), String> {
        decode("program", bytes).map_err(|e| e.to_string())
    }

    fn store(&self) -> Vec<StoredTensor> {
        self.masks().iter().map(|m| StoredTensor { share: to_bytes(m), delta: None }).collect()
    }

    fn restore(program: &Program, tensors: Vec<StoredTensor>) -> Result<Self, String> {
        let masked = masked_weights(program);
        let one = |((spec, masked), t): ((&trefoil_mpc::program::WeightSpec, bool), &StoredTensor)| {
            to_tensor(if masked { &spec.shape } else { &[0] }, &t.share)
        };
        let masks = program.weights.iter().zip(masked).zip(&tensors).map(one).collect::<Result<Vec<_>, String>>()?;
        ProducerWeights::new(program, masks).map_err(|e| e.to_string())
    }
}

/// A model at this party.
pub(crate) struct Model<W: Parts> {
    pub(crate) epoch: u64,
    pub(crate) owner: String,
    /// The run that publishes it, if one does.
    pub(crate) origin: Option<Origin>,
    pub(crate) public: W::Public,
    pub(crate) weights: W,
    plans: Vec<(Reveal, Arc<Plan>)>,
}

/// Kinds of material that one model may ask for, and how much of each.
const AHEAD: (usize, u32) = (16, 1024);

/// Checks what an owner says about a model beside its program: what would do harm later to others.
pub(crate) fn check_manifest(m: &Manifest) -> Result<(), String> {
    let plans = plans(&m.program, m.window)?;
    let InputEncoding { scale, offset, low, high } = m.input;
    if ![scale, offset, low, high].iter().all(|v| v.is_finite()) || low > high {
        return Err(format!("an input encoding of scale {scale}, offset {offset}, range {low} to {high}"));
    }
    if matches!(m.post, Post::Distance { .. }) {
        check_pairs(m)?;
    }
    if m.ahead.len() > AHEAD.0 {
        return Err(format!("{} kinds of material to keep ready: at most {}", m.ahead.len(), AHEAD.0));
    }
    for a in &m.ahead {
        let plan = plans.iter().find(|(r, _)| *r == a.reveal);
        let (_, plan) = plan.ok_or_else(|| format!("material for {:?}, which this model cannot reveal", a.reveal))?;
        plan.fits(a.batch).map_err(|f| f.refusal().1)?;
        if a.count > AHEAD.1 {
            return Err(format!("material for {} requests to keep ready: at most {}", a.count, AHEAD.1));
        }
    }
    Ok(())
}

/// Checks that a program of pairs is one, and that what is said of its bound and its verdicts is so.
fn check_pairs(m: &Manifest) -> Result<(), String> {
    let (shape, infos) = (&m.program.input_shape, m.program.infer().map_err(|e| e.to_string())?);
    let (outputs, scale) = infos.last().map_or((0, 0), |v| (v.elements(), v.scale));
    if shape.first() != Some(&2) || outputs != 1 {
        return Err(format!("pairs in inputs of shape {shape:?}, {outputs} outputs for each"));
    }
    let label = m.grants.iter().any(|g| g.reveals.contains(&Reveal::Label));
    match (m.post.similar_below(), m.program.steps.last().map(|s| &s.op)) {
        (None, _) if label => Err("verdicts on pairs without a bound".into()),
        (None, _) => Ok(()),
        (Some(_), Some(Op::Offset { units, .. })) if m.post.bound(scale) == Some(*units) => Ok(()),
        (Some(bound), _) => Err(format!("pairs said to be similar below {bound}, by a program that has another bound")),
    }
}

/// The plans of a program, one for each thing it can reveal. Fails if it can reveal nothing.
pub(crate) fn plans(program: &Program, window: Window) -> Result<Vec<(Reveal, Arc<Plan>)>, String> {
    program.check_prediction().map_err(|e| e.to_string())?;
    let mut plans = Vec::new();
    let mut why = String::new();
    for reveal in [Reveal::Logits, Reveal::Label] {
        match program.ending_in(reveal, window) {
            Ok(p) => {
                let p = Prediction::new(p).map_err(|e| e.to_string())?;
                let inputs = p.input_shape.iter().product::<usize>().max(1);
                let most = p.largest_batch().min(MAX_BULK / 8 / inputs);
                plans.push((reveal, Arc::new(Plan { hash: p.hash(), program: p, most })));
            }
            Err(e) => why = e.to_string(),
        }
    }
    if plans.is_empty() { Err(why) } else { Ok(plans) }
}

impl<W: Parts> Model<W> {
    /// A model whose public part was checked by [`plans`].
    pub(crate) fn new(
        epoch: u64,
        owner: String,
        origin: Option<Origin>,
        public: W::Public,
        weights: W,
    ) -> Result<Self, String> {
        let (program, window) = W::program(&public);
        let plans = plans(program, window)?;
        Ok(Self { epoch, owner, origin, public, weights, plans })
    }

    pub(crate) fn plan(&self, reveal: Reveal) -> Option<Arc<Plan>> {
        self.plans.iter().find(|(r, _)| *r == reveal).map(|(_, p)| p.clone())
    }

    pub(crate) fn stored(&self) -> StoredModel {
        let (owner, public) = (self.owner.clone(), W::encode(&self.public));
        StoredModel { epoch: self.epoch, owner, origin: self.origin, public, tensors: self.weights.store() }
    }

    pub(crate) fn restore(stored: StoredModel) -> Result<Self, String> {
        let public = W::decode(&stored.public)?;
        let (program, _) = W::program(&public);
        if program.weights.len() != stored.tensors.len() {
            return Err(format!("{} tensors for {} weights", stored.tensors.len(), program.weights.len()));
        }
        let weights = W::restore(program, stored.tensors)?;
        Self::new(stored.epoch, stored.owner, stored.origin, public, weights)
    }
}

/// All models at this party, by epoch.
pub(crate) struct Registry<W: Parts>(RwLock<HashMap<u64, Arc<Model<W>>>>);

impl<W: Parts> Default for Registry<W> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<W: Parts> Registry<W> {
    pub(crate) fn insert(&self, model: Model<W>) {
        if let Ok(mut all) = self.0.write() {
            all.insert(model.epoch, Arc::new(model));
        }
    }

    pub(crate) fn remove(&self, epoch: u64) {
        if let Ok(mut all) = self.0.write() {
            all.remove(&epoch);
        }
    }

    pub(crate) fn get(&self, epoch: u64) -> Option<Arc<Model<W>>> {
        self.0.read().ok()?.get(&epoch).cloned()
    }

    /// All models, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Model<W>>> {
        let mut all: Vec<_> = self.0.read().map(|m| m.values().cloned().collect()).unwrap_or_default();
        all.sort_by_key(|m| m.epoch);
        all
    }
}

impl Registry<EvaluatorWeights> {
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Model<EvaluatorWeights>>> {
        self.all().into_iter().find(|m| m.public.name == name)
    }
}
