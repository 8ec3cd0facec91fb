"""MattingBase reduced to the outputs that are asked for, for export: nothing else is computed.

It is for eval mode alone, and reads and writes no files.
"""

import copy

import torch
from torch import Tensor, nn

from model.matting_base import MattingBase

# How many of the decoder's channels, in its order, belong to which output.
CHANNELS = {"pha": 1, "fgr": 3, "err": 1, "hid": 32}
OUTPUTS = tuple(CHANNELS)


class Inference(nn.Module):
    """A copy of `model` that gives `outputs`, names of OUTPUTS, in that order.

    The last convolution, which works at the full size, keeps the channels of these outputs alone:
    4 of 37 for pha and fgr. The copy is in eval mode and needs no gradients. Its entries have
    MattingBase's names.
    """

    def __init__(self, model: MattingBase, outputs: tuple[str, ...] = OUTPUTS) -> None:
        super().__init__()
        model = copy.deepcopy(model)
        self.outputs = outputs
        self.backbone, self.aspp, self.decoder = model.backbone, model.aspp, model.decoder
        channels = dict(zip(OUTPUTS, torch.arange(37).split(list(CHANNELS.values())), strict=True))
        kept = torch.cat([channels[name] for name in outputs])
        last = self.decoder.conv4
        assert last.bias is not None
        last.weight, last.bias = nn.Parameter(last.weight[kept]), nn.Parameter(last.bias[kept])
        last.out_channels = len(kept)
        self.eval().requires_grad_(False)

    def forward(self, src: Tensor, bgr: Tensor) -> tuple[Tensor, ...]:
        """src, bgr: (B, 3, H, W), RGB, 0..1, at least 32 pixels a side, of the weights' dtype.
        Returns the outputs as MattingBase does, each (B, its channels, H, W)."""
        whole, half, quarter, eighth, sixteenth = self.backbone(torch.cat([src, bgr], dim=1))
        x = self.decoder(self.aspp(sixteenth), eighth, quarter, half, whole)
        parts = x.split([CHANNELS[name] for name in self.outputs], dim=1)
        given = []
        for name, part in zip(self.outputs, parts, strict=True):
            if name == "hid":
                given.append(part.relu())
            else:  # plainly: MattingBase's own clamp is one for training, with a gradient outside
                given.append((part + src if name == "fgr" else part).clamp(0, 1))
        return tuple(given)
