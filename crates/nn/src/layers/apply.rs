//! What each layer becomes on a tape.

use trefoil_ring::geometry::{Pads, Pool2d};

use super::{Layers, Mode};
use crate::graph::{BatchNorm, Layer, NodeId};
use crate::tape::grad::Rule;
use crate::tape::{Function, Map, Op, Tape, TapeError, ValueId};

type Built = Result<ValueId, TapeError>;

impl Layers {
    pub(super) fn layer(&mut self, tape: &mut Tape, id: NodeId, outputs: &[ValueId], mode: Mode) -> Built {
        let node = self.graph.nodes[id].clone();
        let inputs: Vec<ValueId> = node.inputs.iter().map(|&i| outputs[i]).collect();
        let fault = |reason: &str| Err(TapeError { layer: node.name.clone(), reason: reason.into() });
        let Some(&x) = inputs.first() else { return fault("no input") };
        let tensors = self.values[id].clone();
        let mode = if self.frozen[id] { Mode::Infer } else { mode };
        match node.layer {
            Layer::Input { .. } => fault("the input is the first layer"),
            Layer::Dense { .. } => linear(tape, x, &tensors, Map::Dense),
            Layer::Conv2d { geometry, .. } => linear(tape, x, &tensors, Map::Conv(geometry)),
            Layer::ChannelAffine { .. } => scaled(tape, x, tensors[0], tensors[1]),
            Layer::BatchNorm(norm) if mode == Mode::Train => self.normalise(tape, id, x, &norm),
            Layer::BatchNorm(norm) => {
                let inverse = tape.offset(tensors[3], f64::from(norm.epsilon))?;
                let inverse = tape.function(inverse, Function::InverseSqrt)?;
                let (scale, shift) = settled(tape, &tensors, inverse)?;
                scaled(tape, x, scale, shift)
            }
            Layer::MaxPool(pool) => {
                let (x, pool) = margins(tape, x, &pool)?;
                max_pool(tape, x, &pool)
            }
            Layer::AveragePool(pool) => tape.push(Op::AveragePool { x, pool }),
            Layer::Relu => tape.relu(x),
            Layer::ClippedRelu { ceiling } => {
                let whole = tape.relu(x)?;
                let above = tape.offset(x, -f64::from(ceiling))?;
                let above = tape.relu(above)?;
                tape.sub(whole, above)
            }
            Layer::LeakyRelu { slope } => {
                let positive = tape.relu(x)?;
                let positive = tape.scale(positive, 1.0 - f64::from(slope))?;
                let all = tape.scale(x, f64::from(slope))?;
                tape.add(positive, all)
            }
            Layer::Sigmoid => tape.function(x, Function::Sigmoid),
            Layer::Tanh => tape.function(x, Function::Tanh),
            Layer::HardSigmoid { slope } => {
                let half = 0.5 / f64::from(slope);
                let [up, over] = [half, -half].map(|by| tape.offset(x, by).and_then(|x| tape.relu(x)));
                let between = tape.sub(up?, over?)?;
                tape.scale(between, f64::from(slope))
            }
            Layer::Softplus => tape.function(x, Function::Softplus),
            Layer::Elu { alpha } => {
                let y = tape.function(x, Function::Elu)?;
                if alpha == 1.0 {
                    return Ok(y);
                }
                let y = tape.scale(y, f64::from(alpha))?;
                let positive = tape.relu(x)?;
                let positive = tape.scale(positive, 1.0 - f64::from(alpha))?;
                tape.add(y, positive)
            }
            Layer::Silu => tape.function(x, Function::Silu),
            Layer::Gelu => tape.function(x, Function::Gelu),
            Layer::Softmax => tape.softmax(x),
            Layer::Dropout { rate } => drop_out(tape, x, rate, mode),
            Layer::Add => {
                let mut sum = x;
                for &x in &inputs[1..] {
                    sum = tape.add(sum, x)?;
                }
                Ok(sum)
            }
            Layer::Concat { axis } => tape.push(Op::Concat { xs: inputs, axis }),
            Layer::Reshape { shape } => tape.reshape(x, &shape),
            Layer::ZeroPad(pads) => tape.push(Op::Pad { x, pads }),
        }
    }

    /// By the statistics of the batch, which move the averages.
    fn normalise(&mut self, tape: &mut Tape, id: NodeId, x: ValueId, norm: &BatchNorm) -> Built {
        let channels = norm.gamma.data.len();
        let count = self.batch * tape.values[x].elements() / channels;
        let share = 1.0 / count as f64;
        let sum = tape.sum(x, 1, true)?;
        let mean = tape.scale(sum, share)?;
        let centred = tape.sub(x, mean)?;
        let squares = tape.mul(centred, centred)?;
        let squares = tape.sum(squares, 1, true)?;
        let variance = tape.scale(squares, share)?;
        let inverse = tape.offset(variance, f64::from(norm.epsilon))?;
        let inverse = tape.function(inverse, Function::InverseSqrt)?;
        let normal = tape.mul(centred, inverse)?;
        tape.whole(normal, Rule::Normalise { x, inverse, count });
        let keep = f64::from(norm.momentum);
        for (tensor, new) in [(2, mean), (3, variance)] {
            let old = tape.scale(self.values[id][tensor], keep)?;
            let new = tape.scale(new, 1.0 - keep)?;
            self.values[id][tensor] = tape.add(old, new)?;
            if !self.moved.contains(&(id, tensor)) {
                self.moved.push((id, tensor));
            }
        }
        let tensors = &self.values[id];
        scaled(tape, normal, tensors[0], tensors[1])
    }
}

/// What a batch normalisation of these tensors multiplies with and adds, by its moving averages: `inverse` is that of the
/// square root of its variance.
pub(crate) fn settled(tape: &mut Tape, tensors: &[ValueId], inverse: ValueId) -> Result<(ValueId, ValueId), TapeError> {
    let scale = tape.mul(inverse, tensors[0])?;
    let mean = tape.mul(tensors[2], scale)?;
    let shift = tape.sub(tensors[1], mean)?;
    Ok((scale, shift))
}

fn linear(tape: &mut Tape, x: ValueId, tensors: &[ValueId], map: Map) -> Built {
    let y = tape.product(x, tensors[0], map)?;
    tensors.get(1).map_or(Ok(y), |&bias| tape.add(y, bias))
}

fn scaled(tape: &mut Tape, x: ValueId, scale: ValueId, shift: ValueId) -> Built {
    let y = tape.mul(x, scale)?;
    tape.add(y, shift)
}

/// The image with its outermost rows and columns repeated where `pool` pads it, and the pool without padding: a window
/// that reaches into the padding covers the border too, so that what is repeated changes no maximum.
fn margins(tape: &mut Tape, x: ValueId, pool: &Pool2d) -> Result<(ValueId, Pool2d), TapeError> {
    let (h, w) = pool.input;
    let p = pool.pads;
    let mut x = x;
    for (axis, len, before, after) in [(0, h, p.top, p.bottom), (1, w, p.left, p.right)] {
        if before + after == 0 {
            continue;
        }
        let mut xs = Vec::with_capacity(before + 1 + after);
        if before > 0 {
            xs.extend(vec![tape.slice(x, axis, 0, 1)?; before]);
        }
        xs.push(x);
        if after > 0 {
            xs.extend(vec![tape.slice(x, axis, len - 1, 1)?; after]);
        }
        x = tape.push(Op::Concat { xs, axis })?;
    }
    let input = (h + p.top + p.bottom, w + p.left + p.right);
    Ok((x, Pool2d { input, pads: Pads::default(), ..*pool }))
}

/// A tournament of the elements of each window.
fn max_pool(tape: &mut Tape, x: ValueId, pool: &Pool2d) -> Built {
    let take = |tape: &mut Tape, index| tape.push(Op::Window { x, pool: *pool, index });
    let mut rivals = (0..pool.window.0 * pool.window.1).map(|i| take(tape, i)).collect::<Result<Vec<_>, _>>()?;
    while rivals.len() > 1 {
        let pairs: Vec<Vec<ValueId>> = rivals.chunks(2).map(<[ValueId]>::to_vec).collect();
        rivals = pairs
            .into_iter()
            .map(|p| if let [a, b] = p[..] { tape.max(a, b) } else { Ok(p[0]) })
            .collect::<Result<_, _>>()?;
    }
    Ok(rivals[0])
}

fn drop_out(tape: &mut Tape, x: ValueId, rate: f32, mode: Mode) -> Built {
    let keep = ((1.0 - f64::from(rate)) * 65536.0).round();
    if mode == Mode::Infer || keep >= 65536.0 {
        return Ok(x);
    }
    let keep = keep.max(1.0);
    let shape = tape.values[x].shape.clone();
    let pattern = tape.push(Op::Pattern { shape, keep: keep as u32 })?;
    let kept = tape.push(Op::Drop { x, pattern })?;
    tape.scale(kept, 65536.0 / keep)
}
