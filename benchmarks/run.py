"""How fast the real train_base.py is, beside its own step on data that is already on the device.

    python -m benchmarks.run                       # about half an hour on two cores
    python -m benchmarks.run --device cuda         # resnet50 fp16, batch 8 and 32, crops drawn
    python -m benchmarks.run --quick               # under a minute: whether it runs

The run and the step alone take turns, each in a process of its own, over drawn pictures of
1920x1080 pixels; their ratio, of each turn, is the figure that counts. Crops are drawn as in
training. The step alone takes the same ones, but has seen each before: what a new shape costs is
the run's alone, and is said by itself, too. On a CPU, which searches no kernels, crops are of one
size unless --crop-size says otherwise. The rest: the share of time spent waiting for data,
augmentation's part of a step, how long training stands still for a checkpoint, from start to first
step, and how listing and pairing grow with the number of files.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.common import arguments, draw_data, machine, said_of, spread, table, write
from dataset.sampler import crop_of_step
from training.option_groups import default_workers

ROOT = Path(__file__).resolve().parents[1]
SEED = 0  # of the run: its crops are the step's, too
RATIOS = ("loop_over_model", "with_workers_over_model")


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "benchmarks/results/run.json")
    parser.add_argument(
        "--crop-size",
        type=int,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="as of train_base.py (default: 256 512 on a GPU, 256 256 on a CPU)",
    )
    parser.add_argument("--names", type=int, nargs="*", help="how many file names to list")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        child(json.loads(options.child))
        return
    device = torch.device(options.device)
    quick = options.quick
    folder = draw_data(options.data, 4 if quick else 16)
    # More foregrounds than are seen: at an epoch's end, the next step would share the processor
    # with the writing of a checkpoint.
    measured = list(cases(device, quick))
    for case in measured:
        case["crop"] = options.crop_size or case["crop"]
    samples = max((_steps(of) + 1) * of["batch"] for of in measured)
    epoch, loops = link_many(samples, folder), []
    try:
        for case in measured:
            loops.append(measure(case, epoch, options, 1 if quick else 5))
            print(line(loops[-1]), flush=True)
    finally:
        shutil.rmtree(epoch)
    names = options.names or ([200] if quick else [1_000, 100_000, 1_000_000])
    listing = [list_names(count, folder, options) for count in names]
    pairs = 100 if quick else 240_000
    first_step = start_with_many(pairs, folder, options)
    print(table(*report(loops)))
    print(
        table(
            ["names", "seconds to list and pair", "MB that take"],
            [[of["names"], f"{of['seconds']:.1f}", f"{of['mb']:.0f}"] for of in listing],
        )
    )
    print(f"from start to first step, {pairs} pairs: {first_step:.1f} s")
    figures = {
        "loop_over_model": statistics.median(of["loop_over_model"]["median"] for of in loops),
        "waiting_share": statistics.median(of["waiting_share"] for of in loops),
        "cases": loops,
        "listing": listing,
        "pairs": pairs,
        "start_to_first_step_s": first_step,
    }
    write(options.json, {"machine": machine(device), "quick": quick, **figures})


def cases(device: torch.device, quick: bool) -> Iterator[dict]:
    """What is run: backbone, precision, least and largest side of the crops, batch, and the steps
    that are measured behind those that warm up."""
    names = ("backbone", "precision", "crop", "batch", "warm_up", "steps")
    if quick:
        rows: list[tuple] = [("mobilenetv2", "fp32", [64, 128], 2, 2, 4)]
    elif device.type == "cuda":
        rows = [("resnet50", "fp16", [256, 512], batch, 30, 150) for batch in (8, 32)]
    else:
        rows = [(name, "fp32", [256, 256], 4, 3, 12) for name in ("mobilenetv2", "resnet50")]
    for row in rows:
        yield dict(zip(names, row, strict=True))


def _steps(case: dict) -> int:
    """Of a whole run: behind those that are measured as many as all workers read ahead, or the
    last ones measured would share the cores with none of them."""
    return _last(case) + 2 * default_workers() + 1


def measure(case: dict, folder: Path, options: argparse.Namespace, rounds: int) -> dict:
    """The run beside its step alone; and on a CPU, where workers are not the default, with them."""
    ratios, with_workers, runs = [], [], []
    whole = {"what": "run", "device": options.device, "data": str(folder.resolve()), **case}
    for _ in range(rounds):
        alone = start_child({"what": "model", "device": options.device, **case})
        run = start_child(whole)
        ratios.append(run["images_per_s"] / alone["images_per_s"])
        runs.append({**run, "model_images_per_s": alone["images_per_s"]})
        if options.device == "cpu" and not options.quick:
            other = start_child({**whole, "workers": default_workers()})
            with_workers.append(other["images_per_s"] / alone["images_per_s"])
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    result = {**case, "loop_over_model": spread(ratios), **middle}
    return result | ({"with_workers_over_model": spread(with_workers)} if with_workers else {})


def start_child(what: dict) -> dict:
    command = [sys.executable, "-m", "benchmarks.run", "--child"]
    command.append(json.dumps({**what, "started": time.time()}))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{what} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------------------
# In a process of its own


def child(what: dict) -> None:
    result = {"model": model_alone, "run": whole_run, "list": listed}[what["what"]](what)
    print("\n" + json.dumps(result))


def model_alone(what: dict) -> dict:
    """The step as the program takes it, on pictures that are on the device, of the sizes that the
    run has at the steps which are measured, each seen before."""
    from benchmarks.step import VARIANTS, program, step_of
    from common.machine import keep_memory

    device = torch.device(what["device"])
    torch.backends.cudnn.benchmark = True
    VARIANTS["program"] = program(device)
    if device.type == "cpu":
        keep_memory()
    low, high = what["crop"]
    step = step_of("program", device, what["backbone"], what["precision"], high, what["batch"])
    sizes = [crop_of_step(number, SEED, (low, high)) for number in range(_last(what))]
    measured = sizes[what["warm_up"] :]
    for size in [*dict.fromkeys(measured), *sizes[: what["warm_up"]]]:
        step(size)
    _wait(device)
    began = time.perf_counter()
    for size in measured:
        step(size)
    _wait(device)
    return {"images_per_s": what["steps"] * what["batch"] / (time.perf_counter() - began)}


def _last(what: dict) -> int:
    """The last step that is measured."""
    return what["warm_up"] + what["steps"]


def new_shapes(ends: list[float], sizes: list[tuple[int, int]], what: dict) -> dict[str, float]:
    """What steps of a size that was not seen before take longer than the median of the others: in
    the mean of the whole run, its first step excepted, and as a share of the measured steps' time.
    ends: when each step was taken, in seconds; sizes: (height, width) of its crops."""
    taken = [later - earlier for earlier, later in pairwise(ends)]
    new = [size not in sizes[:number] for number, size in enumerate(sizes) if number]
    known = [seconds for seconds, of in zip(taken, new, strict=True) if not of]
    usual = statistics.median(known) if known else 0.0
    more = [max(0.0, s - usual) if of else 0.0 for s, of in zip(taken, new, strict=True)]
    within = slice(what["warm_up"] - 1, _last(what) - 1)
    return {
        "new_shapes": sum(new),
        "new_shape_s": sum(more) / max(1, sum(new)),
        "new_shapes_share": sum(more[within]) / (sum(taken[within]) or 1.0),
    }


def whole_run(what: dict) -> dict:
    """train_base.main, with clocks around its parts; nothing else of it is changed."""
    import train_base
    from dataset import augmentation, sample_loader
    from training.guarded_optimizer import GuardedOptimizer
    from training.saving import Saver

    device = torch.device(what["device"])
    last = _last(what)
    at: dict[int, float] = {}
    ends: list[float] = []
    sizes: list[tuple[int, int]] = []
    spent = {"waiting": 0.0, "augment": 0.0, "stall": 0.0}
    measuring = False

    watch, save, augment, batches = (
        GuardedOptimizer.check_later,
        Saver.save,
        augmentation.augment,
        sample_loader.batches,
    )

    def watched(self: GuardedOptimizer, step: int, batches: list[dict]) -> None:
        nonlocal measuring
        watch(self, step, batches)
        ends.append(time.perf_counter())
        sizes.append(tuple(batches[0]["size"]))
        if step in (1, what["warm_up"], last):
            _wait(device)
            at[step] = time.perf_counter()
            at[-step] = time.time()
        measuring = what["warm_up"] <= step < last

    def saved(self: Saver, *arguments: object) -> None:
        began = time.perf_counter()
        save(self, *arguments)
        spent["stall"] = time.perf_counter() - began

    def augmented(*arguments: object) -> object:
        if not measuring:
            return augment(*arguments)
        _wait(device)  # which makes the run slower where there is a GPU, if by little
        began = time.perf_counter()
        result = augment(*arguments)
        _wait(device)
        spent["augment"] += time.perf_counter() - began
        return result

    def waited(*arguments: object) -> Iterator[dict]:
        iterator = batches(*arguments)
        try:
            while True:
                began = time.perf_counter()
                batch = next(iterator, None)
                spent["waiting"] += (time.perf_counter() - began) * measuring
                if batch is None:
                    return
                yield batch
        finally:
            iterator.close()

    GuardedOptimizer.check_later, Saver.save, sample_loader.batches = watched, saved, waited
    if device.type == "cpu":
        augmentation.augment = augmented
    words = ["--dataset-dir", what["data"], "--model-backbone", what["backbone"]]
    words += ["--precision", what["precision"], "--batch-size", what["batch"]]
    words += ["--crop-size", *what["crop"], "--device", what["device"], "--seed", SEED]
    words += ["--max-steps", _steps(what), "--epoch-end", 10**6]
    words += ["--log-valid-interval", 10**9, "--checkpoint-interval", 10**9]
    words += ["--model-name", "benchmark", "--overwrite"]
    if "workers" in what:
        words += ["--num-workers", what["workers"]]
    here = Path.cwd()
    scratch = Path(what["data"]) / "scratch"
    scratch.mkdir(exist_ok=True)
    os.chdir(scratch)
    try:
        if train_base.main([str(word) for word in words]):
            raise RuntimeError("the run ended with an error; see above")
    finally:
        os.chdir(here)
        shutil.rmtree(scratch)
    seconds = at[last] - at[what["warm_up"]] if what["steps"] else float("nan")
    return {
        "images_per_s": what["steps"] * what["batch"] / seconds,
        "waiting_share": spent["waiting"] / seconds,
        "augment_share": spent["augment"] / seconds,
        "checkpoint_stall_s": spent["stall"],
        "start_to_first_step_s": at[-1] - what["started"],
        **new_shapes(ends, sizes, what),
    }


def listed(what: dict) -> dict:
    """Lists and pairs a data set, and opens no picture but to read headers."""
    from dataset.folders import data_folders, open_split

    before = _peak_mb()
    began = time.perf_counter()
    opened = open_split(data_folders("", Path(what["data"]), print), "train")
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "mb": _peak_mb() - before, "foregrounds": len(opened[0])}


def _peak_mb() -> float:
    """The most memory that this process has held. Not getrusage's, which begins with what its
    parent held; NaN where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")]
    return peaks[0] if peaks else float("nan")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------------------------------------------
# Many files: hard links to the few that were drawn


def link_many(pairs: int, folder: Path) -> Path:
    target = folder / f"many-{pairs}"
    if target.exists():
        shutil.rmtree(target)
    for kind in ("fgr", "pha"):
        sources = sorted((folder / "train" / kind).glob("*.jpg"))
        for number in range(pairs):
            place = target / f"train/{kind}/{number // 1000:04}"
            if number % 1000 == 0:
                place.mkdir(parents=True)
            os.link(sources[number % len(sources)], place / f"{number % 1000:04}.jpg")
    for kind, where in (("valid", "valid"), ("backgrounds", "backgrounds")):
        shutil.copytree(folder / kind, target / where, copy_function=os.link)
    return target


def list_names(count: int, folder: Path, options: argparse.Namespace) -> dict:
    target = link_many(count // 2, folder)
    try:
        what = {"what": "list", "data": str(target.resolve())}
        start_child(what)  # once, so that the names are in the system's cache
        return {"names": count, **start_child(what)}
    finally:
        shutil.rmtree(target)


def start_with_many(pairs: int, folder: Path, options: argparse.Namespace) -> float:
    """Seconds from the start of Python to the end of the first step, files cached."""
    target = link_many(pairs, folder)
    case = next(cases(torch.device(options.device), quick=True))
    what = {"what": "run", "device": options.device, "data": str(target.resolve()), **case}
    try:
        return [start_child(what)["start_to_first_step_s"] for _ in range(2)][-1]
    finally:
        shutil.rmtree(target)


def line(of: dict) -> str:
    return (
        f"{of['backbone']} {of['precision']} {of['batch']} of {sides(of)}: "
        f"{of['loop_over_model']['median']:.3f} of the step alone"
    )


def sides(of: dict) -> str:
    low, high = of["crop"]
    return str(low) if low == high else f"{low} to {high}"


def report(loops: list[dict]) -> tuple[list[str], list[list[str]]]:
    head = ["backbone", "precision", "side", "batch", "step alone, images/s", "run, images/s"]
    head += ["run over step", "waiting for data", "augmenting", "stall at a checkpoint, s"]
    head += ["more at a new shape, s", "new shapes' share"]
    head += ["with workers over step"] * any("with_workers_over_model" in of for of in loops)
    rows = []
    for of in loops:
        ratio, *others = [said_of(of[name], 3) for name in RATIOS if name in of]
        rows.append(
            [of["backbone"], of["precision"], sides(of), of["batch"]]
            + [f"{of[name]:.2f}" for name in ("model_images_per_s", "images_per_s")]
            + [ratio]
            + [f"{of[name]:.1%}" for name in ("waiting_share", "augment_share")]
            + [f"{of['checkpoint_stall_s']:.3f}", f"{of['new_shape_s']:.2f}"]
            + [f"{of['new_shapes_share']:.1%}", *others]
        )
    return head, rows


if __name__ == "__main__":
    main()
