#!/usr/bin/env python3
"""Times SecretFlow SPU and `trefoil bench` in turn on the same machine and prints paired ratios.

    compare.py --spu "spu/bin/python spu_bench.py" --trefoil target/release/trefoil [--pairs 5] [--cells A-1,relu]

Both sides run as three processes over TCP on loopback, secret weights and secret input, everything counted. Of each
pair the medians of both sides are compared, and beside them their best runs: of a machine that is busy with other
things, the best runs say more. A peer that is not run here is scaled: its figure, measured beside SPU on
another machine, times what SPU takes now over what SPU took then. Where SPU has no figure then, the median of those
factors at the same batch is taken, or of those of training. The cells train-A to train-D are one step of SGD on 128
samples with its loss, in seconds per batch; SPU is asked for them with `--task train`.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys

# Cell: (best deployable peer, its seconds then, SPU's seconds then, ratio required, ratio hoped for).
CELLS = {
    "A-1": ("MP-SPDZ", 0.0042, 0.040, 8, 15),
    "D-1": ("MP-SPDZ", 0.0048, 0.050, 8, 15),
    "T-1": ("MP-SPDZ", 0.0063, 0.027, 8, 15),
    "B-1": ("MP-SPDZ", 0.062, 0.368, 20, 35),
    "C-1": ("TF Encrypted", 0.120, 0.412, 20, 35),
    "S-1": ("TF Encrypted", 0.056, 0.210, 30, 60),
    "A-128": ("MP-SPDZ", 0.061, 0.383, 6, 10),
    "D-128": ("MP-SPDZ", 0.144, 0.704, 6, 10),
    "T-128": ("CrypTen, not secure", 0.175, 0.483, 6, 10),
    "relu": ("MP-SPDZ", 0.688, 1.76, 6, 12),
    "matmul": ("SPU", 1.37, 1.37, 6, 8),
    "B-128": ("MP-SPDZ", 1.85, 10.4, 10, 20),
    "S-128": ("SPU", 6.77, 6.77, 60, 100),
    "C-128": ("MP-SPDZ", 5.46, None, 15, 25),
    "train-A": ("MP-SPDZ", 0.213, 1.20, 5, 10),
    "train-D": ("MP-SPDZ", 0.345, 25.2, 5, 10),
    "train-B": ("MP-SPDZ", 3.22, None, 5, 10),
    "train-C": ("TF Encrypted", 10.74, None, 5, 10),
}
# SPU takes seconds for each of these: fewer pairs.
SLOW = {"B-128", "S-128", "train-D"}
# Steps of training: SGD, this many samples.
TRAINED = "128"
SIZES = {"relu": 1_000_000, "matmul": 1024}


def last_json(command):
    """Runs a command and gives the JSON object on its last line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"{shlex.join(command)}: exit {done.returncode}\n{done.stderr[-800:]}")
    return json.loads(lines[-1])


def spu(command, cell):
    """SPU's median and best in seconds."""
    if cell in SIZES:
        row = last_json(command + ["--task", cell, "--reps", "3"])
    else:
        what, reps = network(cell), "1" if cell in SLOW else "7"
        row = last_json(command + what + ["--reps", reps])
    return row["median_s"], row["min_s"]


def network(cell):
    """The arguments of a cell that is a network, which both sides understand."""
    if cell.startswith("train-"):
        return ["--task", "train", "--net", cell.removeprefix("train-"), "--batch", TRAINED]
    net, batch = cell.split("-")
    return ["--net", net, "--batch", batch]


def trefoil(binary, cell, link):
    """Trefoil's median and best in seconds, and its peak memory."""
    what = ["--op", cell, "--size", str(SIZES[cell])] if cell in SIZES else network(cell)
    row = last_json([binary, "bench", *what, "--link", link, "--runs", "7", "--json"])
    median, best = ("seconds_per_batch", "seconds_per_batch_min") if "task" in row else ("total_s", "total_min_s")
    return row[median], row[best], row["peak_rss_bytes"]


def spread(values):
    """Median, least and greatest."""
    return statistics.median(values), min(values), max(values)


def measure(args, cell, factors):
    """Runs the pairs of one cell and prints its row."""
    peer, base, then, least, hoped = CELLS[cell]
    pairs = min(args.pairs, args.slow_pairs) if cell in SLOW else args.pairs
    batch = "train" if cell.startswith("train-") else cell.split("-")[-1]
    times, ratios, spus, bests = [], [], [], []
    for _ in range(pairs):
        if then is None:
            known = factors.get(batch)
            if not known:
                print(f"{cell}: skipped: no SPU figure of its kind ({batch}) in this run", flush=True)
                return None
            factor, fast = (statistics.median(f) for f in zip(*known))
        else:
            now, best = spu(args.spu, cell)
            spus.append(now)
            factor, fast = now / then, best / then
            factors.setdefault(batch, []).append((factor, fast))
        median, best, peak = trefoil(args.trefoil, cell, args.link)
        times.append(median)
        ratios.append(base * factor / median)
        bests.append(base * fast / best)
    r, low, high = spread(ratios)
    verdict = "hoped" if r >= hoped else "required" if r >= least else "SHORT"
    beside = f"{statistics.median(spus) * 1e3:.1f}" if spus else "-"
    print(
        f"| {cell} | {peer} | {beside} | {statistics.median(times) * 1e3:.2f} | {r:.1f} | {low:.1f} to {high:.1f} | "
        f"{statistics.median(bests):.1f} | "
        f"{least} / {hoped} | {verdict} | {peak / 2**20:.0f} | {pairs} |",
        flush=True,
    )
    return r >= least


def main():
    """Measures the cells asked for."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--spu", type=shlex.split, required=True, help="the command that times SPU")
    p.add_argument("--trefoil", default="target/release/trefoil", help="the binary")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--slow-pairs", type=int, default=2, help="pairs where SPU takes seconds: " + ", ".join(sorted(SLOW)))
    p.add_argument("--link", default="tcp", choices=["tcp", "tls"])
    p.add_argument("--cells", default=",".join(CELLS), help="default: %(default)s")
    args = p.parse_args()
    cells = args.cells.split(",")
    unknown = [c for c in cells if c not in CELLS]
    if unknown:
        p.error(f"no cell {', '.join(unknown)}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", flush=True)
    print("| cell | best peer | SPU now (ms) | Trefoil (ms) | ratio | least to greatest | of best runs | required / hoped | | MiB a party | pairs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    factors = {}
    met = [measure(args, cell, factors) for cell in cells]
    print(f"load {os.getloadavg()[0]:.1f} at the end; {sum(m is True for m in met)} of {len(met)} cells meet what is required")
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
