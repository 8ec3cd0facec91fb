"""How MattingRefine is run on a picture: its settings, what they are by default for a picture's
size, and the options of a script that set them. Imports nothing heavy.
"""

import argparse
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from common.choices import BACKBONES, KERNEL_SIZES, OF_MODES, REFINE_MODES
from common.cli import fraction, integer, part

if TYPE_CHECKING:
    from model import MattingRefine

# Training's crops have 1024 to 2048 pixels a side, of which the coarse network sees a quarter: the
# middle is 384 (Lin et al., CVPR 2021). Their authors use 1/4 for HD and 1/8 for 4K.
SCALES = (1 / 2, 1 / 4, 1 / 8)
TRAINED_SIDE = 384
SAMPLE_PIXELS, OF_PIXELS = 80_000, 1920 * 1080  # of HD; the authors take 320,000 of 4K
SIZE = 512  # of a square with the pixels that MattingBase sees where it is alone
MODEL_TYPES = ("mattingbase", "mattingrefine")


@dataclass(frozen=True)
class RefineSettings:
    """What may be changed on a MattingRefine, by its names; None: by the picture's size."""

    backbone_scale: float | None = None
    refine_mode: str = "sampling"
    refine_sample_pixels: int | None = None
    refine_threshold: float = 0.7

    def __post_init__(self) -> None:
        scale = self.backbone_scale
        if scale is not None and not 0 < scale <= 1 / 2:
            raise ValueError(f"a backbone scale of {scale}: it is above 0, at most 0.5")
        if self.refine_mode not in REFINE_MODES:
            modes = ", ".join(REFINE_MODES)
            raise ValueError(f"no refine mode {self.refine_mode!r}; choose one of {modes}")

    def for_size(self, size: tuple[int, int]) -> "RefineSettings":
        """With all that is None filled in for pictures of (height, width).

        The scale is that of SCALES which brings the picture nearest to the size of training, and
        of a tiny picture one that leaves it a pixel. The pixels to refine are 80,000, and of more
        than HD as large a part as that is of HD.
        """
        pixels, shorter = size[0] * size[1], -(-min(size) // 4) * 4  # as the network continues it
        side = math.sqrt(pixels)
        nearest = min(SCALES, key=lambda scale: abs(math.log(side * scale / TRAINED_SIDE)))
        return replace(
            self,
            backbone_scale=max(self.backbone_scale or nearest, (1 + 1e-9) / shorter),
            refine_sample_pixels=SAMPLE_PIXELS * max(pixels, OF_PIXELS) // OF_PIXELS
            if self.refine_sample_pixels is None
            else self.refine_sample_pixels,
        )

    def set_on(self, model: "MattingRefine", size: tuple[int, int]) -> None:
        """Has the next pictures, of (height, width), refined as these settings say."""
        for name, value in vars(self.for_size(size)).items():
            setattr(model, name, value)

    def described(self) -> dict[str, float | str | None]:
        """By the names under which it is noted down; without what its mode does not use."""
        names = ["backbone_scale", "refine_mode", *filter(None, [OF_MODES.get(self.refine_mode)])]
        return {name.replace("_", " "): getattr(self, name) for name in names}

    def said(self, size: tuple[int, int]) -> str:
        """For pictures of (height, width): "1920x1080: backbone at 1/4, 480x270; ..."."""
        filled = self.for_size(size)
        assert filled.backbone_scale and filled.refine_sample_pixels is not None
        whole = (-(-side // 4) * 4 for side in size)  # as the network continues it
        height, width = (int(side * filled.backbone_scale) for side in whole)
        refined = {
            "full": "all pixels refined",
            "thresholding": f"refined where the expected error is above {filled.refine_threshold}",
            "sampling": f"up to {filled.refine_sample_pixels:,} pixels refined",
        }[filled.refine_mode]
        scale = scale_said(filled.backbone_scale)
        return f"{size[1]}x{size[0]}: backbone at {scale}, {width}x{height}; {refined}"


def scale_said(scale: float) -> str:
    """ "1/4" where it is such a part, else "0.3"."""
    parts = 1 / scale
    return f"1/{round(parts)}" if abs(parts - round(parts)) < 1e-9 else f"{scale:g}"


OF_EACH_SIZE = {  # what is taken where an option is not given, for --help
    "scale": "of 1/2, 1/4 and 1/8 the one nearest to the size of training: 1/4 for HD, 1/8 for 4K",
    "pixels": "80,000; above HD as large a part: 320,000 of 4K",
    "threshold": "0.7",
}


def add_options(
    parser: argparse.ArgumentParser, defaults: dict[str, str] = OF_EACH_SIZE
) -> argparse._ArgumentGroup:
    """The options of a script that runs a MattingRefine, by the published scripts' names, too."""
    refining = parser.add_argument_group("refining, where the file is of MattingRefine")

    def add(name: str, published: str, text: str, **settings: Any) -> None:
        """`published`: another name, which --help leaves out."""
        refining.add_argument(name, help=text, **settings)
        known = {k: v for k, v in settings.items() if k != "metavar"}
        dest = name[2:].replace("-", "_")
        refining.add_argument(published, dest=dest, help=argparse.SUPPRESS, **known)

    # fmt: off
    add(
        "--backbone-scale", "--model-backbone-scale",
        "the coarse network sees this part of the picture's sides, at most 1/2 (default: "
        f"{defaults['scale']})",
        type=part, metavar="PART",
    )
    add(
        "--refine-mode", "--model-refine-mode",
        "which pixels are refined. sampling: the --refine-pixels with the largest expected error; "
        "thresholding: those whose expected error is above --refine-threshold; full: all "
        "(default: sampling)",
        choices=REFINE_MODES,
    )
    add(
        "--refine-pixels", "--model-refine-sample-pixels",
        f"of each picture (default: {defaults['pixels']})",
        type=integer(0), metavar="N",
    )
    add(
        "--refine-threshold", "--model-refine-threshold",
        f"0..1 (default: {defaults['threshold']})",
        type=fraction, metavar="X",
    )
    refining.add_argument(
        "--model-type", choices=MODEL_TYPES,
        help="mattingbase: the base network alone, of a MattingRefine file too; mattingrefine: "
        "refuse any other file (default: what the file is of)",
    )
    refining.add_argument(
        "--model-backbone", choices=BACKBONES, help="refuse a file of another (default: any)"
    )
    refining.add_argument(
        "--model-refine-kernel-size", type=integer(1, 3), choices=KERNEL_SIZES,
        help="refuse a file of another (default: any)",
    )
    # fmt: on
    return refining


SETTINGS = {  # attribute of MattingRefine → as it is typed
    "backbone_scale": "--backbone-scale",
    "refine_mode": "--refine-mode",
    "refine_sample_pixels": "--refine-pixels",
    "refine_threshold": "--refine-threshold",
}
OF_REFINING = {  # attribute of the options → as it is typed
    "backbone_scale": "--backbone-scale",
    "refine_mode": "--refine-mode",
    "refine_pixels": "--refine-pixels",
    "refine_threshold": "--refine-threshold",
    "model_refine_kernel_size": "--model-refine-kernel-size",
}


def typed_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Those of SETTINGS that were typed, by their names."""
    found = {name: getattr(options, flag[2:].replace("-", "_")) for name, flag in SETTINGS.items()}
    return {name: value for name, value in found.items() if value is not None}


def unused(options: argparse.Namespace) -> list[str]:
    """What to say of typed settings that the refine mode makes no use of."""
    mode, typed = options.refine_mode or RefineSettings.refine_mode, typed_settings(options)
    return [
        f"note: {SETTINGS[name]} is not used: it goes with --refine-mode {other}"
        for other, name in OF_MODES.items()
        if other != mode and name in typed
    ]


def settings_of(options: argparse.Namespace) -> RefineSettings:
    """Those of the command line."""
    return RefineSettings(
        options.backbone_scale,
        options.refine_mode or RefineSettings.refine_mode,
        options.refine_pixels,
        RefineSettings.refine_threshold
        if options.refine_threshold is None
        else options.refine_threshold,
    )


def for_less_memory(options: argparse.Namespace) -> str:
    """What to type where a MattingRefine takes too much."""
    less = ["--batch-size 1"] if options.batch_size > 1 else []
    if options.refine_mode in ("full", "thresholding"):
        less.append("--refine-mode sampling")
    else:
        less.append("a smaller --refine-pixels")
    return ", ".join([*less, "a smaller --backbone-scale"])
