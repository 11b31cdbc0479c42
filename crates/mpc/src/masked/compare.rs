//! Comparison [z >= 0] of masked wires.
//!
//! z = delta + NOT lambda + 1, where delta is public and the bits n_j of NOT lambda are known to the producer. In a
//! block of four bits, generate and propagate are polynomials in the n_j with public coefficients (the bits of delta):
//! the producer deals XOR shares of the block's 15 monomials and the evaluators combine them locally. Then the (G, P)
//! of all blocks are opened as masked bits, up to four blocks are combined per node (a multi-input AND over masked
//! bits, Patra et al. 2021, ABY2.0), and so on to the root; the sign is opened masked. A window of 32 bits: 3 rounds,
//! 19 bits per evaluator online, 151 bits dealt.
//!
//! With keys (see `dcf`) the carry comes of no round at all: an XOR share of [lower bits of delta < those of lambda].
//!
//! Before: delta at A and B, lambda at the producer. After: a masked bit, public bhat = b XOR beta, beta XOR-shared.

use std::borrow::Cow;

use rayon::prelude::*;
use trefoil_prg::Purpose;
use trefoil_ring::Words;
use trefoil_ring::kernels::bits::to_planes;

use super::dcf::{self, Group, KEYS, Keys, Shape};
use super::dealing::{At, Dealing, Draw};
use super::layout::{Layout, Level, Node, chunks, plane_g, plane_p};
use super::online::{Online, Role};
use super::repeat::{copy_bits, repeat, repeat_plane};
use crate::error::MpcError;

/// What an evaluator holds of one comparison of many elements, chunk by chunk.
#[derive(Default)]
pub(crate) struct CompareMaterial {
    leaf: Words,
    levels: Vec<LevelMaterial>,
    keys: Keys,
    top: Words,
    /// This party's part of the mask of the result: beta (the whole of it at the producer).
    pub(crate) sign: Words,
}

#[derive(Default)]
struct LevelMaterial {
    masks: Words,
    monomials: Words,
}

impl CompareMaterial {
    pub(crate) fn words(&self) -> usize {
        let levels: usize = self.levels.iter().map(|l| l.masks.len() + l.monomials.len()).sum();
        self.leaf.len() + levels + self.keys.words() + self.top.len() + self.sign.len()
    }
}

/// The functions that a carry comes of: below the window's top bit, one bit in XOR shares.
fn shape(layout: &Layout) -> Shape {
    Shape { bits: layout.window.k - 1, group: Group::Bit }
}

/// Deals the comparison of `n` wires. `lambda` writes the masks of the elements from its first argument on: it is
/// called at the producer only. The producer gets beta.
pub(crate) fn deal_compare<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    layout: &Layout,
    lambda: impl Fn(usize, &mut [u64]),
) -> Result<CompareMaterial, MpcError> {
    let mut m = deal_signs(d, at, n, 1, layout, lambda)?;
    m.sign = deal_sign_masks(d, at, n.div_ceil(64))?;
    Ok(m)
}

/// The masks of `words` words of comparisons' results.
pub(crate) fn deal_sign_masks<D: Dealing>(d: &mut D, at: At, words: usize) -> Result<Words, MpcError> {
    let mut sign = d.open_mask(at, Purpose::SignMask)?;
    let mut out = Words::with_capacity(if D::COMPUTES { words } else { 0 });
    d.mask_bits(&mut sign, words, &mut out);
    Ok(out)
}

/// Deals `copies` comparisons of `n` wires under the same masks, but not what masks their results.
pub(crate) fn deal_signs<D: Dealing>(
    d: &mut D,
    at: At,
    n: usize,
    copies: usize,
    layout: &Layout,
    lambda: impl Fn(usize, &mut [u64]),
) -> Result<CompareMaterial, MpcError> {
    let (lo, k) = (layout.window.lo, layout.window.k);
    let mut leaf = d.open_shares(at, Purpose::Leaf)?;
    let mut top = d.open_shares(at, Purpose::WindowTop)?;
    let mut levels = Vec::with_capacity(layout.levels.len());
    for l in 0..layout.levels.len() {
        let at = at.level(l)?;
        levels.push((d.open_mask(at, Purpose::NodeMask)?, d.open_shares(at, Purpose::NodeMonomial)?));
    }
    let mut roots = if layout.keys { Some(dcf::open_keys(d, at)?) } else { None };
    let (own, all) = (n.div_ceil(64), (copies * n).div_ceil(64));
    let level_room =
        |l: &Level| LevelMaterial { masks: D::room(l.opened() * all), monomials: D::room(l.dealt() * all) };
    let mut m = CompareMaterial {
        leaf: D::room(layout.leaf_planes() * own),
        levels: layout.levels.iter().map(level_room).collect(),
        keys: if layout.keys { dcf::room::<D>(n, shape(layout)) } else { Keys::default() },
        top: D::room(own),
        sign: Words::default(),
    };
    let mut planes = Words::default();
    for (start, len, words) in chunks(n) {
        let bits = &mut planes;
        d.deal_bits(&mut leaf, layout.leaf_planes() * words, &mut m.leaf, |out| {
            let mut wires = Words::zeros(len);
            lambda(start, &mut wires);
            wires.iter_mut().for_each(|w| *w = !*w);
            *bits = Words::zeros(k as usize * words);
            to_planes(&wires, lo, k, bits);
            leaf_monomials(layout, words, bits, out);
        })?;
        if copies == 1 {
            deal_nodes(d, layout, words, &mut levels, &mut m.levels)?;
        }
        if let Some(roots) = &mut roots {
            let mut wires = Words::zeros(if D::COMPUTES && !D::KEEPS { len } else { 0 });
            if !wires.is_empty() {
                lambda(start, &mut wires);
            }
            let body = (1 << (k - 1)) - 1;
            dcf::deal_keys(d, roots, len, shape(layout), &mut m.keys, |e| (wires[e] >> lo & body, [0, 0, 1]))?;
        }
        let bits = &planes;
        d.deal_bits(&mut top, words, &mut m.top, |out| out.copy_from_slice(&bits[(k as usize - 1) * words..]))?;
    }
    if copies > 1 {
        chunks(copies * n).try_for_each(|(_, _, words)| deal_nodes(d, layout, words, &mut levels, &mut m.levels))?;
    }
    Ok(m)
}

/// Deals one chunk of all levels above the leaves, of `words` words a plane.
fn deal_nodes<D: Dealing>(
    d: &mut D,
    layout: &Layout,
    words: usize,
    draws: &mut [(Draw, Draw)],
    out: &mut [LevelMaterial],
) -> Result<(), MpcError> {
    for ((level, (masks, monomials)), material) in layout.levels.iter().zip(draws).zip(out) {
        let first = material.masks.len();
        d.mask_bits(masks, level.opened() * words, &mut material.masks);
        let mu = &material.masks[first..];
        d.deal_bits(monomials, level.dealt() * words, &mut material.monomials, |out| {
            node_monomials(level, words, mu, out);
        })?;
    }
    Ok(())
}

fn leaf_monomials(layout: &Layout, words: usize, bits: &[u64], out: &mut [u64]) {
    let mut first = 0;
    let mut base = 0;
    for &b in &layout.blocks {
        let block = &mut out[base * words..(base + (1 << b) - 1) * words];
        for s in 1usize..1 << b {
            let bit = &bits[(first + s.trailing_zeros() as usize) * words..][..words];
            let rest = s & (s - 1);
            let (before, here) = block.split_at_mut((s - 1) * words);
            let here = &mut here[..words];
            if rest == 0 {
                here.copy_from_slice(bit);
            } else {
                let rest = &before[(rest - 1) * words..][..words];
                here.iter_mut().zip(bit).zip(rest).for_each(|((h, x), y)| *h = x & y);
            }
        }
        first += b as usize;
        base += (1 << b) - 1;
    }
}

/// Plane of factor `id` (2i: g_i, 2i + 1: p_i) of a node among the opened planes of its level.
fn factor_plane(node: &Node, id: usize) -> usize {
    let e = node.start + id / 2;
    if id.is_multiple_of(2) { plane_g(e) } else { plane_p(e) }
}

fn node_monomials(level: &Level, words: usize, masks: &[u64], out: &mut [u64]) {
    let mut planes = out.chunks_exact_mut(words);
    for node in &level.nodes {
        for (&s, here) in node.monomials.iter().zip(&mut planes) {
            here.fill(u64::MAX);
            for id in (0..16).filter(|id| s >> id & 1 == 1) {
                let mask = &masks[factor_plane(node, id) * words..][..words];
                here.iter_mut().zip(mask).for_each(|(h, m)| *h &= m);
            }
        }
    }
}

/// Evaluates the comparison of `n` wires whose deltas `delta` writes. Gives the public bits bhat, one plane.
pub(crate) fn compare(
    net: &mut Online<'_>,
    n: usize,
    layout: &Layout,
    material: &CompareMaterial,
    delta: impl Fn(usize, &mut [u64]),
) -> Result<Words, MpcError> {
    let shares = signs(net, n, 1, layout, material, delta)?;
    net.open_bits(shares, &material.sign)
}

/// XOR shares of `copies` comparisons of `n` wires under the same masks: one plane, copy after copy. `delta` writes the
/// deltas of its elements from its first argument on.
pub(crate) fn signs(
    net: &mut Online<'_>,
    n: usize,
    copies: usize,
    layout: &Layout,
    material: &CompareMaterial,
    delta: impl Fn(usize, &mut [u64]),
) -> Result<Words, MpcError> {
    let role = net.role;
    let (lo, k) = (layout.window.lo, layout.window.k as usize);
    let all = copies * n;
    let mut sign = Words::with_capacity(all.div_ceil(64));
    // XOR shares of this level's pairs, chunk by chunk: as many planes as its level opens (the lowest P left out).
    let mut shares = Words::with_capacity(layout.pair_planes().max(1) * all.div_ceil(64));
    let mut scratch = Scratch::default();
    let (mut leaf, mut repeated) = (0, Words::default());
    for (start, len, words) in chunks(all) {
        let mut wires = Words::zeros(len);
        delta(start, &mut wires);
        let mut bits = Words::zeros(k * words);
        to_planes(&wires, lo, k as u32, &mut bits);
        let size = layout.leaf_planes() * words;
        let dealt = if copies == 1 {
            &material.leaf[leaf..leaf + size]
        } else {
            repeated = repeat(&material.leaf, layout.leaf_planes(), n, start, len);
            &repeated
        };
        let out = shares.grow(layout.pair_planes() * words);
        leaf_pairs(role, layout, words, &bits, dealt, &mut scratch, out);
        leaf += size;
        sign.extend(&bits[(k - 1) * words..]);
    }
    drop(repeated);
    if layout.keys {
        carries(role, (n, copies), layout, material, delta, shares.grow(all.div_ceil(64)));
    }
    for (level, held) in layout.levels.iter().zip(&material.levels) {
        let public = net.open_bits(shares, &held.masks)?;
        let next = 2 * level.nodes.len() - 1;
        let (mut at, mut dealt) = (0, 0);
        shares = Words::with_capacity(next * all.div_ceil(64));
        for (_, _, words) in chunks(all) {
            let (opened, monomials) = (level.opened() * words, level.dealt() * words);
            let held = Held {
                words,
                public: &public[at..at + opened],
                masks: &held.masks[at..at + opened],
                monomials: &held.monomials[dealt..dealt + monomials],
            };
            level_pairs(role, level, &held, &mut scratch, shares.grow(next * words));
            at += opened;
            dealt += monomials;
        }
    }
    // b = NOT (carry XOR top bit of delta XOR top bit of NOT lambda); the public part is A's.
    let ones = role.ones();
    let top =
        if copies == 1 { Cow::Borrowed(&material.top) } else { Cow::Owned(repeat_plane(&material.top, n, copies)) };
    for ((s, d), t) in shares.iter_mut().zip(sign.iter()).zip(top.iter()) {
        *s ^= t ^ (!d & ones);
    }
    Ok(shares)
}

/// XOR shares of the carries by keys: there is a carry unless the lower bits of delta are less than lambda's. A wire's
/// key serves every copy of it.
fn carries(
    role: Role,
    (n, copies): (usize, usize),
    layout: &Layout,
    material: &CompareMaterial,
    delta: impl Fn(usize, &mut [u64]),
    out: &mut [u64],
) {
    let (lo, shape) = (layout.window.lo, shape(layout));
    let body = (1 << shape.bits) - 1;
    for copy in 0..copies {
        let mut wires = Words::zeros(n);
        delta(copy * n, &mut wires);
        let point = |e: usize| wires[e] >> lo & body;
        let mut plane = Words::zeros(n.div_ceil(64));
        let pieces = plane.par_chunks_mut(KEYS / 64);
        dcf::evaluate(role, &material.keys, n, shape, point, pieces, |_, values, out| {
            for (o, chunk) in out.iter_mut().zip(values.chunks(64)) {
                *o = role.ones();
                chunk.iter().enumerate().for_each(|(i, v)| *o ^= (v[2] & 1) << i);
            }
        });
        copy_bits(&plane, 0, out, copy * n, n);
    }
}

/// Room for the tables of one block or node.
#[derive(Default)]
pub(super) struct Scratch(Words);

impl Scratch {
    fn planes(&mut self, n: usize) -> &mut [u64] {
        if self.0.len() < n {
            self.0 = Words::zeros(n);
        }
        &mut self.0[..n]
    }
}

/// `table[s] = d & table[s] ^ table[s + half]` for the lower half: one more factor (d XOR its mask) multiplied in.
fn fold(table: &mut [u64], half: usize, words: usize, d: &[u64]) {
    let (low, high) = table.split_at_mut(half * words);
    for (low, high) in low.chunks_exact_mut(words).zip(high.chunks_exact(words)) {
        for ((l, h), d) in low.iter_mut().zip(high).zip(d) {
            *l = (*d & *l) ^ h;
        }
    }
}

/// The XOR shares of every block's (G, P) from the shares of its monomials.
fn leaf_pairs(
    role: Role,
    layout: &Layout,
    words: usize,
    bits: &[u64],
    shares: &[u64],
    scratch: &mut Scratch,
    out: &mut [u64],
) {
    let (mut first, mut base) = (0, 0);
    for (e, &b) in layout.blocks.iter().enumerate() {
        let size = 1usize << b;
        let table = scratch.planes(size * words);
        table[..words].fill(role.ones());
        table[words..].copy_from_slice(&shares[base * words..(base + size - 1) * words]);
        let g = plane_g(e) * words;
        out[g..g + words].fill(0);
        for j in (0..b as usize).rev() {
            let d = &bits[(first + j) * words..][..words];
            let n_j = &table[(1 << j) * words..][..words];
            for ((o, d), n) in out[g..g + words].iter_mut().zip(d).zip(n_j) {
                *o ^= d & n;
            }
            fold(table, 1 << j, words, d);
        }
        if e == 0 {
            // The carry into the lowest block is one: whatever it propagates is generated.
            out[g..g + words].iter_mut().zip(&table[..words]).for_each(|(o, p)| *o ^= p);
        } else {
            out[plane_p(e) * words..][..words].copy_from_slice(&table[..words]);
        }
        first += b as usize;
        base += size - 1;
    }
}

/// One chunk of one level: opened bits, own parts of their masks, shares of the masks' monomials.
struct Held<'a> {
    words: usize,
    public: &'a [u64],
    masks: &'a [u64],
    monomials: &'a [u64],
}

fn level_pairs(role: Role, level: &Level, held: &Held<'_>, scratch: &mut Scratch, out: &mut [u64]) {
    let words = held.words;
    let mut base = 0;
    for (e, node) in level.nodes.iter().enumerate() {
        let monomials = &held.monomials[base * words..(base + node.monomials.len()) * words];
        base += node.monomials.len();
        let g = plane_g(e) * words;
        out[g..g + words].fill(0);
        for i in 0..node.len {
            // g_i and every p above it.
            let factors: Vec<usize> = std::iter::once(2 * i).chain((i + 1..node.len).map(|j| 2 * j + 1)).collect();
            let term = product(role, node, &factors, held, monomials, scratch);
            out[g..g + words].iter_mut().zip(term).for_each(|(o, t)| *o ^= t);
        }
        if node.want_p() {
            let factors: Vec<usize> = (0..node.len).map(|j| 2 * j + 1).collect();
            let term = product(role, node, &factors, held, monomials, scratch);
            out[plane_p(e) * words..][..words].copy_from_slice(term);
        }
    }
}

/// XOR share of the product of a node's masked bits `factors`.
fn product<'s>(
    role: Role,
    node: &Node,
    factors: &[usize],
    held: &Held<'_>,
    monomials: &[u64],
    scratch: &'s mut Scratch,
) -> &'s [u64] {
    let words = held.words;
    let public = |f: usize| &held.public[factor_plane(node, factors[f]) * words..][..words];
    let share = |s: usize| {
        let id: u16 = factors.iter().enumerate().filter(|(f, _)| s >> f & 1 == 1).map(|(_, &id)| 1u16 << id).sum();
        if s.is_power_of_two() {
            return &held.masks[factor_plane(node, id.trailing_zeros() as usize) * words..][..words];
        }
        let at = node.monomials.partition_point(|&m| m < id);
        &monomials[at * words..][..words]
    };
    and(role, words, factors.len(), public, share, scratch)
}

/// XOR share of the product of `n` masked bits (public XOR mask), one plane each: a polynomial in the masks with
/// public coefficients. `share(s)` is the share of the product of the masks in the set `s`.
pub(super) fn and<'a, 's>(
    role: Role,
    words: usize,
    n: usize,
    public: impl Fn(usize) -> &'a [u64],
    share: impl Fn(usize) -> &'a [u64],
    scratch: &'s mut Scratch,
) -> &'s [u64] {
    let table = scratch.planes(words << n);
    table[..words].fill(role.ones());
    for s in 1..1usize << n {
        table[s * words..(s + 1) * words].copy_from_slice(share(s));
    }
    for f in (0..n).rev() {
        fold(table, 1 << f, words, public(f));
    }
    &table[..words]
}
