//! Products of two secret values: z = f(x, y) for every bilinear map f, both operands masked.
//!
//! With g = f(lambda_x, lambda_y) dealt, z = f(dx - lambda_x, dy - lambda_y) is, locally,
//!
//! ```text
//! A: z_A =  f(dx, dy - ly_A) - f(lx_A, dy) + g_A
//! B: z_B = -f(dx, ly_B)      - f(lx_B, dy) + g_B
//! ```
//!
//! Beaver 1991 for matrices and convolutions (Dahl 2017), with masks kept per value (Ben-Efraim et al. 2019): a value is
//! opened once however many products it enters, the gradients' included. No round; 64 bits dealt for each element of z.

use std::sync::Arc;

use trefoil_prg::Purpose;
use trefoil_ring::Words;
use trefoil_ring::kernels::{conv2d, conv2d_input, conv2d_weights, matmul, matmul_nt, matmul_tn};

use super::dealing::{At, Dealing};
use super::online::Role;
use crate::error::MpcError;
use crate::program::{Bilinear, Rows, ValueId, ValueInfo};

/// Products are dealt in pieces of whole samples of about this many elements.
pub(super) const PIECE: usize = 1 << 15;

/// A bilinear map with the sizes of one row of its operands and result.
pub(crate) struct ProductStep<'a> {
    map: &'a Bilinear,
    /// m, k and n of the matrix product that a row takes.
    sizes: (usize, usize, usize),
    x: usize,
    y: usize,
    out: usize,
    /// Whether y has a row for each of x.
    paired: bool,
    /// Whether the result is summed over the rows.
    summed: bool,
}

impl<'a> ProductStep<'a> {
    /// The product of values `x` and `y` of a checked program, as value `out`.
    pub(crate) fn new(map: &'a Bilinear, infos: &[ValueInfo], (x, y, out): (ValueId, ValueId, ValueId)) -> Self {
        let (a, b, z) = (&infos[x], &infos[y], &infos[out]);
        let last = |v: &ValueInfo| v.shape.last().copied().unwrap_or(1);
        let sizes = match map {
            Bilinear::MatMul => (a.shape[0], a.shape[1], b.shape[1]),
            Bilinear::Dense | Bilinear::DenseInput => (a.elements() / last(a), last(a), last(z)),
            Bilinear::DenseWeights => (last(a), a.elements() / last(a), last(b)),
            _ => (0, 0, 0),
        };
        Self {
            map,
            sizes,
            x: a.elements(),
            y: b.elements(),
            out: z.elements(),
            paired: b.rows == a.rows && b.rows == Rows::Each,
            summed: a.rows == Rows::Each && z.rows == Rows::One,
        }
    }

    /// The part of `y` that belongs to rows `first .. first + rows` of x.
    fn paired<'b>(&self, y: &'b [u64], first: usize, rows: usize) -> &'b [u64] {
        if self.paired { &y[first * self.y..(first + rows) * self.y] } else { y }
    }

    /// `out += f(x, y)` for `rows` rows of x.
    pub(crate) fn apply(&self, rows: usize, x: &[u64], y: &[u64], out: &mut [u64]) {
        let (m, k, n) = self.sizes;
        match self.map {
            Bilinear::Elementwise => {
                let run = out.len() / (y.len() / self.y);
                for ((x, y), out) in x.chunks(run).zip(y.chunks(self.y)).zip(out.chunks_mut(run)) {
                    for (x, out) in x.chunks(self.y).zip(out.chunks_mut(self.y)) {
                        out.iter_mut().zip(x).zip(y).for_each(|((o, x), y)| *o = o.wrapping_add(x.wrapping_mul(*y)));
                    }
                }
            }
            Bilinear::MatMul => {
                for ((x, y), out) in x.chunks_exact(m * k).zip(y.chunks_exact(k * n)).zip(out.chunks_exact_mut(m * n)) {
                    matmul(m, k, n, x, y, out);
                }
            }
            Bilinear::Dense => matmul(rows * m, k, n, x, y, out),
            Bilinear::DenseInput => matmul_nt(rows * m, k, n, x, y, out),
            Bilinear::DenseWeights => matmul_tn(m, rows * k, n, x, y, out),
            Bilinear::Conv(g) => conv2d(rows, g, x, y, out),
            Bilinear::ConvInput(g) => conv2d_input(rows, g, x, y, out),
            Bilinear::ConvWeights(g) => conv2d_weights(rows, g, x, y, out),
        }
    }
}

/// This party's masks of both operands, and its share of their product.
#[derive(Default)]
pub(crate) struct ProductMaterial {
    x: Arc<Words>,
    y: Arc<Words>,
    product: Words,
}

impl ProductMaterial {
    /// Words held beside the masks, which belong to the wires.
    pub(crate) fn words(&self) -> usize {
        self.product.len()
    }
}

/// Deals the product of `rows` rows of x with y under masks `x` and `y`: 64 bits for each element of the result. In
/// pieces where the result is row by row, whole where it is summed over them.
pub(crate) fn deal_product<D: Dealing>(
    d: &mut D,
    at: At,
    rows: usize,
    step: &ProductStep<'_>,
    x: Arc<Words>,
    y: Arc<Words>,
) -> Result<ProductMaterial, MpcError> {
    let mut draw = d.open_shares(at, Purpose::Product)?;
    let (group, results) = if step.summed { (rows, 1) } else { (PIECE.div_ceil(step.out), rows) };
    let mut product = D::room(results * step.out);
    for first in (0..rows).step_by(group) {
        let samples = group.min(rows - first);
        let n = if step.summed { step.out } else { samples * step.out };
        d.deal(&mut draw, n, 64, &mut product, |out| {
            let x = &x[first * step.x..(first + samples) * step.x];
            step.apply(samples, x, step.paired(&y, first, samples), out);
        })?;
    }
    Ok(ProductMaterial { x, y, product })
}

/// This evaluator's additive share of the product.
pub(crate) fn product(
    role: Role,
    rows: usize,
    step: &ProductStep<'_>,
    dx: &[u64],
    dy: &[u64],
    material: ProductMaterial,
) -> Words {
    let ProductMaterial { x: lx, y: ly, product: mut out } = material;
    if matches!(step.map, Bilinear::Elementwise) {
        let run = out.len() / (dy.len() / step.y);
        let rows = out.chunks_mut(run).zip(dx.chunks(run)).zip(lx.chunks(run));
        for (((out, dx), lx), (dy, ly)) in rows.zip(dy.chunks(step.y).zip(ly.chunks(step.y))) {
            elementwise(role, (dx, dy), (lx, ly), out);
        }
        return out;
    }
    let mut factor = Arc::unwrap_or_clone(ly);
    factor.iter_mut().zip(dy).for_each(|(l, d)| *l = role.public(*d).wrapping_sub(*l));
    step.apply(rows, dx, &factor, &mut out);
    drop(factor);
    let mut factor = Arc::unwrap_or_clone(lx);
    factor.iter_mut().for_each(|l| *l = l.wrapping_neg());
    step.apply(rows, &factor, dy, &mut out);
    out
}

/// Both terms of an element-wise product in one pass; y is repeated along x.
fn elementwise(role: Role, (dx, dy): (&[u64], &[u64]), (lx, ly): (&[u64], &[u64]), out: &mut [u64]) {
    let n = dy.len();
    for ((out, dx), lx) in out.chunks_exact_mut(n).zip(dx.chunks_exact(n)).zip(lx.chunks_exact(n)) {
        for (((o, dx), lx), (dy, ly)) in out.iter_mut().zip(dx).zip(lx).zip(dy.iter().zip(ly)) {
            let first = dx.wrapping_mul(role.public(*dy).wrapping_sub(*ly));
            *o = o.wrapping_add(first.wrapping_sub(lx.wrapping_mul(*dy)));
        }
    }
}
