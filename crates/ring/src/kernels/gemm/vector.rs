//! Products with vectors: the columns are cut into panels as wide as a register block, the inner dimension into
//! stretches that stay in the cache, the rows into tasks.

use rayon::prelude::*;

use super::super::Isa;
use super::{Product, Run, avx2, avx512, share, stretches, threads_for};
use crate::Words;

/// Rows that one task multiplies at most: [`DEPTH`] columns of them stay in the second-level cache.
const ROWS: usize = 64;
/// Steps of the inner dimension between two visits of the output.
const DEPTH: usize = 1024;

/// Computes a checked product with the vectors of `isa`, which the processor has.
pub(super) fn multiply(isa: Isa, p: &Product<'_>, c: &mut [u64]) {
    if let (true, [run]) = (p.rows < 4, p.runs) {
        return thin(isa, p, *run, c);
    }
    let (lanes, most) = shape(isa);
    let plan = Plan::new(p, lanes, most);
    let threads = threads_for(p.rows * plan.depth, p.n);
    let share = share(p.rows, threads, 8, ROWS);
    let task = |first: usize, c: &mut [u64]| rows(isa, p, &plan, first..p.rows.min(first + share), c);
    if threads == 1 {
        for first in (0..p.rows).step_by(share) {
            task(first, &mut c[first * p.ldc..]);
        }
    } else {
        c.par_chunks_mut(share * p.ldc).take(p.rows.div_ceil(share)).enumerate().for_each(|(i, c)| task(i * share, c));
    }
}

/// Columns `from .. from + width` of the right operand, whose row `k` begins at `start + k * step`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel {
    pub(super) from: usize,
    pub(super) width: usize,
    pub(super) start: usize,
    pub(super) step: usize,
}

/// How a product is cut: column panels, stretches of the inner dimension, and a copy of the right operand in which
/// each panel's columns lie together, where enough rows will read it.
pub(super) struct Plan {
    depth: usize,
    pub(super) panels: Vec<Panel>,
    pub(super) stretches: Vec<(usize, Vec<Run>)>,
    packed: Option<Words>,
}

impl Plan {
    fn new(p: &Product<'_>, lanes: usize, most: usize) -> Self {
        let depth = p.depth();
        let vectors = p.n.div_ceil(lanes);
        let count = vectors.div_ceil(most);
        let pack = p.rows >= 48 && p.n > 64;
        let mut packed = pack.then(|| Words::with_capacity(p.n * depth));
        let mut panels = Vec::with_capacity(count);
        let mut from = 0;
        for i in 0..count {
            let width = ((vectors / count + usize::from(i < vectors % count)) * lanes).min(p.n - from);
            let (start, step) = match &mut packed {
                Some(copy) => {
                    let start = copy.len();
                    for k in 0..depth {
                        copy.extend(&p.b[k * p.ldb + from..][..width]);
                    }
                    (start, width)
                }
                None => (from, p.ldb),
            };
            panels.push(Panel { from, width, start, step });
            from += width;
        }
        Self { depth, panels, stretches: stretches(p.runs, DEPTH), packed }
    }

    pub(super) fn right<'a>(&'a self, p: &Product<'a>) -> &'a [u64] {
        self.packed.as_ref().map_or(p.b, |v| &v[..])
    }
}

/// Elements of a vector, and vectors that a block is wide at most.
fn shape(isa: Isa) -> (usize, usize) {
    match isa {
        Isa::Avx512 | Isa::Amx => (8, 3),
        _ => (4, 1),
    }
}

fn rows(isa: Isa, p: &Product<'_>, plan: &Plan, rows: std::ops::Range<usize>, c: &mut [u64]) {
    // SAFETY: `multiply` checked that the processor has the instructions and that the product stays in its slices.
    unsafe {
        match isa {
            Isa::Avx512 | Isa::Amx => avx512::rows(p, plan, rows, c),
            _ => avx2::rows(p, plan, rows, c),
        }
    }
}

fn thin(isa: Isa, p: &Product<'_>, run: Run, c: &mut [u64]) {
    // SAFETY: as in `rows`.
    unsafe {
        match isa {
            Isa::Avx512 | Isa::Amx => avx512::thin(p, run, c),
            _ => avx2::thin(p, run, c),
        }
    }
}
