"""Atrous spatial pyramid pooling: torchvision's, with the means of a picture kept as they are.

Its entries are those of torchvision's ASPP.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3

from model.batch_norm import BatchNorm2d
from model.dropout import SampleDropout


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return (grad / ctx.shape[2:].numel()).expand(ctx.shape)


class Mean(nn.Module):
    """The mean of each channel, (B, C, H, W) → (B, C, 1, 1).

    torch's own writes the gradient, one number a channel, into a tensor of x's size that is laid
    out as contiguous. Those of the other branches would be added to it across layouts. Here it is
    a view, which takes their layout.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting() or not torch.is_grad_enabled():
            return x.mean((2, 3), keepdim=True)
        return _Mean.apply(x)


class ASPP(deeplabv3.ASPP):
    """Five branches of 256 channels: a 1x1 convolution, a 3x3 convolution for each of three `rates`
    of dilation, and the mean; joined, and projected to 256 channels (DeepLabV3,
    https://arxiv.org/abs/1706.05587).

    torchvision's brings the mean to the size of the others as if it were a picture, bilinearly:
    under autocast in float32, and laid out as contiguous, which makes the join so. Here it is
    copied to every pixel. The values are the same but for the rounding of that interpolation.
    """

    def __init__(self, in_channels: int, rates: list[int]) -> None:
        super().__init__(in_channels, rates)
        self.convs[-1] = nn.Sequential(Mean(), *list(self.convs[-1])[1:])
        for part in [self.project, *self.convs]:
            number = next(at for at, each in enumerate(part) if isinstance(each, nn.BatchNorm2d))
            part[number] = BatchNorm2d(part[number].num_features)
        self.project[3] = SampleDropout(0.5)  # as torchvision's, but for its seeds

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, in_channels, H, W). Returns (B, 256, H, W)."""
        branches = []
        for branch in self.convs:
            branches.append(branch(x))
        mean = branches[-1].expand_as(branches[0])
        branches[-1] = torch.empty_like(branches[0]).copy_(mean)  # in the others' layout
        return self.project(torch.cat(branches, dim=1))
