//! A model's weights at the servers: masked once at upload, used by every request while their value is unchanged.
//!
//! The owner sends additive shares. Tensors that enter products are opened to masked wires (one round, one ring element
//! per weight and evaluator) under masks of the model's own epoch; biases stay additive shares and never touch the
//! producer. What is kept is kept as values, not as seeds: no mask is ever drawn a second time.

use trefoil_link::Link;
use trefoil_prg::{Purpose, Source};
use trefoil_ring::{ShapeError, Tensor, Words};

use super::dealing::At;
use super::online::{Online, Role};
use crate::error::MpcError;
use crate::program::{Op, Program};

/// One tensor at an evaluator.
pub struct HeldWeight {
    /// Additive share.
    pub share: Tensor,
    /// The opened wire's delta, for tensors that enter products.
    pub delta: Option<Tensor>,
}

/// A model's weights at one evaluator.
pub struct EvaluatorWeights {
    held: Vec<HeldWeight>,
    negated: Vec<Option<Tensor>>,
}

impl EvaluatorWeights {
    /// Weights as they were kept. They must fit the program.
    pub fn new(program: &Program, held: Vec<HeldWeight>) -> Result<Self, MpcError> {
        let mut negated = Vec::with_capacity(held.len());
        for w in &held {
            let negate = |d: &Tensor| {
                let values = d.data().iter().map(|v| v.wrapping_neg()).collect();
                Tensor::new(d.shape().to_vec(), values).map_err(shape)
            };
            negated.push(w.delta.as_ref().map(negate).transpose()?);
        }
        let weights = Self { held, negated };
        weights.check(program)?;
        Ok(weights)
    }

    /// Whether these are weights of `program`: of its shapes, and opened where they enter its products.
    pub(crate) fn check(&self, program: &Program) -> Result<(), MpcError> {
        check_count(program, self.held.len())?;
        for ((spec, w), masked) in program.weights.iter().zip(&self.held).zip(masked_weights(program)) {
            check_shape(&spec.name, &spec.shape, w.share.shape())?;
            match (&w.delta, masked) {
                (Some(d), true) => check_shape(&spec.name, &spec.shape, d.shape())?,
                (None, false) => {}
                (has, _) => {
                    let got = if has.is_some() { "opened" } else { "not opened" };
                    return Err(MpcError::Input {
                        what: spec.name.clone(),
                        expected: "the other".into(),
                        got: got.into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The tensors, to be kept.
    pub fn held(&self) -> &[HeldWeight] {
        &self.held
    }

    pub(crate) fn share(&self, i: usize) -> &[u64] {
        self.held[i].share.data()
    }

    pub(crate) fn delta(&self, i: usize) -> &[u64] {
        self.held[i].delta.as_ref().map_or(&[], Tensor::data)
    }

    pub(crate) fn negated_delta(&self, i: usize) -> &[u64] {
        self.negated[i].as_ref().map_or(&[], Tensor::data)
    }
}

/// A model's masks at the producer: one for every tensor that enters products, empty for the others.
pub struct ProducerWeights {
    masks: Vec<Tensor>,
}

impl ProducerWeights {
    /// Masks as they were kept. They must fit the program.
    pub fn new(program: &Program, masks: Vec<Tensor>) -> Result<Self, MpcError> {
        let weights = Self { masks };
        weights.check(program)?;
        Ok(weights)
    }

    /// Whether these are masks of `program`'s weights.
    pub(crate) fn check(&self, program: &Program) -> Result<(), MpcError> {
        check_count(program, self.masks.len())?;
        for ((spec, m), masked) in program.weights.iter().zip(&self.masks).zip(masked_weights(program)) {
            let expected: &[usize] = if masked { &spec.shape } else { &[0] };
            check_shape(&spec.name, expected, m.shape())?;
        }
        Ok(())
    }

    /// The tensors, to be kept.
    pub fn masks(&self) -> &[Tensor] {
        &self.masks
    }

    pub(crate) fn mask(&self, i: usize) -> &[u64] {
        self.masks[i].data()
    }
}

/// Which of a program's tensors are opened: those that enter products.
pub fn masked_weights(program: &Program) -> Vec<bool> {
    let mut masked = vec![false; program.weights.len()];
    for step in &program.steps {
        if let Op::Linear { weights, .. } | Op::Weight { index: weights } = step.op
            && let Some(m) = masked.get_mut(weights)
        {
            *m = true;
        }
    }
    masked
}

/// At an evaluator: opens the owner's shares of the weights to masked wires. `carol` is the source of this upload's
/// epoch at this evaluator. One round for each tensor that enters products.
pub fn open_weights(
    role: Role,
    program: &Program,
    shares: Vec<Tensor>,
    carol: &Source,
    peer: &mut dyn Link,
) -> Result<EvaluatorWeights, MpcError> {
    program.infer()?;
    check_count(program, shares.len())?;
    let masked = masked_weights(program);
    let mut net = Online::new(role, peer);
    let mut held = Vec::with_capacity(shares.len());
    for (i, ((spec, share), masked)) in program.weights.iter().zip(shares).zip(masked).enumerate() {
        check_shape(&spec.name, &spec.shape, share.shape())?;
        if !masked {
            held.push(HeldWeight { share, delta: None });
            continue;
        }
        net.begin_step(i);
        let lambda = weight_mask(carol, i, share.len())?;
        let delta = net.open(share.into_vec().into(), &lambda)?;
        let mut own = lambda;
        own.iter_mut().zip(delta.iter()).for_each(|(l, d)| *l = role.public(*d).wrapping_sub(*l));
        held.push(HeldWeight {
            share: Tensor::new(spec.shape.clone(), own.into_vec()).map_err(shape)?,
            delta: Some(Tensor::new(spec.shape.clone(), delta.into_vec()).map_err(shape)?),
        });
    }
    EvaluatorWeights::new(program, held)
}

/// At the producer: the masks of a model's weights, from the sources of this upload's epoch. Nothing is sent.
pub fn draw_weight_masks(program: &Program, alice: &Source, bob: &Source) -> Result<ProducerWeights, MpcError> {
    program.infer()?;
    let mut masks = Vec::with_capacity(program.weights.len());
    for (i, (spec, masked)) in program.weights.iter().zip(masked_weights(program)).enumerate() {
        if !masked {
            masks.push(Tensor::from_vec(vec![]));
            continue;
        }
        let n = trefoil_ring::tensor::elements(&spec.shape).map_err(shape)?;
        let mut mask = weight_mask(alice, i, n)?;
        let other = weight_mask(bob, i, n)?;
        mask.iter_mut().zip(other.iter()).for_each(|(m, o)| *m = m.wrapping_add(*o));
        masks.push(Tensor::new(spec.shape.clone(), mask.into_vec()).map_err(shape)?);
    }
    ProducerWeights::new(program, masks)
}

fn weight_mask(source: &Source, weight: usize, n: usize) -> Result<Words, MpcError> {
    let mut words = Words::zeros(n);
    At::step(weight)?.stream(source, Purpose::WeightLambda)?.fill(&mut words);
    Ok(words)
}

fn check_count(program: &Program, got: usize) -> Result<(), MpcError> {
    if got == program.weights.len() {
        return Ok(());
    }
    let expected = format!("{} tensors", program.weights.len());
    Err(MpcError::Input { what: "the model's weights".into(), expected, got: got.to_string() })
}

fn check_shape(name: &str, expected: &[usize], got: &[usize]) -> Result<(), MpcError> {
    if got == expected {
        return Ok(());
    }
    Err(MpcError::Input { what: name.into(), expected: format!("shape {expected:?}"), got: format!("{got:?}") })
}

fn shape(e: ShapeError) -> MpcError {
    MpcError::Input { what: "a weight".into(), expected: "a tensor".into(), got: e.to_string() }
}
