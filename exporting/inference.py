"""The networks as they are exported: MattingBase reduced to the outputs that are asked for, and
MattingRefine without a branch.

They are for eval mode alone, and read and write no files.
"""

import copy
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from common.choices import OUTPUTS, REFINED_OUTPUTS
from common.cli import MAX_PIXELS
from model.matting_base import MattingBase
from model.matting_refine import MattingRefine

MAX_DENOMINATOR = 1000  # of a backbone scale as a fraction
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


class RefineInference(MattingRefine):
    """A copy of `model` that a graph can hold: sizes may be left open, and the number of chosen
    patches, which depends on what is in the pictures, always is.

    It has the settings of `model` and gives the same, in eval mode; it needs no gradients. Its
    entries have MattingRefine's names.
    """

    def __init__(self, model: MattingRefine) -> None:
        nn.Module.__init__(self)
        self.__dict__ |= copy.deepcopy(model).__dict__
        self.scale = Fraction(model.backbone_scale).limit_denominator(MAX_DENOMINATOR)
        self.outputs = REFINED_OUTPUTS
        self.eval().requires_grad_(False)

    def inexact_side(self) -> int | None:
        """A side whose coarse size in whole numbers is not MattingRefine's; None where none is."""
        for side in range(self.refiner.patch, MAX_PIXELS + 1, self.refiner.patch):
            if self.coarse_size((side, side)) != super().coarse_size((side, side)):
                return side
        return None

    def continued(self, pictures: Tensor) -> Tensor:
        # Without asking whether there is anything to do: the answer would be the example's.
        patch = self.refiner.patch
        for dim in (2, 3):
            side = pictures.shape[dim]
            places = torch.arange((side + patch - 1) // patch * patch, device=pictures.device)
            pictures = pictures.index_select(dim, places.clamp(max=side - 1))
        return pictures

    def coarse_size(self, size: tuple[int, int]) -> tuple[int, int]:
        # In whole numbers: a graph's floating-point numbers have 24 bits, Python's 53.
        part, whole = self.scale.as_integer_ratio()
        return size[0] * part // whole, size[1] * part // whole

    def largest(self, err: Tensor, count: int) -> Tensor:
        return err.topk(torch.sym_min(count, err.shape[1]), dim=1).indices

    def refined(self, half: list[Tensor], full: list[Tensor], places: Tensor) -> Tensor:
        # With one patch more, which is thrown away: exporters and runtimes do not take a
        # convolution of nothing.
        return self.refiner.patches(half, full, F.pad(places, [0, 0, 0, 1]))[:-1]
