"""How good a matte is, in the units of the field's tables. Pure functions of tensors.

pred_pha and true_pha are (B, 1, H, W), 0..1, of any floating type; region is (B, 1, H, W) bool, the
pixels that count, or None: all. Figures are (B,), float32, on the device of pred_pha. Where the
region of an image is empty, each of its figures is 0.

The definitions are those of Rhemann et al., CVPR 2009, as the programs measure them that the
published tables come from: eval/*.m of PeterL1n/BackgroundMattingV2 and evaluation/*.py of
PeterL1n/RobustVideoMatting.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

GRAD_SIGMA = 1.4  # pixels
GRAD_REACH = 4  # pixels: where the published filter's Gaussian falls below its epsilon of 0.01
CONN_LEVELS = 10  # thresholds 0.1, 0.2, ... 1
CONN_IGNORED = 0.15  # a pixel that stands out of its component by less counts as connected
UNKNOWN_ALPHA = (0.06, 0.96)
UNKNOWN_DILATIONS = 10


def sad(pred_pha: Tensor, true_pha: Tensor, region: Tensor | None = None) -> Tensor:
    """Sum of absolute differences, over 1000."""
    return _sum(_difference(pred_pha, true_pha).abs(), region) / 1000


def mad(pred_pha: Tensor, true_pha: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean absolute difference, times 1000."""
    return _mean(_difference(pred_pha, true_pha).abs(), region) * 1000


def mse(pred_pha: Tensor, true_pha: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean squared difference, times 1000."""
    return _mean(_difference(pred_pha, true_pha).square(), region) * 1000


def grad(pred_pha: Tensor, true_pha: Tensor, region: Tensor | None = None) -> Tensor:
    """Sum of squared differences of the gradients' magnitudes, over 1000. Each matte is stretched
    to 0..1 first, by its least and greatest alpha in the whole image."""
    gradients = (_gradient(_stretched(pha)) for pha in (pred_pha, true_pha))
    return _sum(_difference(*gradients).square(), region) / 1000


def conn(pred_pha: Tensor, true_pha: Tensor, region: Tensor | None = None) -> Tensor:
    """Sum of the differences in connectivity, over 1000: how far alpha stands out above the level
    up to which a pixel belongs to the largest component that both mattes have in common."""
    pred_pha, true_pha = pred_pha.float(), true_pha.float()
    pairs = zip(pred_pha.squeeze(1).cpu(), true_pha.squeeze(1).cpu(), strict=True)
    levels = [connected_level(pred.numpy(), true.numpy()) for pred, true in pairs]
    level = torch.from_numpy(np.stack(levels))[:, None].to(pred_pha.device)
    above = (pha - level for pha in (pred_pha, true_pha))
    loose = (each * (each >= CONN_IGNORED) for each in above)
    return _sum(_difference(*loose).abs(), region) / 1000


def dtssd(pred_pha: Tensor, true_pha: Tensor, region: Tensor | None = None) -> Tensor:
    """How unlike two clips change from frame to frame: root of the mean squared difference of
    their differences in time, times 100 (Erofeev et al., BMVC 2015, in RobustVideoMatting's unit).

    The B images are consecutive frames of one clip; returns (B - 1,). region: of the later frame of
    each two, so that its first is not looked at.
    """
    change = _difference(pred_pha, true_pha).diff(dim=0)
    return _mean(change.square(), None if region is None else region[1:]).sqrt() * 100


def fgr_mse(pred_fgr: Tensor, true_fgr: Tensor, true_pha: Tensor) -> Tensor:
    """Mean squared difference of foreground colours, times 1000, over the pixels and channels where
    true alpha is above 0. Foregrounds (B, 3, H, W), 0..1."""
    visible = (true_pha > 0).expand_as(true_fgr)
    return _mean(_difference(pred_fgr, true_fgr).square(), visible) * 1000


def unknown_region(true_pha: Tensor, dilations: int = UNKNOWN_DILATIONS) -> Tensor:
    """What a trimap derived from true alpha would leave unknown, (B, 1, H, W) bool: alpha between
    0.06 and 0.96, dilated so many times with a 3x3 cross."""
    low, high = UNKNOWN_ALPHA
    unknown = ((true_pha > low) & (true_pha < high)).float()
    for _ in range(dilations):
        unknown = torch.maximum(
            F.max_pool2d(unknown, (3, 1), stride=1, padding=(1, 0)),
            F.max_pool2d(unknown, (1, 3), stride=1, padding=(0, 1)),
        )
    return unknown > 0


def connected_level(pred_pha: np.ndarray, true_pha: np.ndarray) -> np.ndarray:
    """Up to which alpha each pixel is in the largest component (4 neighbours) of the pixels that
    both mattes have at least so opaque: 0, 0.1, ... 1. All (H, W) float32. Where nothing is in
    common the level ends. Of two components of a size, the one that a reader meets first counts.
    """
    from scipy import ndimage  # here, since training, which never asks for this, does without it

    level = np.zeros_like(true_pha)
    connected = np.ones(true_pha.shape, dtype=bool)
    least = np.minimum(pred_pha, true_pha)
    for step in range(1, CONN_LEVELS + 1):
        # In float32 an alpha of 153/255 is not below 0.6.
        labels, count = ndimage.label(least >= np.float32(step / CONN_LEVELS))
        if not count:
            break
        sizes = np.bincount(labels.ravel())[1:]
        connected &= labels == sizes.argmax() + 1
        level[connected] = step / CONN_LEVELS
    return level


def _difference(pred: Tensor, true: Tensor) -> Tensor:
    assert pred.shape == true.shape, f"{tuple(pred.shape)} would be spread over {tuple(true.shape)}"
    if pred.dtype != torch.float64:
        pred, true = pred.float(), true.float()
    return pred - true


def _stretched(pha: Tensor) -> Tensor:
    """In float64, which convolutions on a GPU do not round to fewer bits."""
    pha = pha.double()
    least, greatest = pha.amin((2, 3), keepdim=True), pha.amax((2, 3), keepdim=True)
    span = greatest - least
    return (pha - least) / torch.where(span > 0, span, 1)


def _gradient(pha: Tensor) -> Tensor:
    """The gradient's magnitude: derivative of a Gaussian along one axis, Gaussian along the other,
    the square kernel's norm being 1; borders replicated."""
    place = torch.arange(-GRAD_REACH, GRAD_REACH + 1, dtype=pha.dtype, device=pha.device)
    smooth = torch.exp(place.square() / (-2 * GRAD_SIGMA**2))
    slope = place * smooth
    smooth, slope = smooth / smooth.norm(), slope / slope.norm()
    padded = F.pad(pha, (GRAD_REACH,) * 4, mode="replicate")
    across = F.conv2d(padded, torch.stack([smooth, slope])[:, None, None])
    both = F.conv2d(across, torch.stack([slope, smooth])[:, None, :, None], groups=2)
    return both.square().sum(1, keepdim=True).sqrt()


def _sum(values: Tensor, region: Tensor | None) -> Tensor:
    """(B,) float32, summed in float64: a large picture has more pixels than float32 can count."""
    if region is not None:
        values = values.where(region, 0)
    return values.sum((1, 2, 3), dtype=torch.float64).float()


def _mean(values: Tensor, region: Tensor | None) -> Tensor:
    count = math.prod(values.shape[1:]) if region is None else _sum(torch.ones_like(values), region)
    return _sum(values, region) / torch.as_tensor(count).clamp(min=1)
