//! A plain forward pass in double precision.

use trefoil_nn::graph::{Array, Graph, Layer, Post};
use trefoil_nn::tape::Function;
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

/// The output of `graph` for one sample.
pub(crate) fn forward(graph: &Graph, input: &[f64]) -> Vec<f64> {
    let shapes = graph.shapes().unwrap();
    let mut values: Vec<Vec<f64>> = Vec::new();
    for (node, shape) in graph.nodes.iter().zip(&shapes) {
        let inputs: Vec<&[f64]> = node.inputs.iter().map(|&i| &values[i][..]).collect();
        let value = match &node.layer {
            Layer::Input { .. } => input.to_vec(),
            Layer::Dense { kernel, bias } => dense(inputs[0], kernel, bias.as_ref()),
            Layer::Conv2d { geometry, kernel, bias } => conv(inputs[0], geometry, kernel, bias.as_ref()),
            Layer::ChannelAffine { scale, shift } => {
                let c = scale.data.len();
                let affine = |(i, x): (usize, &f64)| x * f64::from(scale.data[i % c]) + f64::from(shift.data[i % c]);
                inputs[0].iter().enumerate().map(affine).collect()
            }
            Layer::BatchNorm(n) => {
                let wide = |a: &Array, i: usize| f64::from(a.data[i % a.data.len()]);
                let normal = |(i, x): (usize, &f64)| {
                    let deviation = (wide(&n.variance, i) + f64::from(n.epsilon)).sqrt();
                    (x - wide(&n.mean, i)) / deviation * wide(&n.gamma, i) + wide(&n.beta, i)
                };
                inputs[0].iter().enumerate().map(normal).collect()
            }
            Layer::Dropout { .. } => inputs[0].to_vec(),
            Layer::MaxPool(p) => pool(inputs[0], p, |v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            Layer::AveragePool(p) => pool(inputs[0], p, |v| v.iter().sum::<f64>() / v.len() as f64),
            Layer::Relu => inputs[0].iter().map(|x| x.max(0.0)).collect(),
            Layer::ClippedRelu { ceiling } => inputs[0].iter().map(|x| x.clamp(0.0, f64::from(*ceiling))).collect(),
            Layer::LeakyRelu { slope } => {
                inputs[0].iter().map(|&x| if x < 0.0 { x * f64::from(*slope) } else { x }).collect()
            }
            Layer::Add => (0..inputs[0].len()).map(|i| inputs.iter().map(|x| x[i]).sum()).collect(),
            Layer::Concat { axis } => {
                let rows: usize = shape[..*axis].iter().product();
                let row =
                    |r: usize| inputs.iter().flat_map(move |x| x[r * x.len() / rows..][..x.len() / rows].to_vec());
                (0..rows).flat_map(row).collect()
            }
            Layer::Reshape { .. } => inputs[0].to_vec(),
            Layer::ZeroPad(p) => zero_pad(inputs[0], &shapes[node.inputs[0]], p),
            Layer::Sigmoid => inputs[0].iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            Layer::Tanh => inputs[0].iter().map(|x| x.tanh()).collect(),
            Layer::HardSigmoid { slope } => {
                inputs[0].iter().map(|x| (f64::from(*slope) * x + 0.5).clamp(0.0, 1.0)).collect()
            }
            Layer::Softplus => inputs[0].iter().map(|x| x.exp().ln_1p()).collect(),
            Layer::Elu { alpha } => {
                inputs[0].iter().map(|&x| if x < 0.0 { f64::from(*alpha) * x.exp_m1() } else { x }).collect()
            }
            Layer::Silu => inputs[0].iter().map(|x| x / (1.0 + (-x).exp())).collect(),
            Layer::Gelu => inputs[0].iter().map(|&x| Function::Gelu.of(x)).collect(),
            Layer::Softmax => {
                panic!("{}: the importer makes no such layer", node.name)
            }
        };
        assert_eq!(value.len(), shape.iter().product::<usize>(), "{}", node.name);
        values.push(value);
    }
    let logits = values.pop().unwrap();
    match graph.post {
        Post::None | Post::Distance { .. } => logits,
        Post::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Post::Softmax => {
            let n = *shapes.last().unwrap().last().unwrap();
            let row = |r: &[f64]| {
                let e: Vec<f64> = r.iter().map(|x| x.exp()).collect();
                let sum: f64 = e.iter().sum();
                e.into_iter().map(move |v| v / sum)
            };
            logits.chunks(n).flat_map(row).collect()
        }
    }
}

fn at(v: &Array, i: usize) -> f64 {
    f64::from(v.data[i])
}

fn dense(x: &[f64], kernel: &Array, bias: Option<&Array>) -> Vec<f64> {
    let (i, o) = (kernel.shape[0], kernel.shape[1]);
    let out = |row: &[f64], c: usize| {
        bias.map_or(0.0, |b| at(b, c)) + (0..i).map(|k| row[k] * at(kernel, k * o + c)).sum::<f64>()
    };
    x.chunks(i).flat_map(|row| (0..o).map(move |c| out(row, c))).collect()
}

fn conv(x: &[f64], g: &Conv2d, kernel: &Array, bias: Option<&Array>) -> Vec<f64> {
    let (oh, ow) = g.output().unwrap();
    let (per_in, per_out) = (g.in_channels / g.groups, g.out_channels / g.groups);
    let mut out = Vec::new();
    for y in 0..oh {
        for z in 0..ow {
            for o in 0..g.out_channels {
                let mut sum = bias.map_or(0.0, |b| at(b, o));
                for ky in 0..g.kernel.0 {
                    for kx in 0..g.kernel.1 {
                        let row = (y * g.stride.0 + ky * g.dilation.0).wrapping_sub(g.pads.top);
                        let col = (z * g.stride.1 + kx * g.dilation.1).wrapping_sub(g.pads.left);
                        if row >= g.input.0 || col >= g.input.1 {
                            continue;
                        }
                        for c in 0..per_in {
                            let from = (row * g.input.1 + col) * g.in_channels + o / per_out * per_in + c;
                            let weight = ((ky * g.kernel.1 + kx) * per_in + c) * g.out_channels + o;
                            sum += x[from] * at(kernel, weight);
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

fn pool(x: &[f64], p: &Pool2d, reduce: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let (oh, ow) = p.output().unwrap();
    let mut out = Vec::new();
    for y in 0..oh {
        for z in 0..ow {
            let (rows, cols) = p.covered(y, z);
            for c in 0..p.channels {
                let window: Vec<f64> = rows
                    .clone()
                    .flat_map(|r| cols.clone().map(move |k| (r, k)))
                    .map(|(r, k)| x[(r * p.input.1 + k) * p.channels + c])
                    .collect();
                out.push(reduce(&window));
            }
        }
    }
    out
}

fn zero_pad(x: &[f64], shape: &[usize], p: &Pads) -> Vec<f64> {
    let (h, w, c) = (shape[0], shape[1], shape[2]);
    let wide = w + p.left + p.right;
    let mut out = vec![0.0; (h + p.top + p.bottom) * wide * c];
    for row in 0..h {
        let to = ((row + p.top) * wide + p.left) * c;
        out[to..to + w * c].copy_from_slice(&x[row * w * c..(row + 1) * w * c]);
    }
    out
}
