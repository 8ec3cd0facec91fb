"""MattingRefine: the coarse network at a part of the size, and a refiner where it errs.

Which patches are refined is decided here. Entry names are a public file format, as MattingBase's.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from common.choices import REFINE_MODES
from model.matting_base import MattingBase, clamp
from model.refiner import Refiner, replace_patches


class Refined(NamedTuple):
    """What MattingRefine gives; `_sm` is at the coarse size. All in 0..1."""

    pha: Tensor  # (B, 1, H, W)
    fgr: Tensor  # (B, 3, H, W)
    pha_sm: Tensor  # (B, 1, h, w), the coarse alpha
    fgr_sm: Tensor  # (B, 3, h, w)
    err_sm: Tensor  # (B, 1, h, w), the expected error of pha_sm
    ref_sm: Tensor  # (B, 1, H/4, W/4), 1 for each patch of 4x4 that was refined, else 0


class MattingRefine(MattingBase):
    """The whole network of Lin et al., CVPR 2021 (https://arxiv.org/abs/2012.07810).

    backbone: as MattingBase's. The others are the published constructor's, in its order, and may be
    changed on the finished network, on a TorchScript of it, too; only the kernel size changes what
    is in a file:

    backbone_scale: the coarse size as a part of the picture's, at most 1/2.
    refine_mode: "sampling": of each picture the refine_sample_pixels with the largest expected
    error; "thresholding": those whose expected error is above refine_threshold; "full": all.
    refine_sample_pixels: in patches of 16, rounded down; more than there are means all.
    refine_kernel_size: 3 or 1.
    refine_prevent_oversampling: sampling leaves out what has no expected error at all.
    refine_patch_crop_method, refine_patch_replace_method: taken and not used. The published
    program cuts and puts back patches in three and two ways; here is one, right for any batch,
    dtype and device.

    Raises ValueError where a setting is none of these.
    """

    def __init__(
        self,
        backbone: str,
        backbone_scale: float = 1 / 4,
        refine_mode: str = "sampling",
        refine_sample_pixels: int = 80_000,
        refine_threshold: float = 0.1,
        refine_kernel_size: int = 3,
        refine_prevent_oversampling: bool = True,
        refine_patch_crop_method: str = "unfold",
        refine_patch_replace_method: str = "scatter_nd",
    ) -> None:
        super().__init__(backbone)
        if not 0 < backbone_scale <= 1 / 2:
            raise ValueError(f"a backbone scale of {backbone_scale}: it is above 0, at most 0.5")
        if refine_mode not in REFINE_MODES:
            modes = ", ".join(REFINE_MODES)
            raise ValueError(f"no refine mode {refine_mode!r}; choose one of {modes}")
        self.backbone_scale = backbone_scale
        self.refine_mode = refine_mode
        self.refine_sample_pixels = refine_sample_pixels
        self.refine_threshold = refine_threshold
        self.refine_prevent_oversampling = refine_prevent_oversampling
        self.refiner = Refiner(refine_kernel_size)

    def forward(self, src: Tensor, bgr: Tensor) -> Refined:  # type: ignore[override]
        """The matte of `src`, given the same scene without the person.

        src, bgr: (B, 3, H, W), RGB, 0..1. The coarse size, H and W times backbone_scale rounded
        down, has at least 32 pixels a side. Sides that are no multiple of 4 are continued to the
        next one within; the outputs at the full size are cut again.
        """
        height, width = src.shape[2], src.shape[3]
        patch = self.refiner.patch
        if height % patch or width % patch:
            more = [0, -width % patch, 0, -height % patch]
            src, bgr = F.pad(src, more, mode="replicate"), F.pad(bgr, more, mode="replicate")

        # The coarse run.
        size = (int(src.shape[2] * self.backbone_scale), int(src.shape[3] * self.backbone_scale))
        src_sm, bgr_sm = resize(src, size), resize(bgr, size)
        pha_sm, residual_sm, err_sm, features = self.coarse(src_sm, bgr_sm)
        assert features is not None
        pha_sm, err_sm, hid = clamp(pha_sm), clamp(err_sm), features.relu()

        # The refiner.
        coarse = torch.cat([pha_sm, residual_sm.to(pha_sm.dtype)], dim=1)
        chosen = self.choose(err_sm.detach(), (src.shape[2] // patch, src.shape[3] // patch))
        refined = self.refine(src, bgr, coarse, hid, chosen)

        pha = clamp(refined[:, :1])
        fgr = clamp(refined[:, 1:] + src)
        fgr_sm = clamp(residual_sm + src_sm)
        pha, fgr = pha[:, :, :height, :width], fgr[:, :, :height, :width]
        return Refined(pha, fgr, pha_sm, fgr_sm, err_sm, chosen.to(err_sm.dtype))

    def choose(self, err: Tensor, shape: tuple[int, int]) -> Tensor:
        """Which patches are refined: (B, 1, *shape) bool. err: (B, 1, h, w). shape: rows and
        columns of patches."""
        if self.refine_mode == "full":
            return torch.ones(err.shape[0], 1, *shape, dtype=torch.bool, device=err.device)
        err = resize(err, shape)
        if self.refine_mode == "thresholding":
            return err > self.refine_threshold
        count = min(
            self.refine_sample_pixels // (self.refiner.patch * self.refiner.patch),
            shape[0] * shape[1],
        )
        flat = err.flatten(1)
        largest = flat.topk(count, dim=1, sorted=False).indices
        chosen = torch.zeros_like(flat, dtype=torch.bool).scatter(1, largest, True)
        if self.refine_prevent_oversampling:
            chosen = chosen & (flat > 0)
        return chosen.view_as(err)

    def refine(
        self, src: Tensor, bgr: Tensor, coarse: Tensor, hid: Tensor, chosen: Tensor
    ) -> Tensor:
        """Alpha and the foreground's residual, unclamped, (B, 4, H, W): `coarse`, (B, 4, h, w),
        enlarged, with the chosen patches refined. src, bgr: (B, 3, H, W). hid: (B, 32, h, w)."""
        size = (src.shape[2], src.shape[3])
        half_size = (size[0] // 2, size[1] // 2)
        half = torch.cat(
            [resize(each, half_size).to(hid.dtype) for each in (hid, coarse, src, bgr)], dim=1
        )
        full = torch.cat([src, bgr], dim=1).to(hid.dtype)
        if self.refine_mode == "full":
            return self.refiner.whole(half, full)
        enlarged = resize(coarse, size)
        places = chosen[:, 0].nonzero()
        # In training no patches are refined, too: every process of several has to take part in the
        # refiner's batch norms and gradients.
        if len(places) or self.training:
            return replace_patches(enlarged, places, self.refiner.patches(half, full, places))
        return enlarged


def resize(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, by the ratio of the sizes, without antialiasing: what the published network does.
    (B, C, H, W) to (B, C, *size)."""
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)
