//! Features of frozen layers: who computes them, and what the servers are given for it.

use trefoil_link::Network;
use trefoil_mpc::plan::choose;
use trefoil_mpc::program::{Program, WeightSpec};
use trefoil_nn::layers::initial;
use trefoil_nn::lower::{encode, extraction};
use trefoil_nn::train::TrainError;
use trefoil_nn::train::frozen::{Cut, cut};
use trefoil_proto::run::Extraction;
use trefoil_ring::Tensor;

use super::{Training, TrainingError};

/// Where the outputs of frozen layers are computed, if no trained layer comes before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// By the servers, on shares, once for each row.
    Servers,
    /// By the owners of the data, in the clear: the layers are public.
    Owners,
    /// By the servers, in every step.
    Steps,
}

impl Training {
    /// The network in two parts, where the first makes features once.
    pub fn cut(&self) -> Result<Option<Cut>, TrainingError> {
        Ok(if self.features == Features::Steps { None } else { cut(&self.graph, &self.spec)? })
    }
}

/// What the servers need for the extraction: it, and the first values of its weights, which become the next states of
/// `step`.
pub(super) fn extracting(
    cut: &Cut,
    step: &mut Program,
    batch: usize,
    network: &Network,
) -> Result<(Extraction, Vec<Tensor>), TrainingError> {
    let (tape, values) = cut.tape()?.folded(&initial(&cut.frozen)).map_err(TrainError::from)?;
    let program = choose(&extraction(&tape)?, batch, network, false)?;
    let first = step.states.len() as u32;
    let mut tensors = Vec::with_capacity(values.len());
    for (WeightSpec { name, shape, scale }, v) in program.weights.iter().zip(&values) {
        tensors.push(Tensor::new(shape.clone(), encode(name, v, *scale)?.to_vec())?);
    }
    step.states.extend(program.weights.iter().cloned());
    let weights = (first..).take(tensors.len()).collect();
    Ok((Extraction { program, weights, batch: batch as u32 }, tensors))
}
