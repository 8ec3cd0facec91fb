"""Dropout whose masks do not depend on how a batch is shared out. It has no entries in a file."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class SampleDropout(nn.Module):
    """Dropout with one seed a sample, so that a sample's mask is the same in whatever batch, part
    of a batch or process it is.

    p: the probability with which an element becomes 0. seeds: one for each sample of the next
    batches, to be set before each; None, as at first, takes masks from torch's global generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.seeds: list[int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, ...). In eval mode x itself."""
        if torch.jit.is_scripting() or not self.training or self.seeds is None:
            return F.dropout(x, self.p, self.training)
        return self.masked(x)

    @torch.jit.unused
    def masked(self, x: Tensor) -> Tensor:
        assert self.seeds is not None
        device, shape = x.device, x.shape[1:]
        masks = [
            torch.rand(shape, device=device, generator=torch.Generator(device).manual_seed(seed))
            for seed in self.seeds
        ]
        kept = torch.stack(masks) >= self.p
        return x * (kept / (1 - self.p)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"
