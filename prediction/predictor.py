"""Mattes of pictures of any size: by MattingRefine at their own, or by MattingBase at a size that
it knows, whose answer is brought back.

Works on tensors alone; files are predict.py's business.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from common.choices import REFINED_TYPES, TYPES
from common.errors import UserError
from common.machine import autocast
from model import MattingBase, MattingRefine
from model.load import load_matting
from model.refiner import PATCH
from prediction.refining import RefineSettings
from prediction.upsample import enlarge_rows, guided_alpha, guided_factors

STRIDE = 16  # of the deepest features
MIN_SIDE = 32  # below it there is nothing left for the deepest features to see
BAND_PIXELS = 1 << 20  # pixels of the full size that are brought back at a time
Rows = Callable[[int, int], dict[str, Tensor]]  # outputs by name, of rows first .. last - 1


class NotFiniteError(UserError, FloatingPointError):
    """The network's output has values that are not finite."""


class Matter:
    """Mattes of pictures of any size:

        matter = Matter("checkpoint/NAME/epoch-7.pth", device="cuda")
        found = matter(src, bgr, types=("pha", "fgr"))

    checkpoint: weights as model.load.load_matting takes them, whose errors it raises; or the
    network itself. A file of MattingRefine is used as what it is. device: None is a GPU if there is
    one. precision: "fp16", "bf16" or "fp32" for the network; None is fp16 on CUDA, fp32 elsewhere.

    Of MattingBase: size: larger pictures are scaled down to about size * size pixels for the
    network. guided: whether alpha is brought back led by the picture, or bilinearly.

    Of MattingRefine, which works at the pictures' own size: settings, whose defaults suit each
    picture's size.
    """

    def __init__(
        self,
        checkpoint: str | Path | MattingBase,
        device: torch.device | str | None = None,
        precision: str | None = None,
        size: int = 512,
        guided: bool = True,
        settings: RefineSettings | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_gpu = self.device.type == "cuda"
        self.precision = precision or ("fp16" if on_gpu else "fp32")
        self.size, self.guided, self.settings = size, guided, settings or RefineSettings()
        layout = torch.channels_last if on_gpu else torch.contiguous_format
        model = checkpoint if isinstance(checkpoint, MattingBase) else load_matting(checkpoint)
        self.model = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.not_refined = 0  # pictures of which nothing was refined

    @property
    def refines(self) -> bool:
        """Whether its network is a MattingRefine."""
        return isinstance(self.model, MattingRefine)

    @torch.inference_mode()
    def __call__(
        self,
        src: Tensor,
        bgr: Tensor,
        types: Sequence[str] = ("pha", "fgr"),
        com_bgr: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The mattes of a batch.

        src: (B, 3, H, W), RGB, uint8 0..255 or float 0..1. bgr: likewise, the same scene without
        the person; (1, 3, H, W) is that of all. com_bgr: likewise, or a colour (1, 3, 1, 1), what
        "com" is put on.

        Returns by the names in `types` "pha" (B, 1, H, W); "fgr" (B, 3, H, W), colours that mean
        something where pha is above 0; "err" (B, 1, H, W), the error that the network expects of
        pha, before it refines; "ref" (B, 1, H, W), of a MattingRefine alone, 1 where it has
        refined; and "com": (B, 3, H, W) on com_bgr, or without one (B, 4, H, W), RGBA with straight
        alpha, which is fgr and pha. All uint8 where src is, else float32 0..1, and on src's
        device. Raises ValueError where shapes or types are others, NotFiniteError where the
        network's output is not finite.
        """
        _check(src, bgr, com_bgr, types, REFINED_TYPES if self.refines else TYPES)
        if self.refines and self.device.type == "cpu" and len(src) > 1:
            # A batch is no faster there, and its pictures take memory at their own size.
            each = [
                self(
                    src[i : i + 1], _of(bgr, i), types, None if com_bgr is None else _of(com_bgr, i)
                )
                for i in range(len(src))
            ]
            return {name: torch.cat([found[name] for found in each]) for name in types}
        home, size = src.device, (src.shape[2], src.shape[3])
        src, bgr = src.to(self.device), bgr.to(self.device)
        rows_of = self._refine(src, bgr, types) if self.refines else self._enlarge(src, bgr, types)
        if com_bgr is not None:
            com_bgr = com_bgr.to(self.device).expand(-1, -1, *size)

        found: dict[str, Tensor] = {}
        rows = max(1, BAND_PIXELS // (len(src) * size[1]))
        for first in range(0, size[0], rows):
            last = min(first + rows, size[0])
            band = rows_of(first, last)
            if "com" in types:
                behind = None if com_bgr is None else as_float(com_bgr[:, :, first:last])
                band["com"] = composite(band["pha"], band["fgr"], behind)
            for name in types:
                value = band[name] if src.is_floating_point() else as_bytes(band[name])
                if name not in found:
                    found[name] = value.new_empty(*value.shape[:2], *size)
                found[name][:, :, first:last] = value
        return {name: value.to(home) for name, value in found.items()}

    def _enlarge(self, src: Tensor, bgr: Tensor, types: Sequence[str]) -> Rows:
        """By MattingBase at a size that it knows."""
        size = (src.shape[2], src.shape[3])
        small = network_size(size, self.size)
        small_src, small_bgr = reduced(src, small), reduced(bgr, small)
        pha, fgr, err = self._predict(small_src, small_bgr.expand_as(small_src))
        guided = self.guided and small != size
        lead = guided_factors(small_src, pha) if guided else pha
        residual = fgr - small_src  # src has the detail; this is what to change of it

        def rows_of(first: int, last: int) -> dict[str, Tensor]:
            src_rows = as_float(src[:, :, first:last])
            lead_rows = enlarge_rows(lead, size, first, last)
            band = {"pha": guided_alpha(lead_rows, src_rows) if guided else lead_rows}
            if "fgr" in types or "com" in types:
                residual_rows = enlarge_rows(residual, size, first, last)
                band["fgr"] = (src_rows + residual_rows).clamp(0, 1)
            if "err" in types:
                band["err"] = enlarge_rows(err, size, first, last)
            return band

        return rows_of

    def _refine(self, src: Tensor, bgr: Tensor, types: Sequence[str]) -> Rows:
        """By MattingRefine at the pictures' own size."""
        assert isinstance(self.model, MattingRefine)
        height, width = src.shape[2], src.shape[3]
        self.settings.set_on(self.model, (height, width))
        with autocast(self.device, self.precision)():
            found = self.model(as_float(src), as_float(bgr).expand(len(src), -1, -1, -1))
        pha, fgr, err, ref = found.pha, found.fgr, found.err_sm.float(), found.ref_sm
        self._check_finite([pha, fgr, err])
        self.not_refined += int((ref.flatten(1).amax(1) == 0).sum())
        whole = (ref.shape[2] * PATCH, ref.shape[3] * PATCH)  # which the network has continued to

        def rows_of(first: int, last: int) -> dict[str, Tensor]:
            band = {"pha": pha[:, :, first:last].float(), "fgr": fgr[:, :, first:last].float()}
            if "err" in types:
                band["err"] = enlarge_rows(err, whole, first, last)[..., :width]
            if "ref" in types:
                rows, columns = (torch.arange(n, device=ref.device) for n in (height, width))
                band["ref"] = ref[:, :, rows[first:last] // PATCH][..., columns // PATCH].float()
            return band

        return rows_of

    def _predict(self, src: Tensor, bgr: Tensor) -> list[Tensor]:
        with autocast(self.device, self.precision)():
            pha, fgr, err, _ = self.model(src, bgr, hid=False)
        outputs = [x.float() for x in (pha, fgr, err)]
        self._check_finite(outputs)
        return outputs

    def _check_finite(self, outputs: Sequence[Tensor]) -> None:
        if not all(bool(x.isfinite().all()) for x in outputs):
            raise NotFiniteError(
                f"the network's output at precision {self.precision} is not finite; try fp32, or "
                "other weights"
            )


def network_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) at which the network sees a picture of `size`: about side * side pixels in
    the picture's proportions, in multiples of the network's stride; a picture that has no more is
    seen as it is, but for sides below 32, which are brought up to it."""
    height, width = size
    if height * width > side * side:
        scale = side / math.sqrt(height * width)
        height, width = (max(1, round(x * scale / STRIDE)) * STRIDE for x in size)
    return max(height, MIN_SIDE), max(width, MIN_SIDE)


def reduced(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` (B, C, H, W), uint8 or float, as float32 0..1 of `size`, without aliasing. Channel by
    channel: a photograph as float32 takes four times its own memory."""
    if tuple(x.shape[2:]) == size:
        return as_float(x)
    how: dict[str, Any] = {"mode": "bilinear", "align_corners": False, "antialias": True}
    return torch.cat([F.interpolate(as_float(each), size, **how) for each in x.split(1, 1)], dim=1)


def composite(pha: Tensor, fgr: Tensor, bgr: Tensor | None) -> Tensor:
    """fgr on bgr, or, where that is None, the four channels of fgr and pha."""
    if bgr is None:
        return torch.cat([fgr, pha], dim=1)
    return fgr * pha + bgr * (1 - pha)


def as_float(x: Tensor) -> Tensor:
    """uint8 0..255 or float 0..1 → float32 0..1."""
    return x.float() if x.is_floating_point() else x.float().div_(255)


def as_bytes(x: Tensor) -> Tensor:
    """float 0..1 → uint8 0..255."""
    return (x * 255).round().to(torch.uint8)


def _of(x: Tensor, index: int) -> Tensor:
    """What goes with picture `index` of a batch: that of `x`, or the one that is for all."""
    return x if len(x) == 1 else x[index : index + 1]


def _check(
    src: Tensor, bgr: Tensor, com_bgr: Tensor | None, types: Sequence[str], known: Sequence[str]
) -> None:
    unknown = [name for name in types if name not in known]
    if unknown or not types:
        raise ValueError(f"no type {unknown}; choose of {', '.join(known)}")
    if src.ndim != 4 or src.shape[1] != 3:
        raise ValueError(f"src is {tuple(src.shape)}; expected (B, 3, H, W)")
    sizes = {tuple(src.shape[1:])}
    for name, x, fitting in (("bgr", bgr, sizes), ("com_bgr", com_bgr, sizes | {(3, 1, 1)})):
        if x is not None and (tuple(x.shape[1:]) not in fitting or len(x) not in (1, len(src))):
            raise ValueError(f"{name} is {tuple(x.shape)}, and src {tuple(src.shape)}")
    for name, x in (("src", src), ("bgr", bgr), ("com_bgr", com_bgr)):
        if x is not None and x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError(f"{name} is {x.dtype}; expected uint8, 0..255, or float, 0..1")
