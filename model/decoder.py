"""The decoder: from the deepest features back to the input's size, with a skip at every scale.

It only mixes features; what its output channels mean is matting_base.py's business.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.batch_norm import BatchNorm2d


class Decoder(nn.Module):
    """Four times: upsample bilinearly, concatenate the skip, 3x3 convolution, batch norm, ReLU;
    the last time with a bias and neither norm nor ReLU.

    channels: of the input and of each output, e.g. (256, 128, 64, 48, 37).
    skips: channels of the encoder's features at 1/8, 1/4, 1/2 and 1/1.
    """

    def __init__(self, channels: tuple[int, ...], skips: tuple[int, ...]) -> None:
        super().__init__()
        inputs = [before + skip for before, skip in zip(channels[:4], skips, strict=True)]
        self.conv1 = nn.Conv2d(inputs[0], channels[1], 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(channels[1])
        self.conv2 = nn.Conv2d(inputs[1], channels[2], 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels[2])
        self.conv3 = nn.Conv2d(inputs[2], channels[3], 3, padding=1, bias=False)
        self.bn3 = BatchNorm2d(channels[3])
        self.conv4 = nn.Conv2d(inputs[3], channels[4], 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(
        self,
        x: Tensor,
        eighth: Tensor,
        quarter: Tensor,
        half: Tensor,
        whole: Tensor,
        channels: int | None = None,
    ) -> Tensor:
        """x: features at 1/16, (B, channels[0], H/16, W/16); the others: skips at their scales.
        channels: compute only the first so many of the last convolution's; None: all. The weights
        of the others get a gradient of zero. Returns (B, their number, H, W)."""
        x = self.relu(self.bn1(self.conv1(_join(x, eighth))))
        x = self.relu(self.bn2(self.conv2(_join(x, quarter))))
        x = self.relu(self.bn3(self.conv3(_join(x, half))))
        x = _join(x, whole)
        if channels is None or channels >= self.conv4.out_channels:
            return self.conv4(x)
        bias = self.conv4.bias
        assert bias is not None
        return F.conv2d(x, self.conv4.weight[:channels], bias[:channels], padding=1)


def _join(x: Tensor, skip: Tensor) -> Tensor:
    """x at the size of skip, and skip behind it, both in x's type."""
    return torch.cat([_upsample(x, skip), skip.to(x.dtype)], dim=1)


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    if torch.jit.is_scripting():
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
    # Autocast would do it in float32, and so all that is joined with it; the next convolution
    # takes it in x's type all the same.
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
