"""The command line of train_base.py: every option, its default, and what is refused at once.

Imports nothing heavy, so that --help answers at once; never touches a file.
"""

import argparse
import math
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from common.choices import BACKBONES
from common.cli import Parser, command, said
from common.processes import usable_processors
from dataset.entries import EntryError, entries
from training.launchers import another_launcher

STAGE = "base"  # of the published training: the first of two
RECIPE_BATCH = 8  # to which the default learning rates belong
LR_SCALES = {"none": lambda ratio: 1.0, "linear": lambda ratio: ratio, "sqrt": math.sqrt}

# The largest numbers that mean something: beyond them, a slip of the finger would take all memory
# or never begin. Larger than any that is of use.
MAX_STEPS, MAX_EPOCHS, MAX_SECONDS = 10**12, 10**6, 10**6
MAX_BATCH, MAX_WORKERS, MAX_PIXELS = 1 << 16, 512, 1 << 14
MAX_LEARNING_RATE = 10.0

DESCRIPTION = """\
Trains MattingBase, the base network of "Real-Time High-Resolution Background Matting".

The first start: initialise backbone and ASPP from a DeepLabV3 checkpoint, and train:

    python train_base.py --dataset-name videomatte240k --model-backbone resnet50 \\
        --model-pretrain-initialization best_deeplabv3_resnet50_voc_os16.pth

Continue after an interruption, from the newest checkpoint of the run:

    python train_base.py --dataset-name videomatte240k --model-backbone resnet50 \\
        --model-last-checkpoint auto
"""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Of all scripts: adds each option's default, where it has one and its help does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default in (None, False, argparse.SUPPRESS) or "(default" in text:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        return f"{text} (default: {shown})"


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of `argv` (None: of the command line). Wrong ones end the program with status 2
    and one line that says which."""
    parser = Parser("train_base.py", description=DESCRIPTION, formatter_class=Formatter)

    # fmt: off
    data = parser.add_argument_group("data")
    add_dataset_name(data)
    data.add_argument(
        "--dataset-dir", type=Path, metavar="DIR",
        help="instead: read DIR/{train,valid}/{fgr,pha} and DIR/backgrounds/{train,valid}",
    )
    data.add_argument(
        "--dataset-pairing", choices=["random", "zip"], default="random",
        help="random: every draw of a foreground meets another background; "
        "zip: number i always meets number i",
    )
    data.add_argument(
        "--crop-size", type=whole(32, MAX_PIXELS), nargs=2, default=[256, 512],
        metavar=("MIN", "MAX"),
        help="sides of the training crops in pixels, drawn anew for every batch: MIN plus a "
        "multiple of 64, or of 32 where MAX is less than 128 above MIN; validation uses MAX x MAX",
    )
    data.add_argument(
        "--num-workers", type=whole(0, MAX_WORKERS), metavar="N",
        help="processes that read and decode pictures; 0: none, the program itself, between two "
        "steps (default: one a core, at most 16, shared among the processes that train on the "
        "machine; 0 where a CPU trains, whose cores have the step to compute)",
    )
    data.add_argument(
        "--on-bad-image", choices=["stop", "skip"], default="stop",
        help="a picture that cannot be decoded: stop and name it; or skip: take the next "
        "foreground instead, name it once, and stop where more than one, and more than 1 in 100, "
        "are bad",
    )

    model = parser.add_argument_group("model and start point")
    model.add_argument("--model-backbone", choices=BACKBONES, default="resnet50", help="encoder")
    model.add_argument(
        "--model-name", metavar="NAME",
        help="the run's name: checkpoint/NAME and log/NAME "
        "(default: mattingbase-BACKBONE-DATASET)",
    )
    model.add_argument(
        "--model-pretrain-initialization", type=Path, metavar="FILE",
        help="a checkpoint to initialise from, once, before training: DeepLabV3 of VainF, "
        "torchvision or segmentation_models_pytorch, an ImageNet classifier, or MattingBase; the "
        "word torchvision: download torchvision's",
    )
    model.add_argument(
        "--model-pretrain-partial", action="store_true",
        help="take an initialisation that lacks something which files of its kind have",
    )
    model.add_argument(
        "--model-pretrain-stem", choices=["random", "rgb"], default="random",
        help="the first convolution, which takes src and bgr: random, as published; or rgb: its "
        "src half from the file, its bgr half zero",
    )
    model.add_argument(
        "--model-last-checkpoint", type=Path, metavar="FILE",
        help="continue from this checkpoint; the word auto: from the newest of this run, or "
        "start fresh where there is none. Wins over --model-pretrain-initialization",
    )
    model.add_argument(
        "--resume-anyway", action="store_true",
        help="continue a checkpoint of a run with another seed, batch size, crop size, pairing or "
        "data set; without it that is refused",
    )
    model.add_argument(
        "--overwrite", action="store_true",
        help="remove checkpoints of this run that lie ahead of the start point; without it they "
        "stop the run",
    )

    length = parser.add_argument_group("length")
    length.add_argument(
        "--batch-size", type=whole(1, MAX_BATCH), default=8, metavar="N",
        help="samples a step, of all processes together",
    )
    length.add_argument(
        "--accumulate", type=whole(1, MAX_BATCH), default=1, metavar="N",
        help="split each process's share of a batch into N backward passes, to save memory",
    )
    length.add_argument(
        "--epoch-start", type=whole(0, MAX_EPOCHS), default=0, metavar="N",
        help="first epoch; a checkpoint with its state file knows better",
    )
    length.add_argument(
        "--epoch-end", type=whole(1, MAX_EPOCHS), default=8, metavar="N",
        help="stop before this epoch",
    )
    length.add_argument(
        "--max-steps", type=whole(1), metavar="N",
        help="stop after N completed steps in all, with a checkpoint",
    )
    length.add_argument(
        "--dry-run", action="store_true",
        help="everything once (read, transfer, a training step, a validation step, save, read "
        "back), and log/NAME/batch.png; leaves no checkpoint",
    )

    recipe = parser.add_argument_group("recipe")
    rate = positive(MAX_LEARNING_RATE)
    recipe.add_argument("--lr-backbone", type=rate, default=1e-4, help="learning rate")
    recipe.add_argument("--lr-aspp", type=rate, default=5e-4, help="learning rate")
    recipe.add_argument("--lr-decoder", type=rate, default=5e-4, help="learning rate")
    recipe.add_argument(
        "--lr-scale", choices=list(LR_SCALES), default="none",
        help="scale the learning rates by batch size / 8, or by its square root",
    )
    recipe.add_argument(
        "--clip-grad-norm", type=positive(), metavar="NORM",
        help="scale gradients down whose norm, of all together, is above it (default: off)",
    )
    recipe.add_argument("--seed", type=seed, default=0, metavar="N", help="of all randomness")

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N; auto: a GPU if there is one"
    )
    machine.add_argument(
        "--precision", choices=["fp16", "bf16", "fp32"],
        help="of the forward pass (default: fp16 with loss scaling on CUDA, fp32 elsewhere); fp32 "
        "on CUDA computes convolutions in TF32, with 10 bits of fraction",
    )
    machine.add_argument(
        "--sync-batchnorm", action=argparse.BooleanOptionalAction,
        help="batch norm over the images of all processes (default: where a process gets fewer "
        "than 8)",
    )
    machine.add_argument(
        "--dist-timeout", type=whole(1, MAX_SECONDS), metavar="S",
        help="seconds in which every process must answer, or the run ends (default: 300 in "
        "start-up, 120 in training)",
    )
    machine.add_argument(
        "--deterministic", action="store_true",
        help="the same bits on every run of a GPU, too, with slower algorithms",
    )

    watching = parser.add_argument_group("watching and saving, in steps")
    watching.add_argument(
        "--log-to", choices=["tensorboard", "wandb"], default="tensorboard",
        help="wandb: Weights & Biases, too, which is shown what goes to TensorBoard; the "
        "environment's WANDB_MODE=offline sends nothing",
    )
    watching.add_argument(
        "--log-train-loss-interval", type=whole(1), default=10, metavar="N",
        help="loss, speed and learning rates to TensorBoard",
    )
    watching.add_argument(
        "--log-train-images-interval", type=whole(1), default=2000, metavar="N",
        help="pictures of the training batch, its first five samples, to TensorBoard",
    )
    watching.add_argument(
        "--log-valid-interval", type=whole(1), default=5000, metavar="N",
        help="validation; also before the first step and after the last",
    )
    watching.add_argument(
        "--valid-conn", action="store_true",
        help="validation measures connectivity too, which takes a second of a core a sample",
    )
    watching.add_argument(
        "--checkpoint-interval", type=whole(1), default=5000, metavar="N",
        help="checkpoints; also at the end of every epoch",
    )
    watching.add_argument(
        "--checkpoint-keep", type=whole(2), default=2, metavar="N",
        help="state files kept, the newest; of older checkpoints the weights at the ends of "
        "epochs stay",
    )
    # fmt: on

    argv = sys.argv[1:] if argv is None else argv
    another = another_launcher(argv)
    if another and not {"-h", "--help"} & set(argv):
        parser.error(another)
    options = parser.parse_args(argv)
    _check(parser, options)
    factor = LR_SCALES[options.lr_scale](options.batch_size / RECIPE_BATCH)
    for name in ("lr_backbone", "lr_aspp", "lr_decoder"):
        setattr(options, name, getattr(options, name) * factor)
    dataset = options.dataset_dir.resolve().name if options.dataset_dir else options.dataset_name
    if options.dataset_dir:
        options.dataset_name = None
    options.stage = STAGE
    if options.model_name is None:
        options.model_name = f"mattingbase-{options.model_backbone}-{dataset}"
        if fault_of_name(options.model_name):  # a data set's folder may be called what no run may
            plain = re.sub(r"[^\w.-]", "_", str(dataset))[:50]
            options.model_name = f"mattingbase-{options.model_backbone}-{plain}"
    return options


def add_dataset_name(group: argparse._ArgumentGroup) -> None:
    """The option --dataset-name, the same in all scripts that read a data set."""
    try:
        names: list[str] | None = [str(name) for name in entries()]
        listed = ", ".join(name for name in names or [] if name != "backgrounds")
    except EntryError:  # which is said where an entry is wanted; --dataset-dir wants none
        names, listed = None, "which cannot be read now"
    group.add_argument(
        "--dataset-name",
        choices=names,
        default="demo",
        metavar="NAME",
        help=f"an entry of data_path.py: {listed}",
    )


def default_workers(processes: int = 1) -> int:
    """--num-workers where it is not given: one a core that this process may use, the cores shared
    by so many processes, at most 16."""
    return min(16, max(1, usable_processors() // processes))


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.crop_size[0] > options.crop_size[1]:
        low, high = options.crop_size
        parser.error(f"--crop-size {low} {high}: MIN is above MAX; type --crop-size {high} {low}")
    if options.epoch_start >= options.epoch_end:
        parser.error(
            f"--epoch-start {options.epoch_start} is not before --epoch-end {options.epoch_end}"
        )
    if options.dataset_name == "backgrounds" and not options.dataset_dir:
        parser.error("--dataset-name backgrounds has no foregrounds; choose another entry")
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


def whole(least: int, most: int = MAX_STEPS) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{said(text)!r} is no whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{said(text)} is below {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{said(text)} is above {most}, the most allowed")
        return value

    return whole_number


def seed(text: str) -> int:
    """An argparse type: a whole number of 63 bits."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{said(text)!r} is no whole number") from None
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{said(text)} is not between 0 and 2^63 - 1")
    return value


def positive(most: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a number above 0, finite, and not above `most`."""

    def positive_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{said(text)} is no positive number")
        if value > most:
            raise argparse.ArgumentTypeError(f"{said(text)} is above {most:g}, the most allowed")
        return value

    return positive_number
