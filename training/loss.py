"""The loss of MattingBase: four named terms, whose sum is minimised. Pure functions of tensors."""

import torch
from kornia.filters import sobel
from torch import Tensor


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


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of the terms, which is what is minimised."""
    return torch.stack(list(terms.values())).sum()
