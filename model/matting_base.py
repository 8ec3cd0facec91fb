"""MattingBase: the base network of "Real-Time High-Resolution Background Matting".

Encoder, ASPP, decoder, and what each output channel means. Its entry names are a public file
format, which other programs read and write; they never change.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.aspp import ASPP
from model.batch_norm import count_batch
from model.decoder import Decoder
from model.mobilenet import MobileNetV2Encoder
from model.resnet import ResNetEncoder
from model.transfer import Report, transfer

# By backbone, in the order of common.choices.BACKBONES. Each says the `channels` of its features.
ENCODERS: dict[str, Callable[[], ResNetEncoder | MobileNetV2Encoder]] = {
    "resnet50": lambda: ResNetEncoder([3, 4, 6, 3]),
    "resnet101": lambda: ResNetEncoder([3, 4, 23, 3]),
    "mobilenetv2": lambda: MobileNetV2Encoder(),
}


class Outputs(NamedTuple):
    """What the decoder's channels mean, in their order; all (B, C, H, W)."""

    pha: Tensor  # C = 1
    fgr: Tensor  # C = 3
    err: Tensor  # C = 1
    hid: Tensor | None  # C = 32; None where it was not asked for


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        outward = ((x < 0) & (grad > 0)) | ((x > 1) & (grad < 0))  # descent goes against grad
        return grad.masked_fill(outward, 0)


def clamp(x: Tensor) -> Tensor:
    """x within 0..1, with a gradient wherever descent would not move x further out.

    torch.clamp has none outside of 0..1, so that an alpha which is below 0 everywhere, as it
    often is after a few steps from random weights, stays 0 for ever. The values are the same.
    """
    if torch.jit.is_scripting() or not torch.is_grad_enabled():
        return x.clamp(0, 1)
    return _Clamp.apply(x)


class MattingBase(nn.Module):
    """The coarse network of Lin et al., CVPR 2021 (https://arxiv.org/abs/2012.07810).

    backbone: one of ENCODERS; anything else raises ValueError.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        if backbone not in ENCODERS:
            raise ValueError(f"no backbone {backbone!r}; choose one of {', '.join(ENCODERS)}")
        self.backbone_name = backbone
        self.backbone = ENCODERS[backbone]()
        whole, half, quarter, eighth, sixteenth = self.backbone.channels
        self.aspp = ASPP(sixteenth, [3, 6, 9])
        self.decoder = Decoder((256, 128, 64, 48, 37), (eighth, quarter, half, whole))

    def forward(self, src: Tensor, bgr: Tensor, hid: bool = True) -> Outputs:
        """The matte of `src`, given the same scene without the person.

        src, bgr: (B, 3, H, W), RGB, 0..1, at least 32 pixels a side. hid: whether to compute it;
        only a refiner needs it, and at the full size its 32 channels take time and memory.
        Returns pha (B, 1, H, W) in 0..1, fgr (B, 3, H, W) in 0..1, err (B, 1, H, W), the expected
        error of pha, in 0..1, and hid (B, 32, H, W), at least 0, features for a refiner, or None.
        """
        coarse = self.coarse(src, bgr, hid)
        pha, fgr, err = clamp(coarse.pha), clamp(coarse.fgr + src), clamp(coarse.err)
        features = coarse.hid
        return Outputs(pha, fgr, err, features.relu() if features is not None else None)

    def coarse(self, src: Tensor, bgr: Tensor, hid: bool = True) -> Outputs:
        """The same before anything is clamped: pha, fgr as what is to be added to src, err, and
        hid before its ReLU."""
        if not torch.jit.is_scripting():
            count_batch(self)
        whole, half, quarter, eighth, sixteenth = self.backbone(torch.cat([src, bgr], dim=1))
        channels = None if hid else 5
        x = self.decoder(self.aspp(sixteenth), eighth, quarter, half, whole, channels)
        return Outputs(x[:, 0:1], x[:, 1:4], x[:, 4:5], x[:, 5:] if hid else None)

    def seed_dropout(self, seeds: list[int]) -> None:
        """Makes dropout in the next forward pass a function of these, one for each sample."""
        self.aspp.project[3].seeds = seeds

    def load_pretrained_deeplabv3_state_dict(
        self, state_dict: dict[str, Tensor], print_stats: bool = True
    ) -> Report:
        """Initialises backbone and ASPP from a published DeepLabV3 state dict, in place.

        The call of the published class. Loads all entries that, renamed, match in name and shape;
        print_stats prints the table of what was transferred. Returns that as a Report.
        Raises model.transfer.TransferError where nothing of the backbone fits.
        """
        report = transfer(self, state_dict)
        if print_stats:
            print(report.table())
        return report
