"""MattingRefine: the coarse network at a part of the size, and a refiner where it errs.

Which patches are refined is decided here. Entry names are a public file format, as MattingBase's.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from common.choices import REFINE_MODES
from model.matting_base import MattingBase, clamp
from model.refiner import PATCH, Refiner, replace_patches


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

    def forward(  # type: ignore[override]
        self, src: Tensor, bgr: Tensor, chosen: Tensor | None = None
    ) -> Refined:
        """The matte of `src`, given the same scene without the person.

        src, bgr: (B, 3, H, W), RGB, 0..1. The coarse size, H and W times backbone_scale rounded
        down, has at least a pixel a side. Sides that are no multiple of 4 are continued to the
        next one within; the outputs at the full size are cut again. chosen: refine these patches,
        bool of ref_sm's shape, and not those that the settings choose.
        """
        height, width = src.shape[2], src.shape[3]
        patch = self.refiner.patch
        src, bgr = self.continued(src), self.continued(bgr)

        # The coarse run.
        size = self.coarse_size((src.shape[2], src.shape[3]))
        src_sm, bgr_sm = resize(src, size), resize(bgr, size)
        pha_sm, residual_sm, err_sm, features = self.coarse(src_sm, bgr_sm)
        assert features is not None
        pha_sm, err_sm, hid = clamp(pha_sm), clamp(err_sm), features.relu()

        # The refiner.
        coarse = torch.cat([pha_sm, residual_sm.to(pha_sm.dtype)], dim=1)
        if chosen is None:
            chosen = self.choose(err_sm.detach(), (src.shape[2] // patch, src.shape[3] // patch))
        refined = self.refine(src, bgr, coarse, hid, chosen)

        pha = clamp(refined[:, :1])
        fgr = clamp(refined[:, 1:] + src)
        fgr_sm = clamp(residual_sm + src_sm)
        pha, fgr = pha[:, :, :height, :width], fgr[:, :, :height, :width]
        return Refined(pha, fgr, pha_sm, fgr_sm, err_sm, chosen.to(err_sm.dtype))

    def continued(self, pictures: Tensor) -> Tensor:
        """Pictures whose sides are multiples of a patch's: the last row and column are repeated.
        (B, C, H, W) to (B, C, H + 0..3, W + 0..3)."""
        return continued(pictures, self.refiner.patch)

    def coarse_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which the base network runs, for pictures of `size`."""
        return int(size[0] * self.backbone_scale), int(size[1] * self.backbone_scale)

    def choose(self, err: Tensor, shape: tuple[int, int]) -> Tensor:
        """Which patches are refined: (B, 1, *shape) bool. err: (B, 1, h, w). shape: rows and
        columns of patches."""
        if self.refine_mode == "full":
            return torch.ones(err.shape[0], 1, *shape, dtype=torch.bool, device=err.device)
        err = resize(err, shape)
        if self.refine_mode == "thresholding":
            return err > self.refine_threshold
        if self.refine_mode != "sampling":  # it may be set on a finished network
            raise ValueError(
                f"no refine mode {self.refine_mode}; set one of sampling, thresholding, full"
            )
        flat = err.flatten(1)
        count = self.refine_sample_pixels // (self.refiner.patch * self.refiner.patch)
        largest = self.largest(flat, count)
        chosen = torch.zeros_like(flat, dtype=torch.bool).scatter(1, largest, True)
        if self.refine_prevent_oversampling:
            chosen = chosen & (flat > 0)
        return chosen.view_as(err)

    def largest(self, err: Tensor, count: int) -> Tensor:
        """Where the `count` largest values of each row of `err` (B, N) are, or all N where that is
        less: (B, at most count) int64."""
        return err.topk(min(count, err.shape[1]), dim=1, sorted=False).indices

    def refine(
        self, src: Tensor, bgr: Tensor, coarse: Tensor, hid: Tensor, chosen: Tensor
    ) -> Tensor:
        """Alpha and the foreground's residual, unclamped, (B, 4, H, W): `coarse`, (B, 4, h, w),
        enlarged, with the chosen patches refined. src, bgr: (B, 3, H, W). hid: (B, 32, h, w)."""
        size = (src.shape[2], src.shape[3])
        half_size = (size[0] // 2, size[1] // 2)
        # In channels_last, hid is enlarged faster, and pixels are cut out faster.
        layout = torch.channels_last
        hid = hid.contiguous(memory_format=layout)
        half = [resize(each, half_size) for each in (hid, coarse, src, bgr)]
        half = [each.to(hid.dtype, memory_format=layout) for each in half]
        full = [each.to(hid.dtype, memory_format=layout) for each in (src, bgr)]
        if self.refine_mode == "full":
            return self.refiner.whole(half, full)
        enlarged = resize(coarse, size).contiguous()
        places = chosen[:, 0].nonzero()  # the host waits here: how many there are decides shapes
        # Where none is chosen, the refiner refines none: in training every process of several has
        # to take part in its batch norms and gradients.
        replace_patches(enlarged, places, self.refined(half, full, places))
        return enlarged

    def refined(self, half: list[Tensor], full: list[Tensor], places: Tensor) -> Tensor:
        """The patches at `places`, (N, 4, 4, 4); as Refiner.patches, and the same to the last bit
        with less memory where nothing is learnt: in portions, which on a CPU stay in its caches."""
        if self.training or torch.is_grad_enabled():
            return self.refiner.patches(half, full, places)
        portion = 2048 if places.device.type == "cpu" else 65_536
        patches = [self.refiner.patches(half, full, some) for some in places.split(portion)]
        return torch.cat(patches)


def continued(pictures: Tensor, patch: int = PATCH) -> Tensor:
    """Pictures whose sides are multiples of a patch's: the last row and column are repeated."""
    height, width = pictures.shape[2], pictures.shape[3]
    if height % patch == 0 and width % patch == 0:
        return pictures
    return F.pad(pictures, [0, -width % patch, 0, -height % patch], mode="replicate")


def enlarge(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """What is at the coarse size of pictures of `size`, at that size, as within the network: sides
    that are no multiple of a patch's are continued there. (B, C, h, w) to (B, C, *size)."""
    whole = (-(-size[0] // PATCH) * PATCH, -(-size[1] // PATCH) * PATCH)
    return resize(coarse, whole)[:, :, : size[0], : size[1]]


def resize(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, by the ratio of the sizes, without antialiasing: what the published network does.
    (B, C, H, W) to (B, C, *size)."""
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)
