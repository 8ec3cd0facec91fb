"""The options that both training scripts have, in groups, with each stage's defaults.

Imports nothing heavy, so that --help answers at once; never touches a file.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from common.choices import BACKBONES
from common.cli import MAX_BATCH, MAX_EPOCHS, MAX_PIXELS, MAX_WORKERS, integer, positive, seed
from common.processes import usable_processors
from dataset.entries import EntryError, entries

LR_SCALES = {"none": lambda ratio: 1.0, "linear": lambda ratio: ratio, "sqrt": math.sqrt}
MAX_SECONDS, MAX_LEARNING_RATE = 10**6, 10.0


@dataclass(frozen=True)
class Stage:
    """A stage of the published training: what its script's options are by default, and what is no
    option. batch_size is also the one to which the learning rates belong. fgr_scale: the range in
    which figures are made smaller. sources: what an initialisation may be."""

    name: str
    run_name: str
    sources: str
    checkpoints: str
    crop_size: tuple[int, int]
    fgr_scale: tuple[float, float]
    batch_size: int
    epochs: int
    learning_rates: dict[str, float]  # by the part of the network
    images_interval: int
    valid_interval: int
    checkpoint_interval: int


# fmt: off
def add_data(parser: argparse.ArgumentParser, stage: Stage) -> None:
    """What is trained on."""
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
        "--crop-size", type=integer(32, MAX_PIXELS), nargs=2, default=list(stage.crop_size),
        metavar=("MIN", "MAX"),
        help="sides of the training crops in pixels, drawn anew for every batch: MIN plus a "
        "multiple of 64, or of 32 where MAX is less than 128 above MIN; validation uses MAX x MAX",
    )
    data.add_argument(
        "--num-workers", type=integer(0, MAX_WORKERS), metavar="N",
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


def add_start(parser: argparse.ArgumentParser, stage: Stage) -> None:
    """The run's name, and where its weights come from."""
    model = parser.add_argument_group("model and start point")
    model.add_argument("--model-backbone", choices=BACKBONES, default="resnet50", help="encoder")
    model.add_argument(
        "--model-name", metavar="NAME",
        help="the run's name: checkpoint/NAME and log/NAME "
        f"(default: {stage.run_name}-BACKBONE-DATASET)",
    )
    model.add_argument(
        "--model-pretrain-initialization", type=Path, metavar="FILE",
        help=f"a checkpoint to initialise from, once, before training: {stage.sources}; the word "
        "torchvision: download torchvision's DeepLabV3",
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
        help=f"{stage.checkpoints}; the word auto: continue from the newest of this run, or "
        "start fresh where there is none. Wins over --model-pretrain-initialization",
    )
    model.add_argument(
        "--resume-anyway", action="store_true",
        help="continue a checkpoint of a run with another seed, batch size, crop size, pairing or "
        "data set, or another refiner; without it that is refused",
    )
    model.add_argument(
        "--overwrite", action="store_true",
        help="remove checkpoints of this run that lie ahead of the start point; without it they "
        "stop the run",
    )


def add_length(parser: argparse.ArgumentParser, stage: Stage) -> None:
    """How long it trains."""
    length = parser.add_argument_group("length")
    length.add_argument(
        "--batch-size", type=integer(1, MAX_BATCH), default=stage.batch_size, metavar="N",
        help="samples a step, of all processes together",
    )
    length.add_argument(
        "--accumulate", type=integer(1, MAX_BATCH), default=1, metavar="N",
        help="split each process's share of a batch into N backward passes, to save memory",
    )
    length.add_argument(
        "--epoch-start", type=integer(0, MAX_EPOCHS), default=0, metavar="N",
        help="first epoch; a checkpoint with its state file knows better",
    )
    length.add_argument(
        "--epoch-end", type=integer(1, MAX_EPOCHS), default=stage.epochs, metavar="N",
        help="stop before this epoch",
    )
    length.add_argument(
        "--max-steps", type=integer(1), metavar="N",
        help="stop after N completed steps in all, with a checkpoint",
    )
    length.add_argument(
        "--dry-run", action="store_true",
        help="everything once (read, transfer, a training step, a validation step, save, read "
        "back), and log/NAME/batch.png; leaves no checkpoint",
    )


def add_recipe(parser: argparse.ArgumentParser, stage: Stage) -> None:
    """Learning rates, and randomness."""
    recipe = parser.add_argument_group("recipe")
    rate, rates, of_part = positive(MAX_LEARNING_RATE), stage.learning_rates, "learning rate"
    recipe.add_argument("--lr-backbone", type=rate, default=rates["backbone"], help=of_part)
    recipe.add_argument("--lr-aspp", type=rate, default=rates["aspp"], help=of_part)
    recipe.add_argument("--lr-decoder", type=rate, default=rates["decoder"], help=of_part)
    if "refiner" in rates:
        recipe.add_argument("--lr-refiner", type=rate, default=rates["refiner"], help=of_part)
    recipe.add_argument(
        "--lr-scale", choices=list(LR_SCALES), default="none",
        help=f"scale the learning rates by batch size / {stage.batch_size}, or by its square root",
    )
    recipe.add_argument(
        "--clip-grad-norm", type=positive(), metavar="NORM",
        help="scale gradients down whose norm, of all together, is above it (default: off)",
    )
    recipe.add_argument("--seed", type=seed, default=0, metavar="N", help="of all randomness")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """What it computes on."""
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
        "--dist-timeout", type=integer(1, MAX_SECONDS), metavar="S",
        help="seconds in which every process must answer, or the run ends (default: 300 in "
        "start-up, 120 in training)",
    )
    machine.add_argument(
        "--deterministic", action="store_true",
        help="the same bits on every run of a GPU, too, with slower algorithms",
    )


def add_watching(parser: argparse.ArgumentParser, stage: Stage) -> None:
    """What is told and saved, and when."""
    watching = parser.add_argument_group("watching and saving, in steps")
    watching.add_argument(
        "--log-to", choices=["tensorboard", "wandb"], default="tensorboard",
        help="wandb: Weights & Biases, too, which is shown what goes to TensorBoard; the "
        "environment's WANDB_MODE=offline sends nothing",
    )
    watching.add_argument(
        "--log-train-loss-interval", type=integer(1), default=10, metavar="N",
        help="loss, speed and learning rates to TensorBoard",
    )
    watching.add_argument(
        "--log-train-images-interval", type=integer(1), default=stage.images_interval, metavar="N",
        help="pictures of the training batch, its first five samples, to TensorBoard",
    )
    watching.add_argument(
        "--log-valid-interval", type=integer(1), default=stage.valid_interval, metavar="N",
        help="validation; also after the last step, and before the first where no checkpoint is "
        "continued",
    )
    watching.add_argument(
        "--valid-conn", action="store_true",
        help="validation measures connectivity too, which takes a second of a core a sample",
    )
    watching.add_argument(
        "--checkpoint-interval", type=integer(1), default=stage.checkpoint_interval, metavar="N",
        help="checkpoints; also at the end of every epoch",
    )
    watching.add_argument(
        "--checkpoint-keep", type=integer(2), default=2, metavar="N",
        help="state files kept, the newest; of older checkpoints the weights at the ends of "
        "epochs stay",
    )
# fmt: on


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


def check_dataset_name(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses the entry that has backgrounds alone."""
    if options.dataset_name == "backgrounds" and not options.dataset_dir:
        parser.error("--dataset-name backgrounds has no foregrounds; choose another entry")


def check_crop_size(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses a range that is the wrong way round."""
    low, high = options.crop_size
    if low > high:
        parser.error(f"--crop-size {low} {high}: MIN is above MAX; type --crop-size {high} {low}")


def default_workers(processes: int = 1) -> int:
    """--num-workers where it is not given: one a core that this process may use, the cores shared
    by so many processes, at most 16."""
    return min(16, max(1, usable_processors() // processes))
