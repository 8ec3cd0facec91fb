"""The losses of both stages: named terms, whose sum is minimised. Pure functions of tensors."""

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.matting_refine import Refined, continued, enlarge, resize

REFINE_TERMS = (
    "alpha_lg",
    "alpha_sm",
    "gradient_lg",
    "gradient_sm",
    "foreground_lg",
    "foreground_sm",
    "error",
)


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


def refine_loss(
    outputs: Refined, true_pha: Tensor, true_fgr: Tensor, detach_error: bool = True
) -> dict[str, Tensor]:
    """The terms of the second stage (Lin et al., CVPR 2021, section 3.3, and their program), all
    weighed by one: those of MattingBase at the full size, `_lg`, and at the coarse one, `_sm`.

    true_pha: (B, 1, H, W); true_fgr: (B, 3, H, W); values 0..1. At the coarse size they are reduced
    as the network reduces its input. Computed in float32, within autocast too. Returns scalars in
    the order of REFINE_TERMS. `error` is the mean squared difference, at the full size, of err and
    |pha - true| of the enlarged coarse alpha.

    detach_error: whether `error` moves err alone, as in the first stage. The published program lets
    it pull the coarse alpha, too, towards where its error is as expected; that is False.
    """
    with torch.autocast(true_pha.device.type, enabled=False):
        pha, fgr, pha_sm, fgr_sm, err_sm = (output.float() for output in outputs[:5])
        small, large = (pha_sm.shape[2], pha_sm.shape[3]), (pha.shape[2], pha.shape[3])
        true_pha_sm, true_fgr_sm = (resize(continued(x), small) for x in (true_pha, true_fgr))
        enlarged = enlarge(pha_sm.detach() if detach_error else pha_sm, large)
        true_err = (enlarged - true_pha).abs()
        return {
            "alpha_lg": (pha - true_pha).abs().mean(),
            "alpha_sm": (pha_sm - true_pha_sm).abs().mean(),
            "gradient_lg": (sobel(pha) - sobel(true_pha)).abs().mean(),
            "gradient_sm": (sobel(pha_sm) - sobel(true_pha_sm)).abs().mean(),
            "foreground_lg": ((fgr - true_fgr).abs() * (true_pha > 0)).mean(),
            "foreground_sm": ((fgr_sm - true_fgr_sm).abs() * (true_pha_sm > 0)).mean(),
            "error": (enlarge(err_sm, large) - true_err).square().mean(),
        }


def sobel(pictures: Tensor) -> Tensor:
    """The magnitude of the Sobel gradient, (B, 1, H, W), borders replicated, as
    kornia.filters.sobel gives it, with kornia's kernels. They are made once: kornia makes them anew
    on the host at every call, and the device would be waited for at every step. In float32 on a
    GPU, too, where convolutions have TF32."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    gradients = _ExactConvolution.apply(padded, _sobel_kernels(pictures.device))
    return (gradients.square().sum(1, keepdim=True) + 1e-6).sqrt()


class _ExactConvolution(torch.autograd.Function):
    """F.conv2d, and its gradient with regard to x, without TF32. Sums of slices would need no such
    setting, but many operations in place of one in each direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernels)
        with _without_tf32():
            return F.conv2d(x, kernels)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, kernels = ctx.saved_tensors
        one, none = [1, 1], [0, 0]
        how = (None, one, none, one, False, none, 1, [True, False, False])  # the input's alone
        with _without_tf32():
            return torch.ops.aten.convolution_backward(grad, x, kernels, *how)[0], None


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@lru_cache
def _sobel_kernels(device: torch.device) -> Tensor:
    from kornia.filters import get_spatial_gradient_kernel2d
    from kornia.filters.kernels import normalize_kernel2d

    with torch.inference_mode(False):  # validation comes first, and training differentiates
        kernels = normalize_kernel2d(get_spatial_gradient_kernel2d("sobel", 1))
        return kernels[:, None].to(device)


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of the terms, which is what is minimised."""
    return torch.stack(list(terms.values())).sum()
