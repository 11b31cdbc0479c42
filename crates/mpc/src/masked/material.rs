//! What an evaluator holds ready for one request: the offline phase's result, used once.

use std::sync::Arc;
use std::time::Duration;

use trefoil_ring::Words;

use super::argmax::ArgmaxMaterial;
use super::compare::CompareMaterial;
use super::likelihood::LikelihoodMaterial;
use super::online::Role;
use super::permuted::PermutedMaterial;
use super::piecewise::PiecewiseMaterial;
use super::pool::MaxMaterial;
use super::product::ProductMaterial;
use super::relu::{ReluMaterial, SelectMaterial};
use super::truncate::TruncateMaterial;

/// Material of one step.
#[derive(Default)]
pub(crate) enum StepMaterial {
    /// The step is local.
    #[default]
    Local,
    /// This party's part of the wire's fresh mask, which the dealing of later steps reads as well.
    Open(Arc<Words>),
    /// h_i of a product.
    Linear(Words),
    Product(Box<ProductMaterial>),
    Truncate(TruncateMaterial),
    Relu(Box<ReluMaterial>),
    Max(Box<MaxMaterial>),
    Argmax(Box<ArgmaxMaterial>),
    Sign(Box<CompareMaterial>),
    Select(Box<SelectMaterial>),
    /// Shares of the bits' masks as numbers.
    Bit(Words),
    Piecewise(Box<PiecewiseMaterial>),
    Likelihoods(Box<LikelihoodMaterial>),
    Permuted(Box<PermutedMaterial>),
    /// Bits that all servers know.
    Pattern(Arc<Words>),
    /// What re-randomises an output.
    Reveal(Words),
}

impl StepMaterial {
    /// Words held.
    pub(crate) fn words(&self) -> usize {
        match self {
            StepMaterial::Local => 0,
            StepMaterial::Open(w) | StepMaterial::Pattern(w) => w.len(),
            StepMaterial::Linear(w) | StepMaterial::Bit(w) | StepMaterial::Reveal(w) => w.len(),
            StepMaterial::Product(m) => m.words(),
            StepMaterial::Sign(m) => m.words(),
            StepMaterial::Select(m) => m.words(),
            StepMaterial::Likelihoods(m) => m.words(),
            StepMaterial::Permuted(m) => m.words(),
            StepMaterial::Piecewise(m) => m.words(),
            StepMaterial::Truncate(m) => m.words(),
            StepMaterial::Relu(m) => m.words(),
            StepMaterial::Max(m) => m.words(),
            StepMaterial::Argmax(m) => m.words(),
        }
    }
}

/// One lot's material for one program and batch at one evaluator. It is consumed by the evaluation; its contents are
/// erased on drop and never shown.
pub struct Material {
    pub(crate) role: Role,
    pub(crate) program: [u8; 32],
    pub(crate) batch: usize,
    pub(crate) lot: u64,
    /// The public numbers of a step of training.
    pub(crate) rates: Vec<i64>,
    pub(crate) steps: Vec<StepMaterial>,
    pub(crate) time: Duration,
}

impl Material {
    /// The lot it was drawn from.
    pub fn lot(&self) -> u64 {
        self.lot
    }

    /// Bytes it takes in memory: what the offline phase drew or received.
    pub fn bytes(&self) -> u64 {
        8 * self.steps.iter().map(|s| s.words() as u64).sum::<u64>()
    }

    /// How long it took to prepare, waiting for the producer included.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// How many samples it serves.
    pub fn batch(&self) -> usize {
        self.batch
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Material({:?}, lot {}, batch {})", self.role, self.lot, self.batch)
    }
}
