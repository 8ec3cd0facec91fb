"""Pictures of a batch to look at: what went in, what came out, and a composite of it.

Whole ones are shown at MAX_SIDE pixels a side at most. What a refiner adds is too fine to see
there: it is shown on a part of each, enlarged.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchvision.utils import make_grid, save_image

from common.files import write_bytes
from model.matting_refine import enlarge

if TYPE_CHECKING:
    from model.matting_base import Outputs
    from model.matting_refine import Refined

Inputs = Sequence[Tensor]  # src, bgr, true_pha, true_fgr, as dataset.augmentation.augment has them

MAX_SIDE = 512  # pixels
ZOOM = 8  # of the picture's sides the part that is shown enlarged is one in so many
EDGE_CELL_SIDE = 4  # pixels a side, over which alpha is averaged where its edge is looked for
SHOWN_OUTPUTS = ("pha", "fgr", "err", "pha_sm", "err_sm", "ref_sm")  # of the outputs of a network
WHOLE_COLUMNS = ("src", "true_pha", "pred_pha", "composite")
ZOOMED_COLUMNS = ("zoom_src", "zoom_pred_pha_sm", "zoom_pred_pha", "zoom_true_pha")


def pictures(inputs: Inputs, outputs: "Outputs | Refined") -> dict[str, Tensor]:
    """What there is to look at, by name, detached and in float32: the inputs, SHOWN_OUTPUTS as far
    as the network has them, and a composite. That is on the background of the next sample, which
    the network has not seen with this one. With a coarse alpha, ZOOMED_COLUMNS are there, too."""
    src, bgr, true_pha, true_fgr = inputs
    pred = {
        f"pred_{name}": output.detach().float()
        for name, output in outputs._asdict().items()
        if name in SHOWN_OUTPUTS
    }
    new_bgr = bgr.roll(1, 0) if len(bgr) > 1 else torch.full_like(bgr, 0.5)
    whole = {
        "src": src,
        "bgr": bgr,
        "true_pha": true_pha,
        "true_fgr": true_fgr,
        "composite": torch.lerp(new_bgr, pred["pred_fgr"], pred["pred_pha"]),
        **pred,
    }
    images = {name: shrunk(picture) for name, picture in whole.items()}
    if "pred_pha_sm" in whole:
        whole["pred_pha_sm"] = enlarge(whole["pred_pha_sm"], (src.shape[2], src.shape[3]))
        rows, columns = edge_part(true_pha)
        for zoomed in ZOOMED_COLUMNS:
            picture = whole[zoomed.removeprefix("zoom_")].permute(0, 2, 3, 1)
            batch = torch.arange(len(picture), device=picture.device)[:, None, None]
            part = picture[batch, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
            images[zoomed] = F.interpolate(part, images["src"].shape[2:], mode="nearest-exact")
    return images


def shrunk(pictures: Tensor) -> Tensor:
    """(B, C, H, W) averaged by a whole factor, so that no side is above MAX_SIDE."""
    factor = -(-max(pictures.shape[2:]) // MAX_SIDE)
    return F.avg_pool2d(pictures, factor, ceil_mode=True) if factor > 1 else pictures


def edge_part(true_pha: Tensor) -> tuple[Tensor, Tensor]:
    """The part of each picture that has most of true alpha's edge, which is the same at every step:
    its rows (B, H / ZOOM) and its columns (B, W / ZOOM), on the device. true_pha: (B, 1, H, W)."""
    sides = tuple(true_pha.shape[2:])
    parts = [max(1, side // ZOOM) for side in sides]
    # Averaged, so that a hard edge has values between 0 and 1, too.
    cells = F.avg_pool2d(true_pha, EDGE_CELL_SIDE)
    window = [max(1, part // EDGE_CELL_SIDE) for part in parts]
    edge = F.avg_pool2d(cells * (1 - cells), window, stride=1)
    best = edge.flatten(1).argmax(1)
    across = edge.shape[3]
    first = (torch.div(best, across, rounding_mode="floor"), best % across)
    rows, columns = (
        (start[:, None] * EDGE_CELL_SIDE).clamp(max=side - part)
        + torch.arange(part, device=best.device)
        for start, side, part in zip(first, sides, parts, strict=True)
    )
    return rows, columns


def as_bytes(pictures: Tensor) -> Tensor:
    """0..1 as 0..255, rounded, on the host; from a GPU the copy is only begun."""
    values = pictures.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return values.to("cpu", non_blocking=True)


def preview(path: Path, images: dict[str, Tensor], rows: int = 4) -> None:
    """A picture of up to `rows` samples below each other: src, true alpha, predicted alpha, and
    the composite on a new background, side by side; where there is a refiner, below them the part
    that is enlarged: src, coarse, refined and true alpha. images: uint8."""
    columns = [*WHOLE_COLUMNS, *(name for name in ZOOMED_COLUMNS if name in images)]
    chosen = [images[name][:rows].expand(-1, 3, -1, -1) for name in columns]
    tiles = torch.stack(chosen, dim=1).flatten(0, 1)
    grid = make_grid(tiles, nrow=len(WHOLE_COLUMNS), padding=4, pad_value=255)
    content = io.BytesIO()
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(content, "PNG")
    write_bytes(path, content.getbuffer())


def batch_picture(path: Path, images: dict[str, Tensor]) -> None:
    """The augmented batch as one picture: a row each for src, bgr, true alpha and foreground."""
    names = ("src", "bgr", "true_pha", "true_fgr")
    rows = [images[name].expand(-1, 3, -1, -1).cpu() for name in names]
    content = io.BytesIO()
    save_image(torch.cat(rows), content, "png", nrow=len(rows[0]), padding=4, pad_value=1.0)
    write_bytes(path, content.getbuffer())
