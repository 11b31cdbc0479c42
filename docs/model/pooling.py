#!/usr/bin/env python3
"""Executable model of max-pooling by tournament and of argmax by all pairs (needs numpy).

One process plays alice, bob and carol, as crates/mpc/src/masked/{pool,argmax}.rs do: it asserts the algebra
against plain integers and prints rounds, bits that each evaluator sends, and bits that carol deals, per output.
The comparison inside is a functionality here (a masked bit of the window's top bit, computed in the clear); its
message sizes are counted from its layout: leaf blocks of four bits, up to four (G, P) pairs a node.
"""
from itertools import combinations

import numpy as np

U = np.uint64
BLOCK = ARITY = 4
rng = np.random.default_rng(11)         # stands for the PRG streams


def rand(shape):
    return rng.integers(0, 2**64, shape, dtype=U, endpoint=False)


def randbit(shape):
    return rng.integers(0, 2, shape, dtype=U)


class Meter:
    """Rounds, bits sent by each evaluator, bits dealt by carol."""

    def __init__(self):
        self.rounds = self.online = self.dealt = 0

    def report(self, name, n):
        print(f"{name:34s} rounds {self.rounds:2d}   online {self.online / n:7.1f} bits/evaluator/element"
              f"   offline {self.dealt / n:7.1f} bits/element")


def deal(m, value):
    """Additive shares of a value that carol knows: alice's from the PRG, bob's sent."""
    a = rand(value.shape)
    m.dealt += 64 * value.size
    return a, value - a


def deal_bit(m, value):
    a = randbit(value.shape)
    m.dealt += value.size
    return a, value ^ a


class Wire:
    """x = delta - (lam_a + lam_b): delta at both evaluators, each a part of the mask, carol the whole mask."""

    def __init__(self, delta, lam_a, lam_b):
        self.delta, self.lam_a, self.lam_b = delta, lam_a, lam_b

    @property
    def lam(self):                      # carol's
        return self.lam_a + self.lam_b

    def __sub__(self, other):
        return Wire(self.delta - other.delta, self.lam_a - other.lam_a, self.lam_b - other.lam_b)

    def shares(self):
        return self.delta - self.lam_a, U(0) - self.lam_b


def open_wire(m, za, zb):
    la, lb = rand(za.shape), rand(za.shape)
    m.rounds += 1
    m.online += 64 * za.size
    return Wire((za + la) + (zb + lb), la, lb)


def mask(x):
    la, lb = rand(x.shape), rand(x.shape)
    return Wire(x + la + lb, la, lb)


def node_monomials(pairs, lowest):
    """Products of two or more masks that one node needs: g_i with every p above it, and the run of all p."""
    runs = [{("g", i)} | {("p", j) for j in range(i + 1, pairs)} for i in range(pairs)]
    if not lowest:                      # nothing propagates into the lowest node: its own P is not needed
        runs.append({("p", j) for j in range(pairs)})
    subsets = {frozenset(s) for r in runs for n in range(2, len(r) + 1) for s in combinations(sorted(r), n)}
    return len(subsets)


def compare_sizes(k):
    """Bits opened in each round, and bits dealt, for one comparison of k bits."""
    body = k - 1
    blocks = [min(BLOCK, body - s) for s in range(0, body, BLOCK)]
    dealt = sum(2**b - 1 for b in blocks) + 1           # the monomials of the leaves, the window's top bit
    opened, pairs = [], len(blocks)
    while pairs > 1:
        opened.append(2 * pairs - 1)                    # the lowest P is not needed
        starts = range(0, pairs, ARITY)
        dealt += sum(node_monomials(min(ARITY, pairs - s), s == 0) for s in starts)
        pairs = len(starts)
    return opened + [1], dealt


def compare(m, delta, lam, k):
    """[top bit of (delta - lam) mod 2^k is 0] as a masked bit: public, and an XOR share of its mask each."""
    opened, dealt = compare_sizes(k)
    m.rounds += len(opened)
    m.online += sum(opened) * delta.size
    m.dealt += dealt * delta.size
    b = ((delta - lam) >> U(k - 1) & U(1)) ^ U(1)
    beta_a, beta_b = randbit(delta.shape), randbit(delta.shape)
    return b ^ beta_a ^ beta_b, beta_a, beta_b


def relu(m, z, lo, k):
    """Additive shares of max(z, 0): carol deals beta and beta * lambda."""
    bhat, beta_a, beta_b = compare(m, z.delta >> U(lo), z.lam >> U(lo), k)
    beta = beta_a ^ beta_b
    betas, products = deal(m, beta), deal(m, beta * z.lam)
    sign = U(1) - U(2) * bhat
    out = []
    for share, own, b, product in zip((z.delta, U(0)), (z.lam_a, z.lam_b), betas, products):
        out.append(bhat * (share - own) + sign * (z.delta * b - product))
    return out


def tournament(m, candidates, lo, k):
    """Additive shares of the maximum: max(a, b) = b + ReLU(a - b), winners opened again between the levels.

    One level's pairs run side by side: its rounds count once.
    """
    while len(candidates) > 1:
        pairs = list(zip(candidates[::2], candidates[1::2]))
        stack = lambda part: np.concatenate([part(p) for p in pairs])
        difference = Wire(*(stack(lambda p, f=f: getattr(p[0] - p[1], f)) for f in ("delta", "lam_a", "lam_b")))
        winners = [r + s for r, s in zip(relu(m, difference, lo, k),
                                         (stack(lambda p, i=i: p[1].shares()[i]) for i in (0, 1)))]
        if len(candidates) == 2:
            return winners
        opened = open_wire(m, *winners)
        n = candidates[0].delta.size
        parts = [Wire(opened.delta[i:i + n], opened.lam_a[i:i + n], opened.lam_b[i:i + n])
                 for i in range(0, opened.delta.size, n)]
        candidates = parts + (candidates[-1:] if len(candidates) % 2 else [])
    return candidates[0].shares()


def and_groups(factors):
    """Sizes of the groups, level by level: up to four factors each, as even as they can be."""
    levels, left = [], factors
    while left > ARITY:
        groups = -(-left // ARITY)
        levels.append([left // groups + (g < left % groups) for g in range(groups)])
        left = groups
    return levels + [[left]]


def multi_and(m, factors):
    """XOR shares of the AND of masked bits (public, mask_a, mask_b): carol deals the masks' products."""
    shares = [np.zeros_like(factors[0][0]), np.zeros_like(factors[0][0])]
    n = len(factors)
    for s in range(1 << n):
        inside = [i for i in range(n) if s >> i & 1]
        public = np.ones_like(factors[0][0])
        for i in range(n):
            if i not in inside:
                public = public & factors[i][0]
        if not inside:
            shares[0] = shares[0] ^ public
        elif len(inside) == 1:          # the masks themselves are held as XOR shares already
            for p in (0, 1):
                shares[p] = shares[p] ^ (public & factors[inside[0]][1 + p])
        else:
            product = np.ones_like(public)
            for i in inside:
                product = product & (factors[i][1] ^ factors[i][2])
            for p, dealt in enumerate(deal_bit(m, product)):
                shares[p] = shares[p] ^ (public & dealt)
    return shares


def argmax(m, x, lo, k):
    """XOR shares of the index of the largest: every pair compared once on shifted wires, its bit used both ways."""
    n = len(x)
    pairs = list(combinations(range(n), 2))
    shifted = [(w.delta >> U(lo), w.lam >> U(lo)) for w in x]
    stack = lambda part: np.concatenate([shifted[i][part] - shifted[j][part] for i, j in pairs])
    bhat, beta_a, beta_b = compare(m, stack(0), stack(1), k)
    batch = x[0].delta.size
    cut = lambda plane, p: plane[p * batch:(p + 1) * batch]
    bits = [(cut(bhat, p), cut(beta_a, p), cut(beta_b, p)) for p in range(len(pairs))]
    flip = lambda b: (b[0] ^ U(1), b[1], b[2])
    factors = [[bits[p] if pair[0] == c else flip(bits[p]) for p, pair in enumerate(pairs) if c in pair]
               for c in range(n)]
    levels = and_groups(n - 1)
    for level, sizes in enumerate(levels):
        last = level + 1 == len(levels)
        m.rounds += not last
        for c in range(n):
            first, out = 0, []
            for size in sizes:
                a, b = multi_and(m, factors[c][first:first + size])
                first += size
                if last:
                    out.append((a, b))
                    continue
                ma, mb = randbit(batch), randbit(batch)
                m.online += batch
                out.append((a ^ ma ^ b ^ mb, ma, mb))
            factors[c] = out
    index = [np.zeros(batch, U), np.zeros(batch, U)]
    for c in range(n):
        for p in (0, 1):
            index[p] = index[p] ^ (factors[c][0][p] * U(c))
    return index


def main():
    np.seterr(over="ignore")
    n, f = 4096, 16
    for window, lo, k in ((4, 0, 33), (9, 0, 33), (4, f, 33)):
        half = 2 ** (lo + k - 2)
        v = rng.integers(-half, half - 2**lo, (window, n)).astype(np.int64)
        v[:, ::2] = v[0, ::2] + rng.integers(-2, 3, (window, n // 2))      # near ties
        v = np.clip(v, -half, half - 2**lo - 1)
        m = Meter()
        a, b = tournament(m, [mask(row.view(U)) for row in v], lo, k)
        error = v.max(0) - (a + b).view(np.int64)
        levels = (window - 1).bit_length()
        assert (error >= 0).all() and (error <= levels * (2**lo if lo else 0)).all(), (window, lo, error.max())
        side = int(window**0.5)
        m.report(f"{side}x{side} max-pool, bits {lo}..{lo + k}", n)
    for classes in (2, 4, 10, 40):
        for lo in (0, f):
            half = 2 ** (lo + 31)
            v = rng.integers(-half, half, (classes, n)).astype(np.int64)
            v[:, ::2] = v[0, ::2] + rng.integers(-1, 2, (classes, n // 2)) # ties and near ties
            m = Meter()
            a, b = argmax(m, [mask(row.view(U)) for row in np.clip(v, -half, half - 1)], lo, 33)
            v = np.clip(v, -half, half - 1)
            got = (a ^ b).astype(np.int64)
            assert (got < classes).all()
            if lo == 0:
                assert (got == v.argmax(0)).all(), "ties must go to the lower index"
            assert (v.max(0) - np.take_along_axis(v, got[None], 0)[0] <= 2 * 2**lo).all()
        m.report(f"argmax of {classes}", n)
    print("tournament and all pairs agree with plain arithmetic")


if __name__ == "__main__":
    main()
