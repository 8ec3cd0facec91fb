"""Batch norm over the batch of all processes: of pictures, of which each has an equal share, and of
the refiner's patches, of which each has any number.

PyTorch's SyncBatchNorm has the host wait for the GPU three times a layer, to leave out processes
that have nothing; and it refuses tensors on the CPU. Names and shapes of entries stay those of
BatchNorm2d.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.batch_norm import BatchNorm2d
from model.refiner import PatchNorm

# By torch's version.
gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
MIN_IMAGES_PER_PROCESS = 8  # with fewer, statistics are taken over all, unless told not to


class GlobalBatchNorm2d(BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of the whole batch, of which each process
    has an equal share (Ioffe and Szegedy, 2015; over devices as in SyncBatchNorm). Batches are
    counted by model.batch_norm.count_batch.

    like: the one whose place it takes, with its parameters and running statistics.
    """

    equal_shares = True

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
        if x.is_cuda:
            return self.by_kernels(x)
        return self.by_formulas(x.to(self.weight.dtype)).to(x.dtype)

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
            self.equal_shares,
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


class GlobalPatchNorm(GlobalBatchNorm2d):
    """GlobalBatchNorm2d of patches, of which each process has any number, or none. A patch counts
    the same, whichever process has it. Where no process has one, the running statistics stay.

    like: a PatchNorm.
    """

    equal_shares = False

    def by_formulas(self, x: Tensor) -> Tensor:
        count = x.new_tensor([x.numel() // x.shape[1]])
        sums = _Sum.apply(torch.cat([x.sum((0, 2, 3)), count]), self.group)
        total = sums[-1].detach()
        mean = sums[:-1] / total.clamp(min=1)
        centred = x - mean[:, None, None]
        squares = _Sum.apply(centred.square().sum((0, 2, 3)), self.group)
        with torch.no_grad():
            _follow(self.running_mean, self.running_var, self.momentum, mean, squares, total)
        scale = self.weight * (squares / total.clamp(min=1) + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


class _Normalised(torch.autograd.Function):
    """As SyncBatchNorm's, but that the host never asks for another's count: equal shares are one's
    own, others are used where they are, on the GPU."""

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
        equal_shares: bool,
    ) -> Tensor:
        processes, count = dist.get_world_size(group), x.numel() // x.shape[1]
        if count:
            own = torch.cat(torch.batch_norm_stats(x, eps))  # mean, and 1 / standard deviation
        else:
            own = running_mean.new_ones(2 * x.shape[1])  # of no weight
        if not equal_shares:
            own = torch.cat([own, own.new_full((x.shape[1],), count)])
        every = own.new_empty(processes * len(own))
        gather(every, own, group=group)
        means, scales, *rest = every.view(processes, -1, x.shape[1]).unbind(1)
        if equal_shares:
            counts = torch.full((processes,), count, dtype=own.dtype, device=x.device)
            mean, scale = torch.batch_norm_gather_stats_with_counts(
                x, means, scales, running_mean, running_var, momentum, eps, counts
            )
        else:  # which that operation gets wrong where a count is 0
            counts = rest[0]
            total = counts.sum(0)
            mean = (means * counts).sum(0) / total.clamp(min=1)
            squares = ((scales**-2 - eps + (means - mean).square()) * counts).sum(0)
            scale = (squares / total.clamp(min=1) + eps).rsqrt()
            _follow(running_mean, running_var, momentum, mean, squares, total)
            counts = counts[:, 0]
        ctx.save_for_backward(x, weight, mean, scale, counts.to(torch.int32))
        ctx.group = group
        return torch.batch_norm_elemt(x, weight, bias, mean, scale, eps) if count else x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, counts = ctx.saved_tensors
        like_x = x.is_contiguous(memory_format=torch.channels_last)
        grad = grad.contiguous(
            memory_format=torch.channels_last if like_x else torch.contiguous_format
        )
        if x.numel():
            *sums, grad_weight, grad_bias = torch.batch_norm_backward_reduce(
                grad, x, mean, scale, weight, True, True, True
            )
        else:
            sums = [torch.zeros_like(mean), torch.zeros_like(mean)]
            grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        both = torch.cat(sums)  # of the gradient, and of its product with x - mean
        dist.all_reduce(both, group=ctx.group)
        total, product = both.chunk(2)
        grad_x = grad
        if x.numel():
            grad_x = torch.batch_norm_backward_elemt(
                grad, x, mean, scale, weight, total, product, counts
            )
        return grad_x, grad_weight, grad_bias, None, None, None, None, None, None


def _follow(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float | None,
    mean: Tensor,
    squares: Tensor,
    count: Tensor,
) -> None:
    """Moves the running statistics, in place, by those of `count` values a channel, unless there
    are none. squares: the sum of (x - mean)²."""
    assert running_mean is not None and running_var is not None and momentum is not None
    weight = (count > 0) * momentum
    running_mean.lerp_(mean, weight)
    running_var.lerp_(squares / (count - 1).clamp(min=1), weight)


class _Mean(torch.autograd.Function):
    """The mean over the processes, whose gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _mean(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _mean(grad, ctx.group), None


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _sum(grad, ctx.group), None


def _sum(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    x = x.contiguous().clone()
    dist.all_reduce(x, group=group)
    return x


def _mean(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return _sum(x, group) / dist.get_world_size(group)


def over_all_processes(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Puts a batch norm over all processes of `group` in the place of every one in `model`, with
    the same parameters and buffers."""
    for name, child in model.named_children():
        if isinstance(child, PatchNorm):
            setattr(model, name, GlobalPatchNorm(child, group))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(model, name, GlobalBatchNorm2d(child, group))
        else:
            over_all_processes(child, group)
