"""Measures the network on fixed samples that are never warped, and keeps some to look at."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from dataset.augmentation import augment
from training import metrics
from training.distributed import Team
from training.loss import TERMS, matting_loss, total
from training.machine import LAYOUTS

FIGURES = ("loss", *TERMS, "mad", "mse", "grad")


def validate(
    model: nn.Module,
    loader: Iterable[dict],
    device: torch.device,
    autocast: Callable,
    team: Team = Team(),  # noqa: B008  (it is frozen)
    conn: bool = False,
) -> tuple[dict[str, float], dict[str, Tensor], int]:
    """Runs `model` in eval mode over the loader's batches, and puts it back into training mode.

    loader: this process's share of the samples; every process takes part. Batch norm's statistics
    are those of the first process in all of them, which are what is saved.

    Returns the means over all samples of all processes (FIGURES, and `conn` if asked for, which
    takes long); the pictures of this process's first batch by name, (B, C, H, W) float32 on
    `device`; and how many samples there were. Raises the error of a loader, in the process where it
    comes from; ElsewhereError in the others.
    """
    names = (*FIGURES, "conn") if conn else FIGURES
    sums = torch.zeros(len(names) + 1, dtype=torch.float64, device=device)  # and the count
    shown: dict[str, Tensor] = {}

    def measure() -> None:
        for batch in loader:
            src, bgr, true_pha, true_fgr = augment(batch, device, LAYOUTS[device.type])
            with autocast():
                pred_pha, pred_fgr, pred_err, _ = model(src, bgr, hid=False)
            terms = matting_loss(pred_pha, pred_fgr, pred_err, true_pha, true_fgr)
            results = {"loss": total(terms), **terms}
            pred_pha = pred_pha.float()
            for name in names[len(results) :]:
                results[name] = getattr(metrics, name)(pred_pha, true_pha).mean()
            sums[:-1] += torch.stack([results[name].to(sums) for name in names]) * len(src)
            sums[-1] += len(src)
            if not shown:
                shown.update(pictures(src, bgr, true_pha, true_fgr, pred_pha, pred_fgr, pred_err))

    team.share(list(model.buffers()))
    model.eval()
    with torch.inference_mode():
        team.each(measure)
    model.train()
    *values, count = team.total(sums).tolist()
    means = {name: value / max(count, 1) for name, value in zip(names, values, strict=True)}
    return means, shown, round(count)


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
