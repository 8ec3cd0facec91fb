"""Measures the network on fixed samples that are never warped, and keeps some to look at."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from dataset.augmentation import augment
from training.loss import matting_loss, total
from training.metrics import mad, mse


def validate(
    model: nn.Module, loader: Iterable[dict], device: torch.device, autocast: Callable
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Runs `model` in eval mode over the loader's batches, and puts it back into training mode.

    Returns the means over all samples (`loss`, its terms, `mad`, `mse`), and the pictures of the
    first batch by name, (B, C, H, W) float32 on `device`.
    """
    sums: dict[str, Tensor] = {}
    count, shown = 0, {}
    model.eval()
    with torch.inference_mode():
        for batch in loader:
            src, bgr, true_pha, true_fgr = augment(batch, device)
            with autocast():
                pred_pha, pred_fgr, pred_err, _ = model(src, bgr)
            terms = matting_loss(pred_pha, pred_fgr, pred_err, true_pha, true_fgr)
            pred_pha = pred_pha.float()
            results = {"loss": total(terms), **terms}
            results["mad"] = mad(pred_pha, true_pha).mean()
            results["mse"] = mse(pred_pha, true_pha).mean()
            for name, value in results.items():
                sums[name] = sums.get(name, 0) + value.double() * len(src)
            count += len(src)
            shown = shown or pictures(src, bgr, true_pha, true_fgr, pred_pha, pred_fgr, pred_err)
    model.train()
    return {name: (value / count).item() for name, value in sums.items()}, shown


def pictures(
    src: Tensor,
    bgr: Tensor,
    true_pha: Tensor,
    true_fgr: Tensor,
    pred_pha: Tensor,
    pred_fgr: Tensor,
    pred_err: Tensor,
) -> dict[str, Tensor]:
    """What there is to look at, by name, detached and in float32. The composite is on the
    background of the next sample, which the network has not seen with this one."""
    pred_pha, pred_fgr, pred_err = (x.detach().float() for x in (pred_pha, pred_fgr, pred_err))
    new_bgr = bgr.roll(1, 0) if len(bgr) > 1 else torch.full_like(bgr, 0.5)
    return {
        "src": src,
        "bgr": bgr,
        "true_pha": true_pha,
        "pred_pha": pred_pha,
        "true_fgr": true_fgr,
        "pred_fgr": pred_fgr,
        "composite": pred_fgr * pred_pha + new_bgr * (1 - pred_pha),
        "pred_err": pred_err,
    }
