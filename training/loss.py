"""The loss of MattingBase: four named terms, whose sum is minimised. Pure functions of tensors."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

TERMS = ("alpha", "gradient", "foreground", "error")


def matting_loss(
    pred_pha: Tensor, pred_fgr: Tensor, pred_err: Tensor, true_pha: Tensor, true_fgr: Tensor
) -> dict[str, Tensor]:
    """The terms of Lin et al., CVPR 2021, section 3.3, as their program weighs them: all by one.

    All (B, 1, H, W) but the foregrounds, (B, 3, H, W); values 0..1. Computed in float32, within
    autocast too. Returns scalars: `alpha`, mean |pha - true|; `gradient`, the same of
    their Sobel gradients; `foreground`, mean |fgr - true| where true alpha is above 0, averaged
    over all pixels; `error`, mean squared difference of err and |pha - true|, no gradient through
    the latter.
    """
    with torch.autocast(pred_pha.device.type, enabled=False):
        pred_pha, pred_fgr, pred_err = pred_pha.float(), pred_fgr.float(), pred_err.float()
        visible = true_pha > 0
        true_err = (pred_pha.detach() - true_pha).abs()
        return {
            "alpha": (pred_pha - true_pha).abs().mean(),
            "gradient": (sobel(pred_pha) - sobel(true_pha)).abs().mean(),
            "foreground": ((pred_fgr - true_fgr).abs() * visible).mean(),
            "error": (pred_err - true_err).square().mean(),
        }


def sobel(pictures: Tensor) -> Tensor:
    """The magnitude of the Sobel gradient, (B, 1, H, W), borders replicated: the values of
    kornia.filters.sobel, which makes its kernel anew on the host at every call and so would wait
    for the device at every step."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    gradients = F.conv2d(padded, _sobel_kernels(pictures.device))
    return (gradients.square().sum(1, keepdim=True) + 1e-6).sqrt()


@lru_cache
def _sobel_kernels(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # validation comes first, and training differentiates
        along_x = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        return torch.stack([along_x, along_x.T])[:, None].to(device)


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of the terms, which is what is minimised."""
    return torch.stack(list(terms.values())).sum()
