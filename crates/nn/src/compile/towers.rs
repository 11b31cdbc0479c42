//! A network applied to two inputs with the same weights, and the squared distance of what it makes of them,
//! compared with a bound where there is one.
//!
//! Values of both towers lie side by side in the last dimension, so that openings, comparisons and piecewise polynomials
//! take both in the same rounds. Products and changes of shape take the parts apart, which is local; their weights are
//! shared and uploaded once.

use trefoil_mpc::program::{Bilinear, Op};
use trefoil_ring::geometry::Pool2d;

use super::CompileError;
use super::layers::{Lowering, fault};
use super::wires::{Local, WireId};
use crate::graph::{NodeId, Post};

impl Lowering {
    /// Shape of a sample: that of an input, or as many inputs as there are towers.
    pub(super) fn input_shape(&self) -> Vec<usize> {
        let one = self.shapes[0].clone();
        if self.towers == 1 { one } else { [vec![self.towers], one].concat() }
    }

    /// The input; of several towers the inputs, brought side by side.
    pub(super) fn input(&mut self, name: &str) -> WireId {
        let f = self.options.fraction_bits;
        let all = self.wires.emit(name, Op::Input, f, 1.0);
        if self.towers == 1 {
            return all;
        }
        let shape = self.shapes[0].clone();
        let one = |tower| {
            let slice = self.wires.local(name, Local::Slice(0, tower, 1), vec![all], f, 1.0);
            self.wires.local(name, Local::Reshape(shape.clone()), vec![slice], f, 1.0)
        };
        let inputs = (0..self.towers).map(one).collect();
        self.together(name, inputs, 0)
    }

    /// The values of node `id`, one for each tower.
    pub(super) fn apart(&mut self, name: &str, wire: WireId, id: NodeId) -> Vec<WireId> {
        let Some((&len, outer)) = self.shapes[id].split_last().filter(|_| self.towers > 1) else { return vec![wire] };
        let (axis, scale, gain) = (outer.len(), self.wires.scale(wire), self.wires.gain(wire));
        let part = |tower| self.wires.local(name, Local::Slice(axis, tower * len, len), vec![wire], scale, gain);
        (0..self.towers).map(part).collect()
    }

    /// Values of node `id`, one for each tower, side by side.
    pub(super) fn together(&mut self, name: &str, wires: Vec<WireId>, id: NodeId) -> WireId {
        if let [one] = wires[..] {
            return one;
        }
        let (axis, scale, gain) = (self.shapes[id].len() - 1, self.wires.scale(wires[0]), self.wires.gain(wires[0]));
        self.wires.local(name, Local::Concat(axis), wires, scale, gain)
    }

    /// A local operation on values of nodes `from`, for each tower: the value of node `to`.
    pub(super) fn each(
        &mut self,
        name: &str,
        local: &Local,
        (inputs, from): (&[WireId], &[NodeId]),
        (scale, gain): (u32, f64),
        to: NodeId,
    ) -> WireId {
        let inputs: Vec<Vec<WireId>> = inputs.iter().zip(from).map(|(w, id)| self.apart(name, *w, *id)).collect();
        let one = |tower: usize| {
            let inputs = inputs.iter().map(|parts| parts[tower]).collect();
            self.wires.local(name, local.clone(), inputs, scale, gain)
        };
        let wires = (0..self.towers).map(one).collect();
        self.together(name, wires, to)
    }

    /// A pool over the channels of all towers.
    pub(super) fn wide(&self, pool: &Pool2d) -> Pool2d {
        Pool2d { channels: pool.channels * self.towers, ..*pool }
    }

    /// The squared distance of the two values of the last node, or the bound less that, `[1]`.
    pub(super) fn distance(&mut self, wire: WireId, post: Post) -> Result<WireId, CompileError> {
        let name = "distance";
        let wire = self.without_gain(wire);
        let parts = self.apart(name, wire, self.shapes.len() - 1);
        let scale = self.wires.scale(wire);
        let minus = self.wires.local(name, Local::Scale(-1, 0), vec![parts[1]], scale, 1.0);
        let off = self.wires.local(name, Local::Add, vec![parts[0], minus], scale, 1.0);
        let off = self.wires.truncated(off);
        let scale = 2 * self.wires.scale(off);
        let x = self.wires.masked(off);
        let squares = self.wires.push(name, Op::Product { x, y: x, map: Bilinear::Elementwise });
        let sum = Op::Sum { x: squares, keep: 0, batch: false };
        let Some(bound) = post.similar_below() else { return Ok(self.wires.emit(name, sum, scale, 1.0)) };
        let units = post.bound(scale).ok_or_else(|| {
            fault(name, format!("a distance of {bound} is no bound: its square is too small or large at {scale} bits"))
        })?;
        let sum = self.wires.push(name, sum);
        let minus = self.wires.push(name, Op::Scale { x: sum, factor: -1, extra: 0 });
        Ok(self.wires.emit(name, Op::Offset { x: minus, units }, scale, 1.0))
    }
}
