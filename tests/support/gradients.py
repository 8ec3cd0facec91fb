"""What torchrun starts in tests/run/test_distributed.py: backward passes in float64 over a batch
that its processes share; the first writes gradients and running statistics to a file.

gradients.py FILE KERNELS NETWORK..: into the second file, with several processes, what comes where
batch norm is computed as on a GPU, whose operations are written out here. NETWORK: base, or the
numbers of patches that are refined in each picture, joined by commas."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from model import MattingBase, MattingRefine
from training import team as distributed
from training.batch_norm import GlobalBatchNorm2d, GlobalPatchNorm, over_all_processes

BATCH = 4


def stats(x, eps):
    return x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + eps).rsqrt()


def gather_stats(x, means, scales, running_mean, running_var, momentum, eps, counts):
    total = counts.sum()
    mean = (means * counts[:, None]).sum(0) / total
    squares = (scales**-2 - eps + (means - mean) ** 2) * counts[:, None]
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(squares.sum(0) / (total - 1), momentum)
    return mean, (squares.sum(0) / total + eps).rsqrt()


def elementwise(x, weight, bias, mean, scale, eps):
    return (x - each(mean)) * each(scale * weight) + each(bias)


def backward_reduce(grad, x, mean, scale, weight, *_needed):
    total, product = grad.sum((0, 2, 3)), (grad * (x - each(mean))).sum((0, 2, 3))
    return total, product, product * scale, total


def backward_elementwise(grad, x, mean, scale, weight, total, product, counts):
    total, product = total / counts.sum(), product / counts.sum()
    centred = grad - each(total) - (x - each(mean)) * each(scale**2 * product)
    return centred * each(scale * weight)


def each(value):
    return value[:, None, None]


def refining(numbers):
    """A network that refines so many patches of each picture."""
    model = MattingRefine("mobilenetv2", backbone_scale=0.5, refine_mode="thresholding")
    order = torch.rand(BATCH, 16 * 16, generator=torch.Generator().manual_seed(2)).argsort(1)
    chosen = (order < torch.tensor(numbers)[:, None]).view(BATCH, 1, 16, 16)
    model.choose = lambda _err, _shape: chosen[mine]
    return model


def backward_passes(network):
    """Gradients and buffers of `network` by name, after two passes: what takes no part in one stops
    the next."""
    torch.manual_seed(0)
    base = network == "base"
    model = MattingBase("mobilenetv2") if base else refining([int(n) for n in network.split(",")])
    model.train()
    if team.size > 1:
        over_all_processes(model, team.device_group)
    forward = team.wrap(model)
    generator = torch.Generator().manual_seed(1)
    src, bgr, true_fgr = (torch.rand(BATCH, 3, 64, 64, generator=generator) for _ in range(3))
    for _pass in range(2):
        model.zero_grad()
        model.seed_dropout(list(range(BATCH))[mine])
        pred_pha, pred_fgr, *others = forward(src[mine], bgr[mine])
        loss = pred_pha.square().mean() + (pred_fgr - true_fgr[mine]).abs().mean()
        (loss + sum(each.mean() for each in others)).backward()
    found = {name: value.grad for name, value in model.named_parameters()}
    found |= dict(model.named_buffers())
    return {f"{network} {name}": value for name, value in found.items()}


def save_passes(path):
    found = {}
    for network in networks:
        found |= backward_passes(network)
    if team.is_main:
        torch.save(found, path)


torch.set_default_dtype(torch.float64)
path, path_of_kernels, *networks = sys.argv[1:]
cpu, options = torch.device("cpu"), argparse.Namespace(dist_timeout=60)
team = distributed.with_device(distributed.join(options), cpu, options)
mine = slice(team.rank * BATCH // team.size, (team.rank + 1) * BATCH // team.size)
save_passes(path)
if team.size > 1:
    torch.batch_norm_stats = stats
    torch.batch_norm_gather_stats_with_counts = gather_stats
    torch.batch_norm_elemt = elementwise
    torch.batch_norm_backward_reduce = backward_reduce
    torch.batch_norm_backward_elemt = backward_elementwise
    GlobalBatchNorm2d.by_formulas = GlobalBatchNorm2d.by_kernels
    GlobalPatchNorm.by_formulas = GlobalPatchNorm.by_kernels
    save_passes(path_of_kernels)
team.close()
