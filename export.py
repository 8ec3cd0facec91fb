"""Writes a trained network in the format that another program reads, and compares the two.

python export.py --model-checkpoint checkpoint/NAME/epoch-7.pth --format onnx --output matting.onnx
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from common.choices import OUTPUTS, REFINED_OUTPUTS
from common.cli import MAX_PIXELS, Formatter, Parser, command, integer, said, size_said
from common.script import run_script
from common.text import printable, tell
from prediction import refining

DESCRIPTION = """\
Writes a trained network in the format that another program reads: ONNX, TorchScript, safetensors,
or plain weights as checkpoints are. The file is read back, run beside PyTorch at two sizes, and
kept only where both give the same.

    python export.py --model-checkpoint checkpoint/NAME/epoch-7.pth --format onnx \\
        --simplified pha,fgr --output matting.onnx

A file of MattingRefine is written with its refiner. Its settings are fixed in ONNX; in TorchScript
they are those to begin with.
"""
FORMATS = ("onnx", "torchscript", "safetensors", "weights")
REFINE_DEFAULTS = {"scale": "1/4", "pixels": "80,000", "threshold": "0.1"}  # of MattingRefine
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # for --format onnx, and for nothing else


def main(argv: list[str] | None = None) -> int:
    """Exports as the command line says. Returns the exit status: 0; 2 where the input is at fault
    or the file would not do what the network does, with one line that says what; 128 + the
    signal's number where it was asked to stop."""
    return run_script(
        "export.py",
        parse_options,
        export,
        argv,
        when_stopped=lambda _: "stopped; nothing was written",
        when_memory_is_short=lambda _: (
            "out of memory; end other programs, or take a machine with more of it"
        ),
    )


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of `argv` (None: of the command line). Wrong ones end the program with status 2
    and one line that says which."""
    parser = Parser("export.py", description=DESCRIPTION, formatter_class=Formatter)
    # fmt: off
    parser.add_argument(
        "--model-checkpoint", type=Path, required=True, metavar="FILE",
        help="weights of MattingBase or MattingRefine, ours or published, or a state file beside "
        "such; network and backbone are read off them",
    )
    parser.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="where to write it"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace FILE where it exists, once all is well"
    )
    parser.add_argument(
        "--precision", choices=["fp32", "fp16"], default="fp32",
        help="of the weights; in onnx and torchscript of src, bgr and the outputs, too",
    )
    parser.add_argument(
        "--simplified", type=names, metavar="NAMES",
        help="onnx and torchscript of MattingBase: compute these outputs alone, such as pha,fgr, "
        f"in this order (default: all, {','.join(OUTPUTS)})",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--size", type=integer(32, MAX_PIXELS), nargs=2, metavar=("H", "W"),
        help="onnx: for pictures of this height and width alone, one at a time",
    )
    sizes.add_argument(
        "--dynamic", action="store_true",
        help="for any height, width and batch, which is what happens without --size",
    )
    parser.add_argument(
        "--licence", metavar="TEXT",
        help="the weights' licence, to be written into the file; weights carry that of the data "
        "they were trained on",
    )
    group = refining.add_options(parser, REFINE_DEFAULTS)
    for flag, methods in (
        ("--model-refine-patch-crop-method", ("unfold", "roi_align", "gather")),
        ("--model-refine-patch-replace-method", ("scatter_nd", "scatter_element")),
    ):
        group.add_argument(
            flag, choices=methods,
            help="taken, and chooses nothing: there is one way, right for any batch and precision",
        )
    # fmt: on
    options = parser.parse_args(argv)
    _check(parser, options)
    return options


def names(text: str) -> tuple[str, ...]:
    """An argparse type: outputs, separated by commas."""
    given = tuple(text.split(","))
    if len(set(given)) < len(given) or not set(given) <= set(OUTPUTS):
        raise argparse.ArgumentTypeError(
            f"{said(text)!r} is not a choice of {','.join(OUTPUTS)}, such as pha,fgr"
        )
    return given


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    kind, output = options.format, options.output
    if kind in ("safetensors", "weights"):
        for flag, used in (("--simplified", options.simplified), ("--dynamic", options.dynamic)):
            if used:
                parser.error(f"{flag} goes with --format onnx or torchscript; weights are all kept")
        typed = list(refining.typed_settings(options))
        if typed:
            parser.error(
                f"{refining.SETTINGS[typed[0]]} goes with --format onnx or torchscript; weights "
                "hold no settings"
            )
    if kind != "onnx" and options.size:
        parser.error(f"--size goes with --format onnx; {kind} takes any size")
    if kind == "weights" and options.licence:
        parser.error("--licence has no place in a file of weights alone; type --format safetensors")
    if output.is_dir():
        parser.error(f"--output {output} is a folder; give the name of a file in it")
    if not output.parent.is_dir():
        parser.error(f"--output {output}: there is no folder {output.parent}; make it first")
    if not os.access(output.parent, os.W_OK):
        parser.error(f"--output {output}: the folder {output.parent} cannot be written into")
    if output.name.endswith(".state.pth"):
        parser.error(f"--output {output} ends as a checkpoint's state does; choose another name")
    if output.exists():
        source = options.model_checkpoint
        if source.exists() and output.samefile(source):
            parser.error(f"--output {output} is the checkpoint itself; choose another name")
        if output.with_name(output.name.removesuffix(".pth") + ".state.pth").exists():
            parser.error(f"--output {output} is a checkpoint of a run; choose another name")
        if not options.overwrite:
            parser.error(f"{output} exists; choose another name, or replace it with --overwrite")
    if kind == "onnx":
        lacking = [name for name in NEEDED if find_spec(name) is None]
        if lacking:
            parser.error(
                f"--format onnx needs {', '.join(lacking)}, not installed here; type: "
                f"{command('-m', 'pip', 'install', *NEEDED)}"
            )


def export(options: argparse.Namespace) -> None:
    """Exports, compares and tells. Raises the errors that are turned into a line."""
    # torch takes seconds to import: only now, so that --help need not wait for it.
    from exporting import formats as exporting
    from model import MattingRefine
    from prediction.network import load_network

    path, output, precision = options.model_checkpoint, options.output, options.precision
    model = load_network(options, {"simplified": "--simplified"})
    outputs = options.simplified or OUTPUTS
    if isinstance(model, MattingRefine):
        outputs = REFINED_OUTPUTS
        for name, value in refining.typed_settings(options).items():
            setattr(model, name, value)
    about = exporting.describe(path, model, options.licence)
    tell(
        f"{path}: {about['network']} with {about['backbone']}; step: {about['step']}; data set: "
        f"{about['dataset']}"
    )
    tell(f"licence: {about['licence']}")
    about["precision"] = precision
    if isinstance(model, MattingRefine) and options.format == "onnx":
        about |= {name: str(getattr(model, name)) for name in refining.SETTINGS}
        for note in refining.unused(options):  # in TorchScript they may be used later
            tell(note)
    if options.format == "onnx":
        size = tuple(options.size) if options.size else None
        found = exporting.export_onnx(model, output, precision, outputs, about, size)
        kind = f"ONNX, opset {exporting.OPSET}"
    elif options.format == "torchscript":
        found = exporting.export_torchscript(model, output, precision, outputs, about)
        kind = "TorchScript"
    else:
        kept = about if options.format == "safetensors" else None
        found = exporting.export_weights(model, output, precision, kept)
        kind = options.format
    if options.format in ("onnx", "torchscript"):
        kind += f", {'x'.join(map(str, options.size)) if options.size else 'any size and batch'}"
    print(f"wrote {printable(output)}: {kind}, {precision}, {size_said(output.stat().st_size)}")
    if found:
        most, _ = exporting.LIMITS[precision]
        said = ", ".join(f"{name} {worst:.1g}" for name, worst in found.items())
        print(f"largest difference from PyTorch in fp32: {said} (at most {most:g} is let pass)")
    else:
        print("read back: every entry is the same, bit by bit")


if __name__ == "__main__":
    sys.exit(main())
