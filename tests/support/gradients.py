"""What torchrun starts in tests/run/test_distributed.py: one backward pass in float64 over a
batch that its processes share; the first writes gradients and running statistics to a file.

gradients.py FILE KERNELS: into the second file, with several processes, what comes where batch norm
is computed as on a GPU, whose operations are written out here."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from model import MattingBase
from training import team as distributed
from training.batch_norm import GlobalBatchNorm2d, over_all_processes

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


def backward_pass(path):
    torch.manual_seed(0)
    model = MattingBase("mobilenetv2").train()
    if team.size > 1:
        over_all_processes(model, team.device_group)
    forward = team.wrap(model)
    generator = torch.Generator().manual_seed(1)
    src, bgr, true_fgr = (torch.rand(BATCH, 3, 64, 64, generator=generator) for _ in range(3))
    mine = slice(team.rank * BATCH // team.size, (team.rank + 1) * BATCH // team.size)
    model.seed_dropout(list(range(BATCH))[mine])
    pred_pha, pred_fgr, _, pred_hid = forward(src[mine], bgr[mine])
    loss = pred_pha.square().mean() + (pred_fgr - true_fgr[mine]).abs().mean() + pred_hid.mean()
    loss.backward()
    if team.is_main:
        found = {name: value.grad for name, value in model.named_parameters()}
        torch.save(found | dict(model.named_buffers()), path)


torch.set_default_dtype(torch.float64)
cpu, options = torch.device("cpu"), argparse.Namespace(dist_timeout=60)
team = distributed.with_device(distributed.join(options), cpu, options)
backward_pass(sys.argv[1])
if team.size > 1:
    torch.batch_norm_stats = stats
    torch.batch_norm_gather_stats_with_counts = gather_stats
    torch.batch_norm_elemt = elementwise
    torch.batch_norm_backward_reduce = backward_reduce
    torch.batch_norm_backward_elemt = backward_elementwise
    GlobalBatchNorm2d.by_formulas = GlobalBatchNorm2d.by_kernels
    backward_pass(sys.argv[2])
team.close()
