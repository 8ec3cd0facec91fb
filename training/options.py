"""The command lines of the training scripts: what each has by itself, and what is refused at once.

Imports nothing heavy, so that --help answers at once; never touches a file.
"""

import argparse
import os
import re
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from common import choices
from common.choices import KERNEL_SIZES, REFINE_MODES
from common.cli import Formatter, Parser, command, fraction, integer, part, said
from training import option_groups
from training.launchers import another_launcher
from training.option_groups import LR_SCALES, Stage, check_crop_size, check_dataset_name

BASE = Stage(
    name="base",
    run_name="mattingbase",
    sources="DeepLabV3 of VainF, torchvision or segmentation_models_pytorch, an ImageNet "
    "classifier, or MattingBase",
    checkpoints="continue from this checkpoint",
    crop_size=(256, 512),
    fgr_scale=(0.4, 1.0),
    batch_size=8,
    epochs=8,
    learning_rates={"backbone": 1e-4, "aspp": 5e-4, "decoder": 5e-4},
    images_interval=2000,
    valid_interval=5000,
    checkpoint_interval=5000,
)
REFINE = Stage(
    name="refine",
    run_name="mattingrefine",
    sources="MattingBase, as train_base.py trains it, MattingRefine, or what train_base.py takes",
    checkpoints="continue from this checkpoint, or begin with the weights of one of train_base.py",
    crop_size=(1024, 2048),
    fgr_scale=(0.3, 1.0),
    batch_size=4,
    epochs=1,
    learning_rates={"backbone": 5e-5, "aspp": 5e-5, "decoder": 1e-4, "refiner": 3e-4},
    images_interval=1000,
    valid_interval=2000,
    checkpoint_interval=2000,
)
# What each refine mode makes use of, and its default.
OF_MODES = {mode: f"model_{name}" for mode, name in choices.OF_MODES.items()}
REFINER_DEFAULTS = {"model_refine_sample_pixels": 80_000, "model_refine_threshold": 0.7}
MIN_COARSE = 16  # pixels a side that the encoder needs, which sees 1/16 of them
MAX_SAMPLE_PIXELS = 10**9

BASE_DESCRIPTION = """\
Trains MattingBase, the base network of "Real-Time High-Resolution Background Matting".

The first start: initialise backbone and ASPP from a DeepLabV3 checkpoint, and train:

    python train_base.py --dataset-name videomatte240k --model-backbone resnet50 \\
        --model-pretrain-initialization best_deeplabv3_resnet50_voc_os16.pth

Continue after an interruption, from the newest checkpoint of the run:

    python train_base.py --dataset-name videomatte240k --model-backbone resnet50 \\
        --model-last-checkpoint auto
"""
REFINE_DESCRIPTION = """\
Trains MattingRefine, the second stage of "Real-Time High-Resolution Background Matting": the base
network at a part of the size, and a refiner of the places where it errs.

The first start: initialise from the base network that train_base.py has trained, and train:

    python train_refine.py --dataset-name videomatte240k --model-backbone resnet50 \\
        --model-pretrain-initialization checkpoint/mattingbase-resnet50-videomatte240k/best.pth

Continue after an interruption, from the newest checkpoint of the run:

    python train_refine.py --dataset-name videomatte240k --model-backbone resnet50 \\
        --model-last-checkpoint auto
"""


class TrainingOptions(argparse.Namespace):
    """What both training scripts are told. Nothing writes to it once it is parsed; what the
    machine makes of what was left open stands in Run.

    stage: base or refine. fgr_scale: the range in which figures are made smaller; no option.
    """

    stage: str
    fgr_scale: tuple[float, float]
    # data
    dataset_name: str | None
    dataset_dir: Path | None
    dataset_pairing: str
    crop_size: list[int]
    num_workers: int | None
    on_bad_image: str
    # model and start point
    model_backbone: str
    model_name: str
    model_pretrain_initialization: Path | None
    model_pretrain_partial: bool
    model_pretrain_stem: str
    model_last_checkpoint: Path | None
    resume_anyway: bool
    overwrite: bool
    # length
    batch_size: int
    accumulate: int
    epoch_start: int
    epoch_end: int
    max_steps: int | None
    dry_run: bool
    # recipe; learning rates are scaled already
    lr_backbone: float
    lr_aspp: float
    lr_decoder: float
    lr_scale: str
    clip_grad_norm: float | None
    seed: int
    # machine
    device: str
    precision: str | None
    sync_batchnorm: bool | None
    dist_timeout: int | None
    deterministic: bool
    # watching and saving
    log_to: str
    log_train_loss_interval: int
    log_train_images_interval: int
    log_valid_interval: int
    valid_conn: bool
    checkpoint_interval: int
    checkpoint_keep: int


class RefineOptions(TrainingOptions):
    """What train_refine.py is told beside that."""

    model_backbone_scale: float
    model_refine_mode: str
    model_refine_sample_pixels: int
    model_refine_threshold: float
    model_refine_kernel_size: int
    lr_refiner: float


Options = TypeVar("Options", bound=TrainingOptions)


def parse_base_options(argv: list[str] | None = None) -> TrainingOptions:
    """The options of train_base.py in `argv` (None: of the command line). Wrong ones end the
    program with status 2 and one line that says which."""
    parser = Parser("train_base.py", description=BASE_DESCRIPTION, formatter_class=Formatter)
    _add_groups(parser, BASE)
    return _parse(parser, argv, BASE, TrainingOptions())


def parse_refine_options(argv: list[str] | None = None) -> RefineOptions:
    """The options of train_refine.py, as parse_base_options."""
    parser = Parser("train_refine.py", description=REFINE_DESCRIPTION, formatter_class=Formatter)
    _add_groups(parser, REFINE)
    add_refiner(parser)
    options = _parse(parser, argv, REFINE, RefineOptions())
    smallest, scale = options.crop_size[0], options.model_backbone_scale
    if smallest * scale < MIN_COARSE:
        parser.error(
            f"--crop-size {smallest} with --model-backbone-scale {scale:g} leaves the backbone "
            f"{int(smallest * scale)} pixels a side, and it needs {MIN_COARSE}; type a MIN of "
            f"{-int(-MIN_COARSE // scale)} or more"
        )
    return options


def add_refiner(parser: argparse.ArgumentParser) -> None:
    """The options of train_refine.py alone: how the network is put together."""
    # fmt: off
    refiner = parser.add_argument_group("coarse size and refiner")
    refiner.add_argument(
        "--model-backbone-scale", type=part, default=0.25, metavar="SCALE",
        help="the coarse size, at which the base network runs, as a part of the picture's; at "
        "most 1/2; as 0.25 or 1/4",
    )
    refiner.add_argument(
        "--model-refine-mode", choices=REFINE_MODES, default="sampling",
        help="what is refined. sampling: of each picture as many pixels as "
        "--model-refine-sample-pixels says, where the expected error is largest; thresholding: "
        "where it is above --model-refine-threshold, which may be nowhere; full: everything",
    )
    refiner.add_argument(
        "--model-refine-sample-pixels", type=integer(16, MAX_SAMPLE_PIXELS), metavar="N",
        default=REFINER_DEFAULTS["model_refine_sample_pixels"],
        help="of each picture, in patches of 16; what sampling refines at most",
    )
    refiner.add_argument(
        "--model-refine-threshold", type=fraction, metavar="ERROR",
        default=REFINER_DEFAULTS["model_refine_threshold"],
        help="the expected error above which thresholding refines",
    )
    refiner.add_argument(
        "--model-refine-thresholding", type=fraction, default=argparse.SUPPRESS,
        metavar="ERROR", dest="model_refine_threshold", help="the same, by its published name",
    )
    refiner.add_argument(
        "--model-refine-kernel-size", type=integer(1, 3), choices=KERNEL_SIZES, default=3,
        help="of the refiner's convolutions",
    )
    # fmt: on


def _add_groups(parser: argparse.ArgumentParser, stage: Stage) -> None:
    option_groups.add_data(parser, stage)
    option_groups.add_start(parser, stage)
    option_groups.add_length(parser, stage)
    option_groups.add_recipe(parser, stage)
    option_groups.add_machine(parser)
    option_groups.add_watching(parser, stage)


def _parse(
    parser: argparse.ArgumentParser, argv: list[str] | None, stage: Stage, options: Options
) -> Options:
    """Fills `options`, and checks what both stages have."""
    argv = sys.argv[1:] if argv is None else argv
    another = another_launcher(argv)
    if another and not {"-h", "--help"} & set(argv):
        parser.error(another)
    parser.parse_args(argv, options)
    _check(parser, options)
    options.stage, options.fgr_scale = stage.name, stage.fgr_scale
    factor = LR_SCALES[options.lr_scale](options.batch_size / stage.batch_size)
    for name in stage.learning_rates:
        setattr(options, f"lr_{name}", getattr(options, f"lr_{name}") * factor)
    dataset = options.dataset_dir.resolve().name if options.dataset_dir else options.dataset_name
    if options.dataset_dir:
        options.dataset_name = None
    if options.model_name is None:
        options.model_name = f"{stage.run_name}-{options.model_backbone}-{dataset}"
        if fault_of_name(options.model_name):  # a data set's folder may be called what no run may
            plain = re.sub(r"[^\w.-]", "_", str(dataset))[:50]
            options.model_name = f"{stage.run_name}-{options.model_backbone}-{plain}"
    return options


def _check(parser: argparse.ArgumentParser, options: TrainingOptions) -> None:
    check_crop_size(parser, options)
    if options.epoch_start >= options.epoch_end:
        parser.error(
            f"--epoch-start {options.epoch_start} is not before --epoch-end {options.epoch_end}"
        )
    check_dataset_name(parser, options)
    if not options.model_pretrain_initialization:
        for flag, used in (
            ("--model-pretrain-partial", options.model_pretrain_partial),
            ("--model-pretrain-stem", options.model_pretrain_stem != "random"),
        ):
            if used:
                parser.error(f"{flag} goes with --model-pretrain-initialization FILE")
    if options.resume_anyway and not options.model_last_checkpoint:
        parser.error("--resume-anyway goes with --model-last-checkpoint FILE")
    if options.log_to == "wandb" and find_spec("wandb") is None:
        install = command("-m", "pip", "install", "wandb")
        parser.error(f"--log-to wandb needs wandb, not installed here; type: {install}")
    if options.model_name is not None and (fault := fault_of_name(options.model_name)):
        parser.error(
            f"--model-name {said(options.model_name)} must be a name below checkpoint/ and log/: "
            f"{fault}"
        )


def fault_of_name(name: str) -> str | None:
    """What is wrong with a run's name, which becomes folders; None where nothing is."""
    parts = Path(name).parts or ("",)
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "it has a character that cannot be printed, or bytes that are no UTF-8"
    if not all(part.strip(" .") for part in parts) or Path(name).is_absolute():
        return "it is empty, absolute, or has a part of nothing but dots or spaces"
    if any(part.startswith("-") for part in parts):
        return "it begins as an option does; give it another first letter"
    if max(len(os.fsencode(part)) for part in parts) > 255 or len(os.fsencode(name)) > 1000:
        return "it is too long; 255 bytes are a folder's most, 1,000 those of all"
    return None
