//! The models a party holds: what is public about each, its weights or masks, and its programs by what they reveal.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use trefoil_mpc::cost::cost;
use trefoil_mpc::masked::weights::{HeldWeight, masked_weights};
use trefoil_mpc::masked::{EvaluatorWeights, ProducerWeights};
use trefoil_mpc::program::{Program, Reveal, Window};
use trefoil_proto::control::{MAX_BULK, Manifest, decode, encode};
use trefoil_ring::Tensor;

use crate::store::{StoredModel, StoredTensor};

/// Bytes of values and material that one request may take at a party.
const MAX_WORK: u64 = 16 << 30;
/// Samples whose cost is averaged: bits are packed into words across samples.
const PACKED: usize = 64;

/// A program that ends in a reveal, and the hash that all parties compare.
pub(crate) struct Plan {
    pub(crate) program: Program,
    pub(crate) hash: [u8; 32],
    /// Samples of one request, at most.
    pub(crate) most: u32,
}

impl Plan {
    fn new(program: Program) -> Result<Self, String> {
        let values = program.infer().map_err(|e| e.to_string())?;
        let held: u64 = values.iter().map(|v| 8 * v.elements() as u64).sum();
        let costs = cost(&program, PACKED).map_err(|e| e.to_string())?;
        let moved: u64 = costs.iter().map(|c| c.offline + c.online).sum();
        let one = held + moved.div_ceil(PACKED as u64);
        let bulk = MAX_BULK / 8 / values.first().map_or(1, |v| v.elements());
        let most = (MAX_WORK / one).min(bulk as u64);
        if most == 0 {
            return Err(format!("one sample takes {one} bytes of values and material: at most {MAX_WORK}"));
        }
        Ok(Self { hash: program.hash(), program, most: u32::try_from(most).unwrap_or(u32::MAX) })
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
    t.data().iter().flat_map(|w| w.to_le_bytes()).collect()
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
    pub(crate) public: W::Public,
    pub(crate) weights: W,
    plans: Vec<(Reveal, Arc<Plan>)>,
}

/// The plans of a program, one for each thing it can reveal. Fails if it can reveal nothing.
pub(crate) fn plans(program: &Program, window: Window) -> Result<Vec<(Reveal, Arc<Plan>)>, String> {
    let mut plans = Vec::new();
    let mut why = String::new();
    for reveal in [Reveal::Logits, Reveal::Label] {
        match program.ending_in(reveal, window).map_err(|e| e.to_string()).and_then(Plan::new) {
            Ok(plan) => plans.push((reveal, Arc::new(plan))),
            Err(e) => why = e,
        }
    }
    if plans.is_empty() { Err(why) } else { Ok(plans) }
}

impl<W: Parts> Model<W> {
    /// A model whose public part was checked by [`plans`].
    pub(crate) fn new(epoch: u64, owner: String, public: W::Public, weights: W) -> Result<Self, String> {
        let (program, window) = W::program(&public);
        let plans = plans(program, window)?;
        Ok(Self { epoch, owner, public, weights, plans })
    }

    pub(crate) fn plan(&self, reveal: Reveal) -> Option<Arc<Plan>> {
        self.plans.iter().find(|(r, _)| *r == reveal).map(|(_, p)| p.clone())
    }

    pub(crate) fn stored(&self) -> StoredModel {
        let public = W::encode(&self.public);
        StoredModel { epoch: self.epoch, owner: self.owner.clone(), public, tensors: self.weights.store() }
    }

    pub(crate) fn restore(stored: StoredModel) -> Result<Self, String> {
        let public = W::decode(&stored.public)?;
        let (program, _) = W::program(&public);
        if program.weights.len() != stored.tensors.len() {
            return Err(format!("{} tensors for {} weights", stored.tensors.len(), program.weights.len()));
        }
        let weights = W::restore(program, stored.tensors)?;
        Self::new(stored.epoch, stored.owner, public, weights)
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
