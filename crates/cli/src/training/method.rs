//! Loss, optimiser and learning rate as people write them.

use anyhow::anyhow;
use toml::Value;
use trefoil_nn::train::{Clip, Decay, Loss, Optimiser, Schedule};

use super::section::{Section, choose};

/// Rates, margins and the like: what is above no user means.
const LARGE: f64 = 1e6;
/// Below one, as a part that is kept.
const PART: f64 = 0.999_999_9;

#[derive(Clone, Copy)]
enum LossName {
    CrossEntropy,
    Binary,
    Squared,
    Contrastive,
    Triplet,
}

/// `[loss]`: softmax cross-entropy if left out.
pub(super) fn loss(section: Option<Section>) -> anyhow::Result<Loss> {
    let Some(mut s) = section else { return Ok(Loss::SoftmaxCrossEntropy) };
    let name = s.text("name")?;
    let name = s.need("name", name)?;
    let known = [
        ("cross-entropy", LossName::CrossEntropy),
        ("binary-cross-entropy", LossName::Binary),
        ("mean-squared-error", LossName::Squared),
        ("contrastive", LossName::Contrastive),
        ("triplet", LossName::Triplet),
    ];
    let loss = match choose(&name, &known).map_err(|e| s.wrong("name", e))? {
        LossName::CrossEntropy => Loss::SoftmaxCrossEntropy,
        LossName::Binary => Loss::BinaryCrossEntropy,
        LossName::Squared => Loss::MeanSquaredError,
        LossName::Contrastive => Loss::Contrastive { margin: s.number("margin", 1e-6, LARGE)?.unwrap_or(1.0) },
        LossName::Triplet => Loss::Triplet { margin: s.number("margin", 1e-6, LARGE)?.unwrap_or(1.0) },
    };
    s.end()?;
    Ok(loss)
}

/// What `[optimizer]` says.
pub(super) struct Method {
    pub(super) optimiser: Optimiser,
    pub(super) schedule: Schedule,
    pub(super) clip: Option<Clip>,
    pub(super) weight_decay: f64,
    pub(super) decoupled_decay: bool,
}

#[derive(Clone, Copy)]
enum OptimiserName {
    Sgd,
    RmsProp,
    Adam,
    AmsGrad,
}

/// Where an optimiser runs: what the smallest epsilon is.
#[derive(Clone, Copy)]
pub(super) enum On {
    /// On shares too: fixed point resolves none that is smaller than 1e-4.
    Shares,
    /// In the clear alone.
    Clear,
}

/// `[optimizer]`.
pub(super) fn method(mut s: Section, on: On) -> anyhow::Result<Method> {
    let name = s.text("name")?;
    let name = s.need("name", name)?;
    let known = [
        ("sgd", OptimiserName::Sgd),
        ("rmsprop", OptimiserName::RmsProp),
        ("adam", OptimiserName::Adam),
        ("amsgrad", OptimiserName::AmsGrad),
    ];
    let optimiser = match choose(&name, &known).map_err(|e| s.wrong("name", e))? {
        OptimiserName::Sgd => {
            let momentum = s.number("momentum", 0.0, PART)?.unwrap_or(0.0);
            let nesterov = flag(&mut s, "nesterov")?;
            match (nesterov, momentum) {
                (true, 0.0) => return Err(s.wrong("nesterov", "needs a momentum")),
                (true, _) => Optimiser::Nesterov { momentum },
                (false, 0.0) => Optimiser::Sgd,
                (false, _) => Optimiser::Momentum { momentum },
            }
        }
        OptimiserName::RmsProp => {
            let decay = s.number("decay", 0.0, PART)?.unwrap_or(0.9);
            Optimiser::RmsProp { decay, epsilon: epsilon(&mut s, on)? }
        }
        OptimiserName::Adam => {
            let (beta1, beta2) = betas(&mut s)?;
            Optimiser::Adam { beta1, beta2, epsilon: epsilon(&mut s, on)? }
        }
        OptimiserName::AmsGrad => {
            let (beta1, beta2) = betas(&mut s)?;
            Optimiser::AmsGrad { beta1, beta2, epsilon: epsilon(&mut s, on)? }
        }
    };
    let rate = s.number("rate", 1e-9, LARGE)?;
    let rate = s.need("rate", rate)?;
    let decay = match s.section("schedule")? {
        None => Decay::Constant,
        Some(s) => schedule(s)?,
    };
    let warm_up = s.count("warm_up", 1, 1 << 40)?.unwrap_or(0);
    let by_value = s.number("clip_value", 1e-9, LARGE)?;
    let by_norm = s.number("clip_norm", 1e-9, LARGE)?;
    let clip = match (by_value, by_norm) {
        (Some(_), Some(_)) => return Err(s.wrong("clip_norm", "clip_value is there too: one of them")),
        (Some(v), None) => Some(Clip::Value(v)),
        (None, Some(v)) => Some(Clip::Norm(v)),
        (None, None) => None,
    };
    let weight_decay = s.number("weight_decay", 0.0, LARGE)?.unwrap_or(0.0);
    let decoupled_decay = flag(&mut s, "decoupled_decay")?;
    s.end()?;
    let schedule = Schedule { rate, decay, warm_up };
    Ok(Method { optimiser, schedule, clip, weight_decay, decoupled_decay })
}

fn epsilon(s: &mut Section, on: On) -> anyhow::Result<f64> {
    let (least, default) = match on {
        On::Shares => (1e-4, 1e-3),
        On::Clear => (1e-12, 1e-7),
    };
    Ok(s.number("epsilon", least, 1.0)?.unwrap_or(default))
}

fn betas(s: &mut Section) -> anyhow::Result<(f64, f64)> {
    let beta1 = s.number("beta1", 0.0, PART)?.unwrap_or(0.9);
    Ok((beta1, s.number("beta2", 0.0, PART)?.unwrap_or(0.999)))
}

/// `true` or `false`; false if left out.
pub(super) fn flag(s: &mut Section, key: &'static str) -> anyhow::Result<bool> {
    match s.value(key) {
        None => Ok(false),
        Some(Value::Boolean(b)) => Ok(b),
        Some(v) => Err(s.wrong(key, format!("true or false is due, not {v}"))),
    }
}

#[derive(Clone, Copy)]
enum DecayName {
    Constant,
    Step,
    Exponential,
    Table,
}

fn schedule(mut s: Section) -> anyhow::Result<Decay> {
    let name = s.text("name")?;
    let name = s.need("name", name)?;
    let known = [
        ("constant", DecayName::Constant),
        ("step", DecayName::Step),
        ("exponential", DecayName::Exponential),
        ("table", DecayName::Table),
    ];
    let decay = match choose(&name, &known).map_err(|e| s.wrong("name", e))? {
        DecayName::Constant => Decay::Constant,
        DecayName::Step => {
            let every = s.count("every", 1, 1 << 20)?.unwrap_or(1) as usize;
            Decay::Step { every, factor: factor(&mut s)? }
        }
        DecayName::Exponential => Decay::Exponential { factor: factor(&mut s)? },
        DecayName::Table => {
            let rates = s.value("rates");
            let Value::Array(all) = s.need("rates", rates)? else {
                return Err(s.wrong("rates", "a list of numbers is due"));
            };
            let rate = |v: &Value| {
                let rate = v.as_float().or(v.as_integer().map(|i| i as f64)).filter(|r| *r > 0.0 && *r <= LARGE);
                rate.ok_or_else(|| s.wrong("rates", format!("{v} is no learning rate")))
            };
            let rates: Vec<f64> = all.iter().map(rate).collect::<anyhow::Result<_>>()?;
            if rates.is_empty() {
                return Err(anyhow!("[optimizer.schedule] rates: none"));
            }
            Decay::Table { rates }
        }
    };
    s.end()?;
    Ok(decay)
}

fn factor(s: &mut Section) -> anyhow::Result<f64> {
    let factor = s.number("factor", 1e-6, LARGE)?;
    s.need("factor", factor)
}
