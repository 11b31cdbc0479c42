"""Losses, gradients and optimiser steps by PyTorch in float64: the golden file that `nn` is tested against.

    python3 bench/gradients.py            writes crates/nn/tests/golden/gradients.json
    python3 bench/gradients.py --check    computes it again and compares

Needs `torch`. Images are NHWC and kernels [h, w, in / groups, out] in the file; gradients are sums over the batch.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
FILE = Path(__file__).resolve().parent.parent / "crates/nn/tests/golden/gradients.json"
DISTANCE_EPSILON = 1e-4
STEPS = 5

NETWORKS = {
    "dense": ([5], [["dense", 4], ["relu"], ["dense", 3]]),
    "activations": ([4], [["dense", 5], ["sigmoid"], ["dense", 4], ["tanh"], ["dense", 4], ["clipped", 0.5],
                          ["dense", 3], ["leaky", 0.25], ["dense", 3]]),
    "softmax": ([4], [["dense", 4], ["softmax"], ["dense", 3]]),
    "conv": ([6, 5, 2], [["conv", 3, [3, 2], [1, 1], [1, 1, 0, 1], 1, [1, 1]], ["relu"],
                         ["conv", 4, [3, 3], [2, 1], [0, 0, 0, 0], 1, [1, 1]], ["flatten"], ["dense", 3]]),
    "grouped": ([5, 5, 4], [["conv", 4, [3, 3], [1, 1], [1, 1, 1, 1], 4, [1, 1]], ["relu"],
                            ["conv", 6, [2, 2], [1, 1], [0, 0, 0, 0], 2, [2, 1]], ["flatten"], ["dense", 3]]),
    "max_pool": ([7, 6, 1], [["conv", 2, [2, 2], [1, 1], [0, 0, 0, 0], 1, [1, 1]], ["relu"],
                             ["max", [3, 2], [2, 1], [0, 0, 0, 0]], ["flatten"], ["dense", 3]]),
    "padded_pool": ([5, 5, 1], [["conv", 2, [2, 2], [1, 1], [0, 1, 1, 0], 1, [1, 1]], ["relu"],
                                ["max", [2, 2], [2, 2], [0, 1, 1, 0]], ["flatten"], ["dense", 3]]),
    "average_pool": ([5, 5, 1], [["conv", 2, [2, 2], [1, 1], [0, 0, 0, 0], 1, [1, 1]],
                                 ["average", [3, 2], [2, 1], [1, 0, 0, 1]], ["flatten"], ["dense", 3]]),
    "batch_norm": ([4, 4, 1], [["conv", 3, [2, 2], [1, 1], [0, 0, 0, 0], 1, [1, 1]], ["norm", 0.01, 0.75], ["relu"],
                               ["flatten"], ["dense", 4], ["norm", 0.001, 0.5], ["dense", 3]]),
    "affine": ([4], [["dense", 4], ["affine"], ["relu"], ["dense", 3]]),
}
LOSSES = {
    "softmax": "softmax-cross-entropy",
    "binary": "binary-cross-entropy",
    "squares": "mean-squared-error",
    "contrastive": {"contrastive": {"margin": 1.5}},
    "triplet": {"triplet": {"margin": 0.5}},
}
TINY = 1e-15
BASE = {"schedule": {"rate": 0.05}, "epochs": 1}
OPTIMISERS = {
    "sgd": {"optimiser": "sgd"},
    "momentum": {"optimiser": {"momentum": {"momentum": 0.9}}},
    "nesterov": {"optimiser": {"nesterov": {"momentum": 0.9}}},
    "rms-prop": {"optimiser": {"rms-prop": {"decay": 0.9, "epsilon": TINY}}},
    "adam": {"optimiser": {"adam": {"beta1": 0.9, "beta2": 0.99, "epsilon": TINY}}},
    "ams-grad": {"optimiser": {"ams-grad": {"beta1": 0.6, "beta2": 0.5, "epsilon": TINY}}},
    "decay": {"optimiser": {"momentum": {"momentum": 0.5}}, "weight_decay": 0.1},
    "decoupled decay": {"optimiser": {"adam": {"beta1": 0.9, "beta2": 0.99, "epsilon": TINY}},
                        "weight_decay": 0.2, "decoupled_decay": True},
    "clipped by value": {"optimiser": "sgd", "clip": {"value": 0.05}},
    "clipped by norm": {"optimiser": "sgd", "clip": {"norm": 0.1}},
}


class Draw:
    """Seeded numbers of three decimals, so that the file stays small."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, shape, low=-1.0, high=1.0):
        values = low + (high - low) * torch.rand(shape, generator=self.generator)
        return torch.round(values, decimals=3)


def output(size, kernel, stride, pads, dilation=(1, 1)):
    along = lambda n, k, s, d, a, b: (n + a + b - (k - 1) * d - 1) // s + 1
    return [along(size[0], kernel[0], stride[0], dilation[0], pads[0], pads[1]),
            along(size[1], kernel[1], stride[1], dilation[1], pads[2], pads[3])]


def weights(shape, layers, draw):
    """The tensors of every layer in their order."""
    found, shape = [], list(shape)
    for kind, *a in layers:
        if kind == "dense":
            found += [draw.tensor([shape[-1], a[0]]), draw.tensor([a[0]], -0.3, 0.3)]
            shape = shape[:-1] + [a[0]]
        elif kind == "conv":
            out, kernel, stride, pads, groups, dilation = a
            found += [draw.tensor(kernel + [shape[2] // groups, out]), draw.tensor([out], -0.3, 0.3)]
            shape = output(shape, kernel, stride, pads, dilation) + [out]
        elif kind in ("max", "average"):
            shape = output(shape, a[0], a[1], a[2]) + [shape[2]]
        elif kind == "flatten":
            shape = [torch.Size(shape).numel()]
        elif kind == "affine":
            found += [draw.tensor([shape[-1]], 0.5, 1.5), draw.tensor([shape[-1]])]
        elif kind == "norm":
            found += [draw.tensor([shape[-1]], 0.5, 1.5), draw.tensor([shape[-1]])]
            found += [draw.tensor([shape[-1]]), draw.tensor([shape[-1]], 0.5, 1.5)]
    return found, shape


def padded(x, pads, value=0.0):
    return F.pad(x, (pads[2], pads[3], pads[0], pads[1]), value=value)


def channels_first(x):
    return x.permute(0, 3, 1, 2)


def forward(shape, layers, tensors, x, moving):
    tensors = iter(tensors)
    x = x.reshape([-1] + list(shape))
    for kind, *a in layers:
        if kind == "dense":
            x = x @ next(tensors) + next(tensors)
        elif kind == "conv":
            _, _, stride, pads, groups, dilation = a
            kernel = next(tensors).permute(3, 2, 0, 1)
            y = F.conv2d(padded(channels_first(x), pads), kernel, next(tensors), stride, 0, dilation, groups)
            x = y.permute(0, 2, 3, 1)
        elif kind == "max":
            y = F.max_pool2d(padded(channels_first(x), a[2], float("-inf")), a[0], a[1])
            x = y.permute(0, 2, 3, 1)
        elif kind == "average":
            y = channels_first(x)
            sums = F.avg_pool2d(padded(y, a[2]), a[0], a[1])
            parts = F.avg_pool2d(padded(torch.ones_like(y), a[2]), a[0], a[1])
            x = (sums / parts).permute(0, 2, 3, 1)
        elif kind == "relu":
            x = F.relu(x)
        elif kind == "clipped":
            x = x.clamp(0, a[0])
        elif kind == "leaky":
            x = F.leaky_relu(x, a[0])
        elif kind == "sigmoid":
            x = torch.sigmoid(x)
        elif kind == "tanh":
            x = torch.tanh(x)
        elif kind == "softmax":
            x = F.softmax(x, -1)
        elif kind == "flatten":
            x = x.reshape(x.shape[0], -1)
        elif kind == "affine":
            x = x * next(tensors) + next(tensors)
        elif kind == "norm":
            gamma, beta, mean, variance = (next(tensors) for _ in range(4))
            dims = list(range(x.dim() - 1))
            keep = a[1]
            moving.append(keep * mean + (1 - keep) * x.mean(dims))
            moving.append(keep * variance + (1 - keep) * x.var(dims, unbiased=False))
            last = x.movedim(-1, 1)
            x = F.batch_norm(last, None, None, gamma, beta, True, 0.0, a[0]).movedim(1, -1)
    return x.reshape(x.shape[0], -1)


def towers(loss):
    return {"contrastive": 2, "triplet": 3}.get(loss, 1)


def losses(loss, outputs, y):
    """The loss of every sample."""
    if loss == "softmax":
        return F.cross_entropy(outputs[0], y, reduction="none")
    if loss == "binary":
        return F.binary_cross_entropy_with_logits(outputs[0], y, reduction="none").mean(1)
    if loss == "squares":
        return F.mse_loss(outputs[0], y, reduction="none").mean(1)
    squared = lambda a, b: ((a - b) ** 2).sum(1)
    if loss == "contrastive":
        square = squared(*outputs)
        far = F.relu(1.5 - torch.sqrt(square + DISTANCE_EPSILON)) ** 2
        return y[:, 0] * square + (1 - y[:, 0]) * far
    return F.relu(squared(outputs[0], outputs[1]) - squared(outputs[0], outputs[2]) + 0.5)


def labels(loss, samples, outputs, draw):
    if loss == "softmax":
        return F.one_hot(torch.arange(samples) % outputs, outputs).double()
    if loss == "binary":
        return (draw.tensor([samples, outputs]) > 0).double()
    if loss == "squares":
        return draw.tensor([samples, outputs])
    if loss == "contrastive":
        return (torch.arange(samples) % 2).double().reshape(-1, 1)
    return torch.zeros(samples, 0)


def evaluate(shape, layers, tensors, loss, xs, y):
    moving = []
    per_sample = losses(loss, [forward(shape, layers, tensors, x, moving) for x in xs], y)
    return per_sample, moving


def plain(t):
    return t.detach().flatten().tolist()


def case(name, network, loss, seed, samples=4):
    draw = Draw(seed)
    shape, layers = NETWORKS[network]
    tensors, out = weights(shape, layers, draw)
    xs = [draw.tensor([samples, torch.Size(shape).numel()]) for _ in range(towers(loss))]
    y = labels(loss, samples, out[0], draw)
    for t in tensors:
        t.requires_grad_()
    per_sample, moving = evaluate(shape, layers, tensors, loss, xs, y)
    per_sample.sum().backward()
    moving = iter(moving)
    gradients, after = [], []
    for t in tensors:
        gradients.append(plain(t.grad) if t.grad is not None else [])
        after.append([] if t.grad is not None else plain(next(moving)))
    return {"name": name, "shape": shape, "layers": layers, "loss": LOSSES[loss], "samples": samples,
            "tensors": [plain(t) for t in tensors], "records": plain(torch.cat(xs + [y], 1)),
            "losses": plain(per_sample), "gradients": gradients, "moved": after}


def trajectory(name, seed=77, samples=6):
    """Five steps on the same batch, on the mean of its losses."""
    draw = Draw(seed)
    shape, layers = [3], [["dense", 3], ["tanh"], ["dense", 2]]
    tensors, out = weights(shape, layers, draw)
    first = [plain(t) for t in tensors]
    x, y = draw.tensor([samples, 3]), draw.tensor([samples, 2])
    for t in tensors:
        t.requires_grad_()
    spec = OPTIMISERS[name]
    decay = spec.get("weight_decay", 0.0)
    groups = [{"params": [t], "weight_decay": decay if t.dim() > 1 else 0.0} for t in tensors]
    kind = spec["optimiser"]
    key = kind if isinstance(kind, str) else next(iter(kind))
    settings = {} if isinstance(kind, str) else kind[key]
    rate = BASE["schedule"]["rate"]
    betas = (settings.get("beta1", 0), settings.get("beta2", 0))
    make = {
        "sgd": lambda: torch.optim.SGD(groups, rate),
        "momentum": lambda: torch.optim.SGD(groups, rate, momentum=settings["momentum"]),
        "nesterov": lambda: torch.optim.SGD(groups, rate, momentum=settings["momentum"], nesterov=True),
        "rms-prop": lambda: torch.optim.RMSprop(groups, rate, alpha=settings["decay"], eps=TINY),
        "adam": lambda: (torch.optim.AdamW if spec.get("decoupled_decay") else torch.optim.Adam)(
            groups, rate, betas=betas, eps=TINY),
        "ams-grad": lambda: torch.optim.Adam(groups, rate, betas=betas, eps=TINY, amsgrad=True),
    }
    optimiser = make[key]()
    steps = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        evaluate(shape, layers, tensors, "squares", [x], y)[0].mean().backward()
        clip = spec.get("clip", {})
        if "value" in clip:
            torch.nn.utils.clip_grad_value_(tensors, clip["value"])
        if "norm" in clip:
            norm = torch.sqrt(sum((t.grad ** 2).sum() for t in tensors))
            for t in tensors:
                t.grad *= torch.clamp(clip["norm"] / norm, max=1.0)
        optimiser.step()
        steps.append([plain(t) for t in tensors])
    return {"name": name, "shape": shape, "layers": layers, "samples": samples, "tensors": first,
            "records": plain(torch.cat([x, y], 1)),
            "spec": {"loss": "mean-squared-error", "batch": samples, **BASE, **spec}, "steps": steps}


def everything():
    cases = [case(name, name, "softmax", 10 + i) for i, name in enumerate(NETWORKS)]
    cases += [case(f"loss {name}", "dense", name, 40 + i) for i, name in enumerate(LOSSES)]
    cases.append(case("tanh triplets", "activations", "triplet", 61))
    return {"cases": cases, "trajectories": [trajectory(name) for name in OPTIMISERS]}


def close(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b))
    if isinstance(a, float) or isinstance(b, float):
        return abs(a - b) <= 1e-12 * max(1.0, abs(a))
    return a == b


def main():
    found = json.loads(json.dumps(everything()))
    if "--check" in sys.argv[1:]:
        same = close(json.loads(FILE.read_text()), found)
        print("the golden file is what PyTorch", torch.__version__, "computes" if same else "does NOT compute")
        sys.exit(0 if same else 1)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(found, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
    print(FILE, FILE.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
