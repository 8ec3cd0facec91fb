"""Pictures of a batch to look at: what went in, what came out, and a composite of it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid, save_image

from common.files import write_bytes
from model.matting_refine import Refined

if TYPE_CHECKING:
    from model.matting_base import Outputs

Inputs = Sequence[Tensor]  # src, bgr, true_pha, true_fgr, as dataset.augmentation.augment has them


def pictures(inputs: Inputs, outputs: "Outputs | Refined") -> dict[str, Tensor]:
    """What there is to look at, by name, detached and in float32. The composite is on the
    background of the next sample, which the network has not seen with this one."""
    src, bgr, true_pha, true_fgr = inputs
    err = outputs.err_sm if isinstance(outputs, Refined) else outputs.err
    pred_pha, pred_fgr, pred_err = (x.detach().float() for x in (outputs.pha, outputs.fgr, err))
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


def as_bytes(pictures: Tensor) -> Tensor:
    """0..1 as 0..255, rounded, on the host; from a GPU the copy is only begun."""
    values = pictures.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return values.to("cpu", non_blocking=True)


def preview(path: Path, shown: dict[str, Tensor], rows: int = 4) -> None:
    """A picture of up to `rows` samples below each other: src, true alpha, predicted alpha, and
    the composite on a new background, side by side. shown: uint8."""
    columns = ("src", "true_pha", "pred_pha", "composite")
    chosen = [shown[name][:rows].expand(-1, 3, -1, -1) for name in columns]
    tiles = torch.stack(chosen, dim=1).flatten(0, 1)
    grid = make_grid(tiles, nrow=len(columns), padding=4, pad_value=255)
    content = io.BytesIO()
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(content, "PNG")
    write_bytes(path, content.getbuffer())


def batch_picture(path: Path, shown: dict[str, Tensor]) -> None:
    """The augmented batch as one picture: a row each for src, bgr, true alpha and foreground."""
    names = ("src", "bgr", "true_pha", "true_fgr")
    rows = [shown[name].expand(-1, 3, -1, -1).cpu() for name in names]
    content = io.BytesIO()
    save_image(torch.cat(rows), content, "png", nrow=len(rows[0]), padding=4, pad_value=1.0)
    write_bytes(path, content.getbuffer())
