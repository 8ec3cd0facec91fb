"""How good a matte is, in the units of the field's tables. Pure functions of tensors."""

from torch import Tensor


def mad(pred_pha: Tensor, true_pha: Tensor) -> Tensor:
    """Mean absolute difference, times 1000. Both (B, 1, H, W), 0..1; returns (B,)."""
    return (pred_pha - true_pha).abs().mean((1, 2, 3)) * 1000


def mse(pred_pha: Tensor, true_pha: Tensor) -> Tensor:
    """Mean squared difference, times 1000. Both (B, 1, H, W), 0..1; returns (B,)."""
    return (pred_pha - true_pha).square().mean((1, 2, 3)) * 1000
