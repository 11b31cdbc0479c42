//! Weights to start training from.

use crate::graph::{Graph, Layer};
use crate::rng::SplitMix;

/// How large the first weights are, all uniform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Within sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010): for linear and saturating layers.
    Glorot,
    /// Within sqrt(6 / inputs) (He et al. 2015): for layers followed by ReLU.
    He,
}

/// Draws every kernel anew, in node order, and every bias within +-`bias`.
pub fn initialise(graph: &mut Graph, scheme: Init, bias: f64, seed: u64) {
    let mut rng = SplitMix::new(seed);
    let mut fill = |data: &mut [f32], limit: f64| data.iter_mut().for_each(|v| *v = rng.uniform(-limit, limit) as f32);
    for node in &mut graph.nodes {
        let (Layer::Dense { kernel, bias: b } | Layer::Conv2d { kernel, bias: b, .. }) = &mut node.layer else {
            continue;
        };
        let Some((&outputs, inner)) = kernel.shape.split_last() else { continue };
        let inputs: usize = inner.iter().product();
        let area: usize = inner[..inner.len().saturating_sub(1)].iter().product();
        let fan = match scheme {
            Init::Glorot => inputs + area * outputs,
            Init::He => inputs,
        };
        fill(&mut kernel.data, (6.0 / fan as f64).sqrt());
        if let Some(b) = b {
            fill(&mut b.data, bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::demo_cnn;

    #[test]
    fn limits_are_kept_and_reached() {
        for (scheme, limit) in [(Init::He, 6.0f64 / 72.0), (Init::Glorot, 6.0 / (72.0 + 144.0))] {
            let mut graph = demo_cnn(1).unwrap();
            initialise(&mut graph, scheme, 0.25, 9);
            let Layer::Conv2d { kernel, bias: Some(bias), .. } = &graph.nodes[4].layer else { panic!() };
            let top = |v: &[f32]| v.iter().fold(0f32, |a, b| a.max(b.abs()));
            let limit = limit.sqrt() as f32;
            assert!(top(&kernel.data) <= limit && top(&kernel.data) > 0.98 * limit);
            assert!(top(&bias.data) <= 0.25 && top(&bias.data) > 0.15);
        }
    }
}
