"""Batch norm over the batch of all processes, of which each has an equal share.

PyTorch's SyncBatchNorm allows for unequal shares, and so the host waits for the GPU three times a
layer; and it refuses tensors on the CPU. Names and shapes of entries stay those of BatchNorm2d.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.batch_norm import BatchNorm2d

# By torch's version.
gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
MIN_IMAGES_PER_PROCESS = 8  # with fewer, statistics are taken over all, unless told not to


class GlobalBatchNorm2d(BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of the whole batch, of which each process
    has an equal share (Ioffe and Szegedy, 2015; over devices as in SyncBatchNorm). Batches are
    counted by model.batch_norm.count_batch.

    like: the one whose place it takes, with its parameters and running statistics.
    """

    def __init__(self, like: nn.BatchNorm2d, group: dist.ProcessGroup) -> None:
        super().__init__(like.num_features, like.eps, like.momentum)
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        self.train(like.training)
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        return self.by_kernels(x) if x.is_cuda else self.by_formulas(x)

    def by_kernels(self, x: Tensor) -> Tensor:
        """By PyTorch's own operations for this, which a GPU alone has; statistics in float32."""
        if not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous()
        return _Normalised.apply(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.momentum,
            self.eps,
            self.group,
        )

    def by_formulas(self, x: Tensor) -> Tensor:
        mean = _Mean.apply(x.mean((0, 2, 3)), self.group)
        centred = x - mean[:, None, None]
        variance = _Mean.apply(centred.square().mean((0, 2, 3)), self.group)
        count = x.numel() // x.shape[1] * dist.get_world_size(self.group)
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


class _Normalised(torch.autograd.Function):
    """As SyncBatchNorm's, but that the count of every process is known: it is one's own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        group: dist.ProcessGroup,
    ) -> Tensor:
        processes, count = dist.get_world_size(group), x.numel() // x.shape[1]
        own = torch.cat(torch.batch_norm_stats(x, eps))  # mean, and 1 / standard deviation
        every = own.new_empty(processes * len(own))
        gather(every, own, group=group)
        means, scales = every.view(processes, 2, -1).unbind(1)
        counts = torch.full((processes,), count, dtype=own.dtype, device=x.device)
        mean, scale = torch.batch_norm_gather_stats_with_counts(
            x, means, scales, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, scale, counts.to(torch.int32))
        ctx.group = group
        return torch.batch_norm_elemt(x, weight, bias, mean, scale, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, counts = ctx.saved_tensors
        like_x = x.is_contiguous(memory_format=torch.channels_last)
        grad = grad.contiguous(
            memory_format=torch.channels_last if like_x else torch.contiguous_format
        )
        *sums, grad_weight, grad_bias = torch.batch_norm_backward_reduce(
            grad, x, mean, scale, weight, True, True, True
        )
        both = torch.cat(sums)  # of the gradient, and of its product with x - mean
        dist.all_reduce(both, group=ctx.group)
        total, product = both.chunk(2)
        grad_x = torch.batch_norm_backward_elemt(
            grad, x, mean, scale, weight, total, product, counts
        )
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


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


def over_all_processes(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Puts a batch norm over all processes of `group` in the place of every one in `model`, with
    the same parameters and buffers."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(model, name, GlobalBatchNorm2d(child, group))
        else:
            over_all_processes(child, group)
