//! An exact integer interpreter of programs, and helpers to build graphs: what compilation is tested against.
#![allow(clippy::unwrap_used)]

use trefoil_mpc::program::{Bilinear, Linear, Op, Window};
use trefoil_nn::compile::{CompileOptions, Compiled, compile};
use trefoil_nn::graph::{Array, Graph, Layer, Node, NodeId, Post};
use trefoil_ring::geometry::{Conv2d, Pads, Pool2d};

/// Runs the compiled `graph` on one sample over integers, checking every window; gives the logits.
pub(crate) fn run(graph: &Graph, options: &CompileOptions, x: &[f32]) -> Vec<f64> {
    evaluate(&compile(graph, options).unwrap(), x)
}

/// The same of what is compiled.
pub(crate) fn evaluate(compiled: &Compiled, x: &[f32]) -> Vec<f64> {
    let options = &compiled.options;
    let info = compiled.program.infer().unwrap();
    let weights: Vec<Vec<i128>> =
        compiled.weights.iter().map(|t| t.data().iter().map(|&v| i128::from(v as i64)).collect()).collect();
    let one = f64::from(options.fraction_bits).exp2();
    let mut values: Vec<Vec<i128>> = Vec::new();
    for (i, step) in compiled.program.steps.iter().enumerate() {
        let v = |id: usize| &values[id];
        let y = match &step.op {
            Op::Input => x.iter().map(|&v| (f64::from(v) * one).round() as i128).collect(),
            Op::Open { x } => {
                assert!(v(*x).iter().all(|z| z.abs() < 1 << 62), "{}", step.layer);
                v(*x).clone()
            }
            Op::Linear { x, weights: w, bias, map } => linear(map, v(*x), &weights[*w], bias.map(|b| &weights[b][..])),
            Op::Truncate { x, shift } => v(*x).iter().map(|z| z >> shift).collect(),
            Op::Relu { x, shift, window, .. } => v(*x)
                .iter()
                .map(|&z| {
                    assert!(fits(z, *window), "{}: {z} outside {window:?}", step.layer);
                    z.max(0) >> shift
                })
                .collect(),
            Op::MaxPool { x, pool, window, .. } => pooled(pool, v(*x), |w| {
                let (low, high) = (*w.iter().min().unwrap(), *w.iter().max().unwrap());
                assert!(fits(high - low, *window) && fits(low - high, *window), "{}", step.layer);
                high
            }),
            Op::AveragePool { x, pool, extra } => pooled(pool, v(*x), |w| {
                let n = w.len() as i128;
                w.iter().sum::<i128>() * (((1 << (extra + 1)) + n) / (2 * n))
            }),
            Op::Scale { x, factor, .. } => v(*x).iter().map(|z| z * i128::from(*factor)).collect(),
            Op::Offset { x, units } => v(*x).iter().map(|z| z + i128::from(*units)).collect(),
            Op::Add { x, y } => v(*x).iter().zip(v(*y)).map(|(a, b)| a + b).collect(),
            Op::Concat { xs, axis } => {
                let outer: usize = info[i].shape[..*axis].iter().product();
                let inner = |id: usize| info[id].shape[*axis..].iter().product::<usize>();
                (0..outer)
                    .flat_map(|o| xs.iter().flat_map(move |&id| (0..inner(id)).map(move |j| (id, o * inner(id) + j))))
                    .map(|(id, j)| values[id][j])
                    .collect()
            }
            Op::Reshape { x, .. } => v(*x).clone(),
            Op::Piecewise { x, knots, pieces, window, .. } => v(*x)
                .iter()
                .map(|&z| {
                    assert!(knots.iter().all(|k| fits(z - i128::from(*k), *window)), "{}: {z}", step.layer);
                    let piece = &pieces[knots.iter().filter(|k| i128::from(**k) <= z).count()];
                    let sum = piece.iter().rev().fold(0i128, |sum, c| sum * z + i128::from(*c));
                    assert!(sum.abs() < 1 << 62, "{}: {z} gives {sum}", step.layer);
                    sum
                })
                .collect(),
            Op::Product { x, y, map: Bilinear::Elementwise } => v(*x).iter().zip(v(*y)).map(|(a, b)| a * b).collect(),
            Op::Sum { x, keep: 0, batch: false } => vec![v(*x).iter().sum()],
            Op::Slice { x, axis, start, len } => {
                let shape = &info[*x].shape;
                let inner: usize = shape[axis + 1..].iter().product();
                let rows = v(*x).chunks(shape[*axis] * inner);
                rows.flat_map(|row| row[start * inner..(start + len) * inner].to_vec()).collect()
            }
            Op::Pad { x, pads } => {
                let [h, w, c] = info[*x].shape[..] else { panic!() };
                let (ph, pw) = (h + pads.top + pads.bottom, w + pads.left + pads.right);
                let mut y = vec![0; ph * pw * c];
                for (j, &z) in v(*x).iter().enumerate() {
                    let (ch, col, row) = (j % c, j / c % w, j / c / w);
                    y[((row + pads.top) * pw + col + pads.left) * c + ch] = z;
                }
                y
            }
            _ => panic!("no layer compiles to {}", step.op.name()),
        };
        assert_eq!(y.len(), info[i].elements(), "{}", step.op.name());
        values.push(y);
    }
    let scale = f64::from(info.last().unwrap().scale).exp2();
    values.pop().unwrap().iter().map(|&z| z as f64 / scale).collect()
}

fn fits(z: i128, w: Window) -> bool {
    let top = 1i128 << (w.lo + w.k - 1);
    (-top..top - (1 << w.lo)).contains(&z)
}

fn linear(map: &Linear, x: &[i128], w: &[i128], bias: Option<&[i128]>) -> Vec<i128> {
    let outputs = map.outputs();
    let mut y: Vec<i128> = match map {
        Linear::Dense { inputs, outputs } => x
            .chunks(*inputs)
            .flat_map(|x| (0..*outputs).map(|o| x.iter().enumerate().map(|(i, x)| x * w[i * outputs + o]).sum()))
            .collect(),
        Linear::Conv(g) => conv(g, x, w),
    };
    if let Some(b) = bias {
        y.iter_mut().enumerate().for_each(|(i, y)| *y += b[i % outputs]);
    }
    y
}

fn conv(g: &Conv2d, x: &[i128], w: &[i128]) -> Vec<i128> {
    let (oh, ow) = g.output().unwrap();
    let (cg, og) = (g.in_channels / g.groups, g.out_channels / g.groups);
    let mut y = Vec::new();
    for oy in 0..oh {
        for ox in 0..ow {
            for o in 0..g.out_channels {
                let mut sum = 0;
                for ky in 0..g.kernel.0 {
                    for kx in 0..g.kernel.1 {
                        let r = (oy * g.stride.0 + ky * g.dilation.0) as i64 - g.pads.top as i64;
                        let c = (ox * g.stride.1 + kx * g.dilation.1) as i64 - g.pads.left as i64;
                        if r < 0 || c < 0 || r >= g.input.0 as i64 || c >= g.input.1 as i64 {
                            continue;
                        }
                        for ch in 0..cg {
                            sum += x[(r as usize * g.input.1 + c as usize) * g.in_channels + o / og * cg + ch]
                                * w[((ky * g.kernel.1 + kx) * cg + ch) * g.out_channels + o];
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn pooled(p: &Pool2d, x: &[i128], f: impl Fn(&[i128]) -> i128) -> Vec<i128> {
    let (oh, ow) = p.output().unwrap();
    let mut y = Vec::new();
    for oy in 0..oh {
        for ox in 0..ow {
            let (rows, columns) = p.covered(oy, ox);
            for ch in 0..p.channels {
                let window: Vec<i128> = rows
                    .clone()
                    .flat_map(|r| columns.clone().map(move |c| (r, c)))
                    .map(|(r, c)| x[(r * p.input.1 + c) * p.channels + ch])
                    .collect();
                y.push(f(&window));
            }
        }
    }
    y
}

/// Builds graphs layer by layer with weights from a fixed sequence.
pub(crate) struct Builder {
    pub(crate) graph: Graph,
    state: u64,
}

impl Builder {
    pub(crate) fn new(shape: &[usize]) -> Self {
        let input = Node { name: "input".into(), layer: Layer::Input { shape: shape.to_vec() }, inputs: vec![] };
        Self { graph: Graph { nodes: vec![input], post: Post::None }, state: 7 }
    }

    pub(crate) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        low + (high - low) * ((self.state >> 40) as f32 / (1u64 << 24) as f32)
    }

    pub(crate) fn array(&mut self, shape: &[usize], low: f32, high: f32) -> Array {
        let n = shape.iter().product();
        Array::new(shape.to_vec(), (0..n).map(|_| self.uniform(low, high)).collect()).unwrap()
    }

    pub(crate) fn input(&mut self) -> Vec<f32> {
        let Layer::Input { shape } = &self.graph.nodes[0].layer else { panic!() };
        let n: usize = shape.iter().product();
        (0..n).map(|_| self.uniform(-1.0, 1.0)).collect()
    }

    /// Shape of a node's output.
    pub(crate) fn shape(&self, id: NodeId) -> Vec<usize> {
        self.graph.shapes().unwrap()[id].clone()
    }

    pub(crate) fn add(&mut self, layer: Layer, inputs: &[NodeId]) -> NodeId {
        let name = format!("n{}", self.graph.nodes.len());
        self.graph.nodes.push(Node { name, layer, inputs: inputs.to_vec() });
        self.graph.nodes.len() - 1
    }

    pub(crate) fn relu(&mut self, x: NodeId) -> NodeId {
        self.add(Layer::Relu, &[x])
    }

    pub(crate) fn dense(&mut self, x: NodeId, outputs: usize) -> NodeId {
        let inputs = *self.shape(x).last().unwrap();
        let limit = 1.5 / (inputs as f32).sqrt();
        let kernel = self.array(&[inputs, outputs], -limit, limit);
        let bias = Some(self.array(&[outputs], -0.1, 0.1));
        self.add(Layer::Dense { kernel, bias }, &[x])
    }

    pub(crate) fn conv(&mut self, x: NodeId, outputs: usize, k: usize, groups: usize, same: bool) -> NodeId {
        let [h, w, c] = self.shape(x)[..] else { panic!() };
        let pads = if same { Pads::same((h, w), (k, k), (1, 1), (1, 1)) } else { Pads::default() };
        let geometry = Conv2d {
            input: (h, w),
            in_channels: c,
            out_channels: outputs,
            kernel: (k, k),
            stride: (1, 1),
            dilation: (1, 1),
            pads,
            groups,
        };
        let limit = 1.5 / ((k * k * c / groups) as f32).sqrt();
        let kernel = self.array(&geometry.kernel_shape(), -limit, limit);
        let bias = Some(self.array(&[outputs], -0.1, 0.1));
        self.add(Layer::Conv2d { geometry, kernel, bias }, &[x])
    }

    pub(crate) fn pool(&mut self, x: NodeId, k: usize, stride: usize, same: bool) -> Pool2d {
        let [h, w, channels] = self.shape(x)[..] else { panic!() };
        let pads = if same { Pads::same((h, w), (k, k), (stride, stride), (1, 1)) } else { Pads::default() };
        Pool2d { input: (h, w), channels, window: (k, k), stride: (stride, stride), pads }
    }

    pub(crate) fn max_pool(&mut self, x: NodeId, k: usize, stride: usize) -> NodeId {
        let pool = self.pool(x, k, stride, false);
        self.add(Layer::MaxPool(pool), &[x])
    }

    pub(crate) fn average_pool(&mut self, x: NodeId, k: usize, stride: usize, same: bool) -> NodeId {
        let pool = self.pool(x, k, stride, same);
        self.add(Layer::AveragePool(pool), &[x])
    }

    pub(crate) fn affine(&mut self, x: NodeId) -> NodeId {
        let c = *self.shape(x).last().unwrap();
        let (scale, shift) = (self.array(&[c], -1.5, 1.5), self.array(&[c], -0.5, 0.5));
        self.add(Layer::ChannelAffine { scale, shift }, &[x])
    }

    pub(crate) fn flatten(&mut self, x: NodeId) -> NodeId {
        let n = self.shape(x).iter().product();
        self.add(Layer::Reshape { shape: vec![n] }, &[x])
    }
}
