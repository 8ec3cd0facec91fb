"""Batch norm whose batches are counted for a whole network at once. Entries are torch's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, but that it leaves its `num_batches_tracked` to count_batch: one operation of a GPU
    for each layer would be a fourteenth of all that a step gives it to do."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        assert self.momentum is not None
        if torch.jit.is_scripting() and self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


def count_batch(network: nn.Module) -> None:
    """Counts a batch in every BatchNorm2d of `network` that is in training mode."""
    counts = [
        module.num_batches_tracked
        for module in network.modules()
        if isinstance(module, BatchNorm2d)
        and module.training
        and module.num_batches_tracked is not None
    ]
    if counts:
        torch._foreach_add_(counts, 1)
