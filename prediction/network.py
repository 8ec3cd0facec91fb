"""Which network a script's options mean, and whether they go together with what its file is of."""

import argparse

from common.errors import OptionError
from common.machine import choose_device, choose_precision
from common.text import plural, tell
from model import MattingBase, MattingRefine
from model.load import load_matting, load_matting_base
from prediction import refining
from prediction.pipeline import Progress
from prediction.predictor import Matter


def make_matter(options: argparse.Namespace) -> Matter:
    """Makes the Matter that predict.py's options mean. Raises OptionError, WeightsFileError."""
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    model = load_network(options, {"size": "--size", "upsample": "--upsample"})
    check_types(options, model)
    size, guided = options.size or refining.SIZE, options.upsample != "bilinear"
    matter = Matter(model, device, precision, size, guided, refining.settings_of(options))
    options.refines = matter.refines
    for note in refining.unused(options):
        tell(note)
    return matter


def tell_settings(matter: Matter, size: tuple[int, int], progress: Progress) -> None:
    """Says how pictures of (height, width) are refined, the first time at a scale."""
    if matter.refines:
        scale = matter.settings.for_size(size).backbone_scale
        progress.say_once(f"note: {matter.settings.said(size)}", scale)


def load_network(
    options: argparse.Namespace, of_base: dict[str, str] | None = None
) -> MattingBase | MattingRefine:
    """The network of --model-checkpoint, as what it is, or as --model-type says. of_base: options
    that mean the base network alone, as refining.OF_REFINING has them; None where they are not
    given. Raises OptionError where an option goes with another network, WeightsFileError."""
    path, wanted = options.model_checkpoint, options.model_type
    given = [n for name, n in refining.OF_REFINING.items() if getattr(options, name) is not None]
    of_base_given = [n for name, n in (of_base or {}).items() if getattr(options, name) is not None]
    if wanted == "mattingbase":
        if given:
            raise OptionError(
                f"--model-type mattingbase is the base network alone, and {given[0]} is of the "
                "refiner: leave one of them out"
            )
        model: MattingBase = load_matting_base(path)
    else:
        model = load_matting(path)
    if options.model_backbone not in (None, model.backbone_name):
        raise OptionError(
            f"{path} is of {model.backbone_name}: type --model-backbone {model.backbone_name}, or "
            "leave it out"
        )
    if not isinstance(model, MattingRefine):
        if given or wanted == "mattingrefine":
            raise OptionError(
                f"{path} is of MattingBase, which has no refiner: leave "
                f"{given[0] if given else '--model-type mattingrefine'} out, or give a file that "
                "train_refine.py has saved"
            )
        return model
    if of_base_given:
        raise OptionError(
            f"{of_base_given[0]} is for the base network alone, and {path} is of MattingRefine: "
            "leave it out (--backbone-scale sets what the coarse network sees), or type "
            "--model-type mattingbase"
        )
    kernel_size = model.refiner.conv1.kernel_size[0]
    if options.model_refine_kernel_size not in (None, kernel_size):
        raise OptionError(
            f"{path} has a kernel size of {kernel_size}: type --model-refine-kernel-size "
            f"{kernel_size}, or leave it out"
        )
    return model


def check_types(options: argparse.Namespace, model: MattingBase) -> None:
    """Raises OptionError where "ref" is asked of a network that refines nothing."""
    if "ref" in options.types and not isinstance(model, MattingRefine):
        left = " ".join(each for each in options.types if each != "ref") or "pha"
        way = "leave out --model-type mattingbase"
        if options.model_type != "mattingbase":
            way = f"type --type {left}, or give a file that train_refine.py has saved"
        raise OptionError(
            f"--type ref is where a refiner has worked, and {options.model_checkpoint} is used as "
            f"MattingBase, which has none: {way}"
        )


def tell_not_refined(matter: Matter, progress: Progress) -> None:
    """Says how many pictures have no place that was refined, where there are some."""
    if matter.not_refined:
        settings, pictures = matter.settings, plural(matter.not_refined, progress.unit)
        above, advice = "", ""
        if settings.refine_mode == "thresholding":
            above = f" above {settings.refine_threshold}"
            advice = "; type a smaller --refine-threshold, or --refine-mode sampling"
        progress.say(
            f"note: nothing was refined in {pictures}: the network expects no error{above}{advice}"
        )
