//! Values that come near what fixed point can hold, measured on clear training: which layer, which bound, what to do.

use trefoil_nn::lower::ranges::Warning;
use trefoil_nn::train::TrainSpec;

use super::data::Source;
use super::description::Description;
use crate::output;

/// Steps of clear training that --dry-run takes.
const STEPS: usize = 8;

/// What to do about them.
const ADVICE: &str = "Beyond it, training on shares goes wrong unnoticed: lower the rate, clip gradients (clip_norm), scale the inputs or \
                      add batch_norm.";

/// One line for each layer that has such values, and what to do.
pub(crate) fn words(warnings: &[Warning]) -> Vec<String> {
    let mut worst: Vec<&Warning> = Vec::new();
    for w in warnings {
        let far = |w: &Warning| if w.seen.is_nan() { f64::INFINITY } else { w.seen / w.assumed };
        match worst.iter_mut().find(|o| o.layer == w.layer) {
            Some(o) if far(o) < far(w) => *o = w,
            Some(_) => {}
            None => worst.push(w),
        }
    }
    let line = |w: &&Warning| {
        let Warning { layer, seen, assumed, .. } = w;
        let comes = if seen < assumed { "comes near" } else { "is beyond" };
        format!("warning: layer {layer}: a value of {seen:.1} {comes} the {assumed} that fixed point holds there")
    };
    let advice = (!worst.is_empty()).then(|| ADVICE.to_owned());
    worst.iter().map(line).chain(advice).collect()
}

/// What a few steps in the clear show on rows of this host, where the description names some.
pub(crate) fn tried(d: &Description) -> Vec<String> {
    let unknown = |why: String| vec![format!("Whether values stay within fixed point is not known: {why}")];
    match &d.source {
        None => unknown("[data] names no rows to try it on".into()),
        Some(source) => try_on(d, source).unwrap_or_else(|e| unknown(output::chain(&e))),
    }
}

fn try_on(d: &Description, source: &Source) -> anyhow::Result<Vec<String>> {
    let mut training = d.training.clone();
    let records = source.clone().limited(Some(STEPS * training.spec.batch)).load()?;
    let batch = training.spec.batch.min(records.rows);
    training.spec = TrainSpec { epochs: 1, batch, validation: 0.0, ..training.spec };
    training.patience = None;
    let (_, warnings) = training.fit_measured(&records.matrix(), |_| {})?;
    Ok(words(&warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_each_layer_is_told() {
        let warning = |layer: &str, seen: f64| Warning { value: 1, layer: layer.into(), seen, assumed: 4096.0 };
        let all = words(&[
            warning("dense", 2500.0),
            warning("dense", 5000.0),
            warning("loss", f64::NAN),
            warning("dense", 3000.0),
        ]);
        assert_eq!((all.len(), words(&[]).len()), (3, 0));
        assert!(all[0].contains("layer dense: a value of 5000.0 is beyond the 4096"), "{all:?}");
        assert!(all[1].contains("layer loss: a value of NaN is beyond") && all[2].contains("clip_norm"), "{all:?}");
        assert!(words(&[warning("conv", 2500.0)])[0].contains("comes near"));
    }
}
