"""How fast the exported files are on a processor, beside the network in PyTorch.

    python -m benchmarks.export                    # about 10 minutes
    python -m benchmarks.export --quick            # about a minute: whether it runs

One picture at a time, in fp32, for pha and fgr. The network in PyTorch as it is, with its outputs
reduced, its TorchScript file as loaded and frozen, and its ONNX file in onnxruntime take turns
within one process, with one thread each, and what counts is the time of the processor, so that
what else the machine does matters little; what is given is the ratio to PyTorch.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from benchmarks.common import arguments, in_turns, machine, spread, table, write
from exporting.formats import export_onnx, export_torchscript, onnx_runner
from exporting.inference import Inference
from model import MattingBase

OUTPUTS = ("pha", "fgr")
PLAIN = "PyTorch"


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "benchmarks/results/export.json")
    options = parser.parse_args(argv)
    if options.device != "cpu":
        parser.error("the exported files are compared on a processor: --device cpu")
    torch.set_num_threads(1)
    backbones = ("mobilenetv2",) if options.quick else ("mobilenetv2", "resnet50")
    sizes = ((96, 128),) if options.quick else ((256, 256), (512, 512), (720, 1280))
    results = []
    for backbone in backbones:
        with tempfile.TemporaryDirectory() as folder:
            works = prepare(backbone, Path(folder))
            for size in sizes:
                results.append(measure(backbone, size, works, 2 if options.quick else 7))
                print(line(results[-1]), flush=True)
    print(table(*report(results)))
    about = machine(torch.device("cpu")) | {"onnxruntime": onnxruntime.__version__}
    write(options.json, {"machine": about, "quick": options.quick, "cases": results})


def prepare(backbone: str, folder: Path) -> dict[str, Callable[..., Any]]:
    """The network in each form, all called alike with src and bgr."""
    torch.manual_seed(0)
    model = MattingBase(backbone).eval()
    script, graph = folder / "matting.pt", folder / "matting.onnx"
    began = time.perf_counter()
    export_torchscript(model, script, "fp32", OUTPUTS, {})
    export_onnx(model, graph, "fp32", OUTPUTS, {}, size=None)
    print(f"{backbone}: exported in {time.perf_counter() - began:.0f} s", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's, that it is to be replaced some day
        loaded = torch.jit.load(script)
        frozen = torch.jit.freeze(torch.jit.load(script))
    return {
        PLAIN: model,
        "PyTorch, pha and fgr alone": Inference(model, OUTPUTS),
        "TorchScript": loaded,
        "TorchScript, frozen": frozen,
        "onnxruntime": onnx_runner(graph, threads=1),
    }


def measure(
    backbone: str, size: tuple[int, int], works: dict[str, Callable[..., Any]], rounds: int
) -> dict[str, Any]:
    """Seconds of a picture of (height, width) in each form, in turns, and the ratios."""
    src, bgr = torch.rand(2, 1, 3, *size)

    def call(work: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: work(src, bgr)

    with torch.inference_mode():
        # TorchScript compiles itself in its first two calls.
        seconds = in_turns({name: call(work) for name, work in works.items()}, rounds, warm_up=3)
    return {
        "backbone": backbone,
        "height": size[0],
        "width": size[1],
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "times_as_fast": {
            name: statistics.median(
                one / other for one, other in zip(seconds[PLAIN], values, strict=True)
            )
            for name, values in seconds.items()
        },
    }


def line(of: dict[str, Any]) -> str:
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in of["times_as_fast"].items())
    return f"{of['backbone']} {of['height']}x{of['width']}: {ratios}"


def report(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["backbone", "picture", f"{PLAIN}, ms"]
    rows = []
    for of in results:
        plain = 1000 * of["seconds"][PLAIN]["median"]
        rows.append([of["backbone"], f"{of['width']}x{of['height']}", f"{plain:.0f}"])
        rows[-1] += [f"{of['times_as_fast'][name]:.2f}" for name in of["seconds"] if name != PLAIN]
    others = [name for name in results[0]["seconds"] if name != PLAIN]
    return head + [f"{name}, times" for name in others], rows


if __name__ == "__main__":
    main()
