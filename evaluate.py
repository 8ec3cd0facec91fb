"""Measures mattes: of a checkpoint on a data set, or those in a folder against true ones.

python evaluate.py --model-checkpoint checkpoint/NAME/epoch-3.pth --dataset-dir DIR
python evaluate.py --pred-dir A --true-dir B --report report.html
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import MAX_BATCH, MAX_PIXELS, MAX_WORKERS, Formatter, Parser, integer, seed
from common.files import next_free
from common.script import run_script
from common.text import plural, printable, tell
from prediction import refining
from training.option_groups import add_dataset_name, check_dataset_name

if TYPE_CHECKING:
    import torch

    from evaluation.scores import Batch

DESCRIPTION = """\
Measures mattes: SAD, MAD, MSE, Grad, Conn, in the units of the field's tables.

A checkpoint, on the validation split of a data set:

    python evaluate.py --model-checkpoint checkpoint/NAME/epoch-3.pth --dataset-dir DIR

Mattes that any program has made, paired by name with true ones:

    python evaluate.py --pred-dir A --true-dir B --report report.html
"""


OF_CHECKPOINT = (
    "dataset_name",
    "dataset_dir",
    "foregrounds",
    "backgrounds",
    "captured",
    "size",
    "seed",
    "batch_size",
    "num_workers",
    "precision",
    "model_type",
    "model_backbone",
    *refining.OF_REFINING,
)
OF_FOLDERS = ("pred_dir", "true_dir", "trimap_dir", "src_dir", "partial")
SIZE, REFINE_SIZE = 512, 2048  # what the two stages are trained to see at the most
INPUTS = ("model_checkpoint", "pred_dir", "true_dir", "trimap_dir", "src_dir")


def main(argv: list[str] | None = None) -> int:
    """Measures as the command line says. Returns the exit status: 0; 2 where the input is at fault,
    with one line that says what; 128 + the signal's number where it was asked to stop."""
    short = "out of memory; type a smaller --batch-size or --size, or --device cpu"
    return run_script(
        "evaluate.py", parse_options, evaluate, argv, when_memory_is_short=lambda _: short
    )


def evaluate(options: argparse.Namespace) -> None:
    """Measures, prints and writes. Raises the errors that are turned into a line."""
    # torch takes seconds to import: only now, so that --help need not wait for it.
    from tqdm import tqdm

    from common.errors import OptionError
    from common.files import check_apart, check_output
    from common.machine import choose_device
    from evaluation.folders import Clips
    from evaluation.scores import (
        UNKNOWN_REGION,
        WHOLE_IMAGE,
        Result,
        has_region,
        measure,
        table,
        write_csv,
        write_json,
    )

    outputs = outputs_of(options)
    for path in outputs:
        check_output(path, options.overwrite)
    given = (getattr(options, name) for name in INPUTS)
    check_apart(outputs, (path for path in given if path))
    gallery = None
    if options.report:
        from evaluation.report import Gallery, write_report

        gallery = Gallery(options.report_images)

    # ---- What is measured -----------------------------------------------------------------------

    device = choose_device(options.device)
    source = of_checkpoint if options.model_checkpoint else of_folders
    title, about, count, batches = source(options, device)

    # ---- Measure --------------------------------------------------------------------------------

    images, clips, empty = [], Clips(), []
    terminal = sys.stderr.isatty()
    with tqdm(total=count, unit="image", disable=not terminal, leave=False) as bar:
        for batch in batches:
            scores = measure(batch)
            if options.pred_dir:
                clips.add(batch)
            for place, (score, measured) in enumerate(zip(scores, has_region(batch), strict=True)):
                if not measured:
                    empty.append(score.name)
                    continue
                images.append(score)
                if gallery:
                    gallery.offer(score, batch, place)
            bar.update(len(scores))

    # ---- Tell -----------------------------------------------------------------------------------

    over = UNKNOWN_REGION if options.unknown or options.trimap_dir else WHOLE_IMAGE
    if not images:
        raise OptionError(
            f"none of {len(empty)} images has a pixel in {over}, {empty[0]} for one: there is "
            "nothing to measure; leave --unknown or --trimap-dir out, or give other mattes"
        )
    result = Result(over, images, clips.scores(), empty, about)
    print(table(result))
    if options.json:
        write_json(options.json, result)
    if options.csv:
        write_csv(options.csv, result)
    if gallery:
        write_report(options.report, result, gallery, title)
    if outputs:
        print(f"\nwrote {', '.join(printable(path) for path in outputs)}")


def of_checkpoint(
    options: argparse.Namespace, device: "torch.device"
) -> tuple[str, dict, int, Iterator["Batch"]]:
    """Prepares to measure a network on the validation split of a data set. Returns a title, what to
    note down, how many images there are, and their batches."""
    from common import machine
    from common.files import check_apart
    from dataset.first_look import look_at_alphas
    from dataset.folders import data_folders, describe, open_split, places
    from evaluation.network import Compositions, choose_backgrounds, predictions
    from model import MattingRefine
    from prediction.network import load_network
    from training.resolve import choose_workers

    precision = machine.choose_precision(options.precision, device)
    model = load_network(options)
    refines = isinstance(model, MattingRefine)
    if options.size is None:
        options.size = REFINE_SIZE if refines else SIZE
    size = (options.size, options.size)
    if options.batch_size is None:  # a CPU is no faster with several, which take memory
        options.batch_size = 1 if refines and device.type == "cpu" else 4
    settings = refining.settings_of(options).for_size(size)
    model = model.to(device, memory_format=machine.LAYOUTS[device.type])  # type: ignore[call-overload]
    if device.type == "cpu":
        machine.keep_memory()

    folders = data_folders(options.dataset_name, options.dataset_dir, tell)
    check_apart(outputs_of(options), places(folders))
    foregrounds, backgrounds = open_split(folders, "valid")
    look_at_alphas({"valid": foregrounds}, tell)
    chosen = choose_backgrounds(len(backgrounds), options.backgrounds, options.seed)
    if len(chosen) < options.backgrounds:
        print(f"note: there are no {options.backgrounds} backgrounds, but {len(chosen)}")
    compositions = Compositions(foregrounds, backgrounds, chosen, options.seed, options.captured)
    keys = compositions.keys(options.foregrounds, options.size)
    weights = printable(options.model_checkpoint)
    data = printable(options.dataset_dir or options.dataset_name)
    print(
        f"{weights}: {model.backbone_name}, {precision} on {device}; {data}: "
        f"{plural(len(keys) // len(chosen), 'foreground')}, each on "
        f"{plural(len(chosen), 'background')}"
        + (", as captured before" if options.captured else "")
    )
    if isinstance(model, MattingRefine):
        settings.set_on(model, size)
        for note in refining.unused(options):
            print(note)
        print(f"MattingRefine, {settings.said(size)}")
    about = {
        "checkpoint": weights,
        "backbone": model.backbone_name,
        **({"network": "MattingRefine", **settings.described()} if refines else {}),
        "data set": data,
        **describe(foregrounds, backgrounds),
        "foregrounds used": len(keys) // len(chosen),
        "backgrounds used": [printable(backgrounds.names[index]) for index in chosen],
        "captured": options.captured,
        "size": options.size,
        "seed": options.seed,
        "precision": precision,
        "device": str(device),
    }
    batches = predictions(
        model,
        compositions,
        keys,
        device,
        precision,
        batch_size=options.batch_size,
        unknown=options.unknown,
        num_workers=choose_workers(options.num_workers, device),
    )
    return f"{weights} on {data}", about, len(keys), batches


def of_folders(
    options: argparse.Namespace, device: "torch.device"
) -> tuple[str, dict, int, Iterator["Batch"]]:
    """Prepares to measure predicted mattes beside true ones. Returns the same as of_checkpoint."""
    from evaluation.folders import choose_pairs, read_pairs

    folders = options.pred_dir, options.true_dir, options.trimap_dir, options.src_dir
    pairs, faults = choose_pairs(*folders, options.partial, tell)
    kinds = zip(("predicted", "true", "trimaps", "photos"), folders, strict=True)
    about: dict = {name: printable(path) for name, path in kinds if path}
    about["left out"] = faults
    batches = read_pairs(pairs, device, unknown=options.unknown)
    title = f"{about['predicted']} against {about['true']}"
    return title, about, len(pairs), batches


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of `argv` (None: of the command line). Wrong ones end the program with status 2
    and one line that says which."""
    parser = Parser("evaluate.py", description=DESCRIPTION, formatter_class=Formatter)
    # fmt: off
    model = parser.add_argument_group("a checkpoint on a data set")
    model.add_argument(
        "--model-checkpoint", type=Path, metavar="FILE",
        help="weights of MattingBase or MattingRefine: this program's or the published one's",
    )
    add_dataset_name(model)
    model.add_argument(
        "--dataset-dir", type=Path, metavar="DIR",
        help="instead: read DIR/valid/{fgr,pha} and DIR/backgrounds/valid",
    )
    model.add_argument(
        "--foregrounds", type=integer(1), metavar="N",
        help="at most so many, evenly spaced (default: all)",
    )
    model.add_argument(
        "--backgrounds", type=integer(1), default=4, metavar="K",
        help="compose each foreground on each of K backgrounds, chosen by the seed",
    )
    model.add_argument(
        "--captured", action="store_true",
        help="give the network each background as if captured before: moved by up to 1 degree and "
        "1 %%, with a gamma around 1 and noise",
    )
    model.add_argument(
        "--size",
        type=integer(32, MAX_PIXELS),
        metavar="PIXELS",
        help=f"side of the compositions (default: {SIZE}; of a MattingRefine {REFINE_SIZE})",
    )
    model.add_argument("--seed", type=seed, default=0, metavar="N", help="of all randomness")
    model.add_argument(
        "--batch-size", type=integer(1, MAX_BATCH), metavar="N",
        help="images at once (default: 4; of a MattingRefine on a CPU 1)",
    )
    model.add_argument(
        "--num-workers", type=integer(0, MAX_WORKERS), metavar="N",
        help="processes that read and decode pictures; 0: none, the program itself (default: one "
        "a core, at most 16; 0 on a CPU)",
    )
    model.add_argument(
        "--precision", choices=["fp16", "bf16", "fp32"],
        help="of the forward pass (default: fp16 on CUDA, fp32 elsewhere); fp32 on CUDA "
        "computes convolutions in TF32, with 10 bits of fraction",
    )

    refining.add_options(parser)

    folders = parser.add_argument_group("folders of mattes, JPEG or PNG, 8 or 16 bits")
    folders.add_argument(
        "--pred-dir", type=Path, metavar="DIR",
        help="predicted mattes; in folders below it, numbered pictures are frames of a clip, and "
        "dtSSD is measured as well",
    )
    folders.add_argument(
        "--true-dir", type=Path, metavar="DIR",
        help="true mattes: the same relative names, but for the ending, and sizes",
    )
    folders.add_argument(
        "--trimap-dir", type=Path, metavar="DIR",
        help="trimaps (grey 128: unknown): measure the unknown region only",
    )
    folders.add_argument(
        "--src-dir", type=Path, metavar="DIR",
        help="photos, for the report to show them and composites",
    )
    folders.add_argument(
        "--partial", action="store_true",
        help="measure the pairs that are there, and name what is left out; without it, a matte "
        "without partner, or of another size, ends the program",
    )

    both = parser.add_argument_group("both")
    both.add_argument(
        "--unknown", action="store_true",
        help="measure only where a trimap derived from true alpha is unknown: alpha between 0.06 "
        "and 0.96, dilated 10 times with a 3x3 cross",
    )
    both.add_argument(
        "--json", type=Path, metavar="FILE",
        help="means and the figures of each image (default: for a checkpoint, "
        "log/evaluate/RUN-EPOCH.json, or -2, -3 where that is taken; for folders, none)",
    )
    both.add_argument(
        "--csv", type=Path, metavar="FILE",
        help="a row for each image (default: beside the JSON, ending in .csv)",
    )
    both.add_argument(
        "--report", type=Path, metavar="FILE.html",
        help="a page with distributions and pictures, complete in one file",
    )
    both.add_argument(
        "--report-images", type=integer(0), default=50, metavar="N",
        help="how many images have pictures in the report: the worst, some 0.15 MB each",
    )
    both.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    both.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N; auto: a GPU if there is one"
    )
    # fmt: on
    options = parser.parse_args(argv)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What goes with what; and where default files go."""
    folders = options.pred_dir or options.true_dir
    if bool(options.model_checkpoint) == bool(folders):
        parser.error("give either --model-checkpoint FILE, or --pred-dir DIR and --true-dir DIR")
    if folders and not (options.pred_dir and options.true_dir):
        missing = "--true-dir" if options.pred_dir else "--pred-dir"
        parser.error(f"{missing} DIR is missing: pairs are made of two folders")
    others, leader = (
        (OF_CHECKPOINT, "--model-checkpoint") if folders else (OF_FOLDERS, "--pred-dir")
    )
    for name in others:
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} goes with {leader}")
    if options.unknown and options.trimap_dir:
        parser.error("--unknown derives trimaps, --trimap-dir brings them; type one of them")
    check_dataset_name(parser, options)
    if options.model_checkpoint and not options.json:
        results, checkpoint = Path("log/evaluate"), options.model_checkpoint
        name = f"{checkpoint.resolve().parent.name}-{checkpoint.stem}"
        options.json = next_free(lambda number: results / f"{name}{number}.json", also=[".csv"])
    if options.json and not options.csv:
        options.csv = options.json.with_suffix(".csv")
    outputs = outputs_of(options)
    if len(set(outputs)) < len(outputs):
        parser.error(f"two outputs would be the same file: {', '.join(map(str, outputs))}")


def outputs_of(options: argparse.Namespace) -> list[Path]:
    return [path for path in (options.json, options.csv, options.report) if path]


if __name__ == "__main__":
    sys.exit(main())
