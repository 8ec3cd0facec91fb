"""MattingBase reduced to the outputs that are asked for, for export: nothing else is computed.

It is for eval mode alone, and reads and writes no files.
"""

import copy

from torch import Tensor, nn

from common.choices import OUTPUTS
from model.matting_base import MattingBase

# Where each output ends among the decoder's channels.
ENDS = dict(zip(OUTPUTS, (1, 4, 5, 37), strict=True))


class Inference(MattingBase):
    """A copy of `model` that gives `outputs`, names of OUTPUTS, in that order.

    The last convolution, which works at the full size, keeps the channels up to the last of these
    outputs: 4 of 37 for pha and fgr. The copy is in eval mode and needs no gradients. Its entries
    have MattingBase's names.
    """

    def __init__(self, model: MattingBase, outputs: tuple[str, ...] = OUTPUTS) -> None:
        nn.Module.__init__(self)  # its parts are copies
        model = copy.deepcopy(model)
        self.outputs = outputs
        self.backbone_name = model.backbone_name
        self.backbone, self.aspp, self.decoder = model.backbone, model.aspp, model.decoder
        last, kept = self.decoder.conv4, max(ENDS[name] for name in outputs)
        assert last.bias is not None
        last.weight, last.bias = nn.Parameter(last.weight[:kept]), nn.Parameter(last.bias[:kept])
        last.out_channels = kept
        self.eval().requires_grad_(False)

    def forward(self, src: Tensor, bgr: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """src, bgr: (B, 3, H, W), RGB, 0..1, at least 32 pixels a side, of the weights' dtype.
        Returns the outputs as MattingBase does, each (B, its channels, H, W)."""
        coarse = self.coarse(src, bgr, "hid" in self.outputs)
        given = []
        for name in self.outputs:
            x = getattr(coarse, name)
            if name == "hid":
                given.append(x.relu())
            else:  # plainly: MattingBase's own clamp is one for training, with a gradient outside
                given.append((x + src if name == "fgr" else x).clamp(0, 1))
        return tuple(given)
