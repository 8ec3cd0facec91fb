"""Batch norm over the batch of all processes: PyTorch's own on a GPU, and one for processors.

PyTorch's SyncBatchNorm refuses tensors on the CPU. Names and shapes of entries stay those of
BatchNorm2d.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

LEAST = 8  # images a process; below it statistics are taken over all processes, unless told not to


class _Mean(torch.autograd.Function):
    """The mean over the processes, whose gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _mean(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _mean(grad, ctx.group), None


def _mean(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    x = x.contiguous().clone()
    dist.all_reduce(x, group=group)
    return x / dist.get_world_size(group)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of the whole batch, of which each process
    has an equal share (Ioffe and Szegedy, 2015; over devices as in SyncBatchNorm)."""

    group: dist.ProcessGroup

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        mean = _Mean.apply(x.mean((0, 2, 3)), self.group)
        centred = x - mean[:, None, None]
        variance = _Mean.apply(centred.square().mean((0, 2, 3)), self.group)
        count = x.numel() // x.shape[1] * dist.get_world_size(self.group)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def over_all_processes(model: nn.Module, group: dist.ProcessGroup, device: torch.device) -> None:
    """Has every batch norm of `model` take its statistics over all processes of `group`."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model, group)
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
            module.group = group  # type: ignore[assignment]  # it is of the other class now
