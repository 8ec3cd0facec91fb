"""What the second stage costs, beside the base network at the full size and the guided filter.

    python -m benchmarks.refine
    python -m benchmarks.refine --backbones resnet50 --sizes HD --rounds 1
    python -m benchmarks.refine --quick            # a minute of a processor: whether it runs
    python -m benchmarks.refine --device cuda      # frames a second in fp16, too

1920x1080 and 3840x2160, one picture at a time: MattingRefine with its coarse size at 1/4 and 1/8
and 80,000 and 320,000 pixels refined, MattingBase at the full size, and predict.py's way for a
MattingBase (at 512, alpha led by the picture). Noise as pictures and no prevention of
oversampling, so that exactly so many pixels are refined. Each is measured in a process of its own,
which gives its peak memory, in turns; on a processor it is the processor's time of one thread.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import arguments, machine, said, spread, table, write
from common.choices import BACKBONES

SIZES = {"HD": (1080, 1920), "4K": (2160, 3840)}
QUICK = {"small": (288, 320)}
SETTINGS = [(scale, pixels) for scale in (1 / 4, 1 / 8) for pixels in (80_000, 320_000)]
FULL, FILTER = "base at the full size", "base at 512, guided filter"
MB_OF_PIXEL = 2.2e-3  # of the base at the full size, resnet50, fp32: 3243 MB at HD
PAPER = 60.0  # frames/s, HD, resnet50, 1/4 and 80,000 pixels, fp32, RTX 2080 Ti (Lin et al. 2021)
BAR = 0.1  # HD, resnet50, 1/4 and 80,000 pixels, over the base at the full size


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "benchmarks/results/refine.json")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns (default: 3)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), metavar="SIZE")
    parser.add_argument(
        "--backbones", nargs="+", choices=BACKBONES, default=["mobilenetv2", "resnet50"]
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    sizes, backbones = {name: SIZES[name] for name in options.sizes}, options.backbones
    if options.quick:
        sizes, backbones, options.rounds = QUICK, ["mobilenetv2"], 1
    cases = []
    for backbone in backbones:
        for name, size in sizes.items():
            cases += in_turns(backbone, name, size, options)
    print(table(*report(cases)))
    about = machine(torch.device(options.device))
    content = {"machine": about, "quick": options.quick, "paper_fps": PAPER, "cases": cases}
    write(options.json, content | {"hd_resnet50_over_full": bar(cases), "bar": BAR})


def ways() -> list[str]:
    return [way_of(*setting) for setting in SETTINGS] + [FILTER, FULL]


def way_of(scale: float, pixels: int) -> str:
    return f"1/{round(1 / scale)} + {pixels:,} pixels"


def in_turns(
    backbone: str, name: str, size: tuple[int, int], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """All ways for pictures of `size`, each in a fresh process in each of the rounds."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways()}
    for _ in range(options.rounds):
        for way in found:
            if way == FULL and size[0] * size[1] * MB_OF_PIXEL > free_mb():
                continue  # not measured: it would drive out what else runs here
            about = {"backbone": backbone, "size": size, "way": way, "device": options.device}
            command = [sys.executable, "-m", "benchmarks.refine", "--one", json.dumps(about)]
            root = Path(__file__).parents[1]
            run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
            found[way].append(json.loads(run.stdout.splitlines()[-1]))
            print(f"{backbone} {name} {way}: {found[way][-1]}", flush=True)
    return [
        {"backbone": backbone, "size": name, "way": way}
        | {key: [each[key] for each in of] for key in (of[0] if of else ())}
        for way, of in found.items()
    ]


def free_mb() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))


def measure(backbone: str, size: list[int], way: str, device: str) -> dict[str, float]:
    """One way, in this process: seconds and peak memory in MB of the process, or on a GPU frames a
    second in fp16 and peak memory in MB of the GPU."""
    from model import MattingBase, MattingRefine
    from prediction.predictor import Matter

    torch.set_num_threads(1)
    torch.manual_seed(0)
    on_gpu = device.startswith("cuda")
    src, bgr = torch.rand(2, 1, 3, *size, device=device)
    layout = torch.channels_last if on_gpu else torch.contiguous_format
    if way in (FULL, FILTER):
        base = MattingBase(backbone).eval()
        model: Any = base.to(device, memory_format=layout)  # type: ignore[call-overload]
        work = Matter(base, device) if way == FILTER else model
    else:
        scale, pixels = next(each for each in SETTINGS if way_of(*each) == way)
        refine = MattingRefine(backbone, scale, refine_sample_pixels=pixels).eval()
        refine.refine_prevent_oversampling = False
        work = refine.to(device, memory_format=layout)  # type: ignore[call-overload]
    with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=on_gpu):
        work(src, bgr)
        if on_gpu:
            return on_device(work, src, bgr)
        began = time.process_time()
        work(src, bgr)
        seconds = time.process_time() - began
    return {"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def on_device(work: Any, src: torch.Tensor, bgr: torch.Tensor, count: int = 50) -> dict[str, float]:
    for _ in range(10):
        work(src, bgr)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        work(src, bgr)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / count
    mb = torch.cuda.max_memory_allocated() / 1e6
    return {"seconds": seconds, "frames_a_second": 1 / seconds, "mb": mb}


def bar(cases: list[dict[str, Any]]) -> float | None:
    """The median over turns of what HD, resnet50 takes at 1/4 with 80,000 pixels, over the base."""
    of = {(c["backbone"], c["size"], c["way"]): c.get("seconds", []) for c in cases}
    refined = of.get(("resnet50", "HD", way_of(1 / 4, 80_000)), [])
    whole = of.get(("resnet50", "HD", FULL), [])
    ratios = [one / other for one, other in zip(refined, whole, strict=False)]
    return statistics.median(ratios) if ratios else None


def report(cases: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["picture", "backbone", "", "seconds, median (least .. most)", "peak memory, MB"]
    rows = []
    for case in cases:
        cells = ["not measured", ""]
        if case.get("seconds"):
            cells = [said(case["seconds"], 1, 2), f"{spread(case['mb'])['median']:.0f}"]
        if "frames_a_second" in case:
            cells[0] += f", {spread(case['frames_a_second'])['median']:.1f} frames/s"
        rows.append([case["size"], case["backbone"], case["way"], *cells])
    return head, rows


if __name__ == "__main__":
    main()
