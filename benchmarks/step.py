"""How fast a step of training is on data that is already on the device, in several variants.

    python -m benchmarks.step                      # about 10 minutes on two cores
    python -m benchmarks.step --device cuda        # what most users train: 6 cases
    python -m benchmarks.step --device cuda --all  # every backbone, precision, size, batch: 54
    python -m benchmarks.step --quick              # under a minute: whether it runs

Forward, loss, backward and optimizer on one fixed batch. The plainest correct step (eager,
contiguous, Adam as it comes) and the variants take turns within one process, so that a machine
that drifts does so for all; what is given is the ratio. "program" is what train_base.py does; on a
GPU it is a variant that is listed already, so that how far the two differ is noise.
"""

import argparse
import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from benchmarks.common import arguments, machine, spread, table, write
from common.machine import ADAM_ARGUMENTS, LAYOUTS, keep_memory
from model import MattingBase
from training.guarded_optimizer import GuardedOptimizer, loss_scaler
from training.loss import matting_loss

CHANNELS = (3, 3, 1, 3)  # of src, bgr, true_pha, true_fgr
# name → (memory format, options of Adam, compiled)
CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
VARIANTS = {
    "plain": (CONTIGUOUS, {"foreach": False}, False),
    "foreach": (CONTIGUOUS, {"foreach": True}, False),
    "fused": (CONTIGUOUS, {"fused": True}, False),
    "channels_last": (CHANNELS_LAST, {"foreach": False}, False),
    "channels_last, fused": (CHANNELS_LAST, {"fused": True}, False),
    "channels_last, fused, compiled": (CHANNELS_LAST, {"fused": True}, True),
}


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "benchmarks/results/step.json")
    parser.add_argument("--compile", action="store_true", help="the compiled variant as well")
    parser.add_argument(
        "--all", action="store_true", help="on a GPU every case, not those of most users alone"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    if options.child:
        child(device, json.loads(options.child))
        return
    names = [name for name, how in VARIANTS.items() if options.compile or not how[2]]
    VARIANTS["program"] = program(device)
    results = []
    for case in cases(device, options.quick, options.all):
        within = names if device.type == "cpu" else [*names, "program"]
        result = measure(device, *case, within, rounds=2 if options.quick else 5)
        if device.type == "cpu":
            ours = program_over_plain(case, options.device, 1 if options.quick else 3)
            result["over_plain"]["program"] = statistics.median(ours)
            result["program_over_plain"] = spread(ours)
        results.append(result)
        print(line(result), flush=True)
    print(table(*report(results, [*names, "program"])))
    figures = {"over_plain": over_plain(results), "cases": results}
    write(options.json, {"machine": machine(device), "quick": options.quick, **figures})


def program(device: torch.device) -> tuple:
    """The step as train_base.py takes it, as an entry of VARIANTS."""
    return LAYOUTS[device.type], ADAM_ARGUMENTS[device.type], False


def cases(
    device: torch.device, quick: bool, every: bool = False
) -> Iterator[tuple[str, str, int, int]]:
    """(backbone, precision, side, batch)"""
    if quick:
        yield "mobilenetv2", "fp32", 64, 2
    elif device.type == "cuda" and every:
        for backbone, precision in product(
            ("resnet50", "mobilenetv2", "resnet101"), ("fp16", "bf16", "fp32")
        ):
            for side, batch in ((256, 8), (384, 8), (512, 2), (512, 8), (512, 32), (256, 64)):
                yield backbone, precision, side, batch
    elif device.type == "cuda":  # the middle of the recipe's crops
        yield from (
            ("resnet50", "fp16", 384, 8),
            ("resnet50", "fp16", 384, 32),
            ("mobilenetv2", "fp16", 384, 8),
            ("resnet101", "fp16", 384, 8),
            ("resnet50", "bf16", 384, 8),
            ("resnet50", "fp32", 384, 8),
        )
    else:
        yield from (
            ("mobilenetv2", "fp32", 128, 8),
            ("mobilenetv2", "fp32", 256, 4),
            ("resnet50", "fp32", 128, 8),
            ("resnet101", "fp32", 128, 4),
        )


def program_over_plain(case: tuple[str, str, int, int], device: str, rounds: int) -> list[float]:
    """How often the program's own step goes into the plainest, each in a process of its own (on a
    CPU it has the C library keep freed memory, which is for all of a process), in turns."""
    ratios = []
    for _ in range(rounds):
        plain, ours = (_in_process(case, device, ours) for ours in (False, True))
        ratios.append(plain / ours)
    return ratios


def _in_process(case: tuple[str, str, int, int], device: str, ours: bool) -> float:
    command = [sys.executable, "-m", "benchmarks.step", "--device", device, "--child"]
    command.append(json.dumps([*case, ours]))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def child(device: torch.device, case: list) -> None:
    """Prints the median of a step's seconds, on a CPU."""
    *of, ours = case
    VARIANTS["program"] = program(device)
    if ours:
        keep_memory()
    step = step_of("program" if ours else "plain", device, *of)
    seconds = []
    for number in range(6):
        began = time.perf_counter()
        step()
        if number:
            seconds.append(time.perf_counter() - began)
    print(statistics.median(seconds))


def measure(
    device: torch.device,
    backbone: str,
    precision: str,
    side: int,
    batch: int,
    names: list[str],
    rounds: int,
) -> dict:
    """Seconds of each variant in turns, and the most memory that it took on a GPU."""
    seconds: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    steps: dict[str, Callable[[], None]] = {}
    for name in names:
        try:
            steps[name] = step_of(name, device, backbone, precision, side, batch)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            for _ in range(3 if device.type == "cuda" else 1):
                steps[name]()
            if device.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated(device) / 1e9
        except torch.OutOfMemoryError:
            steps.pop(name, None)
            print(f"{name}: out of memory")
    count = 10 if device.type == "cuda" else 1
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            for _ in range(count):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.setdefault(name, []).append((time.perf_counter() - began) / count)
    flops = operations(steps["plain"]) if "plain" in steps else None
    del steps, step
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {
        "backbone": backbone,
        "precision": precision,
        "size": side,
        "batch": batch,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "images_per_s": {n: batch / statistics.median(v) for n, v in seconds.items()},
        "over_plain": {
            name: statistics.median(
                one / other for one, other in zip(seconds["plain"], values, strict=True)
            )
            for name, values in seconds.items()
        },
        "peak_memory_gb": memory,
        "teraflop_a_step": flops and flops / 1e12,
    }


def step_of(
    name: str, device: torch.device, backbone: str, precision: str, side: int, batch: int
) -> Callable[..., None]:
    """The step of a variant; called with (height, width), each at most `side`, which it is without.
    Its pictures are views of the same memory in every size."""
    layout, adam, compiled = VARIANTS[name]
    torch.manual_seed(0)
    model = MattingBase(backbone).to(device, memory_format=layout)
    forward = torch.compile(model) if compiled else model
    scaler = loss_scaler(device, precision)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, **adam)
    update = GuardedOptimizer(model, optimizer, scaler, clip=None, precision=precision, folder=None)
    whole = [torch.rand(batch * channels * side**2, device=device) for channels in CHANNELS]
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16

    def step(size: tuple[int, int] = (side, side)) -> None:
        src, bgr, true_pha, true_fgr = (
            pictures(values, (batch, channels, *size), layout)
            for values, channels in zip(whole, CHANNELS, strict=True)
        )
        with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
            pred_pha, pred_fgr, pred_err, _ = forward(src, bgr, hid=False)
        terms = matting_loss(pred_pha, pred_fgr, pred_err, true_pha, true_fgr)
        update.backward(terms)
        update.step()

    return step


def pictures(
    values: Tensor, shape: tuple[int, int, int, int], layout: torch.memory_format
) -> Tensor:
    """The first of `values`, which are in a row, as (B, C, H, W), lying in memory by `layout`."""
    count, channels, height, width = shape
    values = values[: math.prod(shape)]
    if layout == CONTIGUOUS:
        return values.view(shape)
    return values.view(count, height, width, channels).permute(0, 3, 1, 2)


def operations(step: Callable[[], None]) -> int:
    """Floating-point operations of a step, as torch counts them: multiplications and additions of
    convolutions and matrix products, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def over_plain(results: list[dict]) -> dict:
    """Each variant's ratio by backbone, precision, size and batch."""
    nested: dict = {}
    for of in results:
        level = nested.setdefault(of["backbone"], {}).setdefault(of["precision"], {})
        level.setdefault(str(of["size"]), {})[str(of["batch"])] = of["over_plain"]
    return nested


def line(of: dict) -> str:
    rates = ", ".join(f"{name} {ratio:.2f}" for name, ratio in of["over_plain"].items())
    return f"{of['backbone']} {of['precision']} {of['batch']}x{of['size']}: {rates}"


def report(results: list[dict], names: list[str]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for of in results:
        plain = of["images_per_s"].get("plain", float("nan"))
        rate = plain * of["teraflop_a_step"] / of["batch"] if of["teraflop_a_step"] else None
        rows.append(
            [of["backbone"], of["precision"], of["size"], of["batch"], f"{plain:.1f}"]
            + [f"{of['over_plain'].get(name, float('nan')):.2f}" for name in names]
            + [f"{rate:.2f}" if rate else "", f"{of['peak_memory_gb'].get('plain', 0):.1f}"]
        )
    head = ["backbone", "precision", "side", "batch", "plain, images/s"]
    return head + [f"{name}, times plain" for name in names] + ["plain, TFLOP/s", "peak GB"], rows


if __name__ == "__main__":
    main()
