"""How much faster two processes train than one, on processors, with one thread each.

    python -m benchmarks.scaling                   # about 5 minutes on two cores
    python -m benchmarks.scaling --quick           # whether it runs

The same global batch, shared out by torchrun over gloo, against one process without torchrun; the
two take turns. Neither has workers, so that a process has one core. Batch norm is measured both
ways: over all processes, as it is by default where each has few images, and over each one's own.
"""

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.common import arguments, draw_data, machine, said_of, spread, table, write

ROOT = Path(__file__).resolve().parents[1]
EVERY = 2  # steps between two speeds


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, "benchmarks/results/scaling.json").parse_args(argv)
    folder = draw_data(options.data, 4 if options.quick else 16).resolve()
    size, batch, steps, rounds = (32, 4, 6, 1) if options.quick else (128, 16, 12, 5)
    variants = {
        "1 process": (1, []),
        "2 processes, batch norm over both": (2, ["--sync-batchnorm"]),
        "2 processes, batch norm of each": (2, ["--no-sync-batchnorm"]),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (processes, words) in variants.items():
            rates[name].append(rate(folder, processes, words, size, batch, steps))
            print(f"{name}: {rates[name][-1]:.2f} images/s", flush=True)
    one = rates["1 process"]
    over_one = {
        name: spread([a / b for a, b in zip(values, one, strict=True)])
        for name, values in rates.items()
    }
    rows = [
        [name, f"{statistics.median(rates[name]):.2f}", said_of(of, 2)]
        for name, of in over_one.items()
    ]
    print(table(["mobilenetv2, fp32, one thread a process", "images/s", "times one process"], rows))
    about = {"machine": machine(torch.device("cpu")), "quick": options.quick}
    case = {"size": size, "batch": batch, "steps": steps, "rounds": rounds}
    write(options.json, {**about, **case, "images_per_s": rates, "over_one": over_one})


def rate(
    folder: Path, processes: int, words: list[str], size: int, batch: int, steps: int
) -> float:
    """Images a second of a run of train_base.py, the median of the speeds that it logs, but for
    the first."""
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += [str(ROOT / "train_base.py"), "--dataset-dir", str(folder), "--device", "cpu"]
    command += ["--model-backbone", "mobilenetv2", "--model-name", "run", "--num-workers", "0"]
    command += ["--crop-size", str(size), str(size), "--batch-size", str(batch), *words]
    command += ["--max-steps", str(steps), "--epoch-end", "1000000"]
    command += ["--log-train-loss-interval", str(EVERY), "--log-valid-interval", "1000000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
        events = EventAccumulator(str(scratch / "log/run"))
        events.Reload()
        return statistics.median(e.value for e in events.Scalars("run/images_per_s")[1:])
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
