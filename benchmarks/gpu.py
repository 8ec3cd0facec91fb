"""Everything that is claimed of a GPU, measured on a machine with one in at most 8 minutes.

    python -m benchmarks.gpu                       # all of it, into log/gpu
    python -m benchmarks.gpu --only step shapes    # these parts alone
    python -m benchmarks.gpu --quick               # whether it runs, not what is true

Each part is a process of its own that is ended when its seconds are over. A part that fails stops
no other. What is found is written behind every part, so that a run which is cut off keeps what it
had. The most important part comes first.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import add_data_and_quick, table
from common.cli import Parser
from common.files import write_bytes

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 480  # seconds of the whole, where --seconds says no other
GRACE = 5  # seconds that a part has to end in, once it is told to


@dataclass(frozen=True)
class Part:
    """One measurement. seconds: of the budget. where: its function, a module of gpu_parts and a
    name. title: of its table."""

    seconds: int
    where: str
    title: str


FIRST = "machine"  # measured in any case: figures belong to a machine
PARTS = {
    FIRST: Part(20, "step.machine", "The machine"),
    "data": Part(18, "step.data", "The pictures"),
    "tests": Part(80, "runs.tests", "pytest -m cuda"),
    "waits": Part(25, "step.waits", "Which phase of a step waits for the device (ms of the host)"),
    "step": Part(45, "step.step", "The step"),
    "shapes": Part(25, "step.shapes", "Crop shapes, with cudnn.benchmark"),
    "shapes-plain": Part(20, "step.shapes_plain", "Crop shapes, without cudnn.benchmark"),
    "variants": Part(50, "variants.variants", "The step with a choice undone, in turns"),
    "precision": Part(
        25, "numbers.precision", "How far off the numbers are of float64 on the processor"
    ),
    "run-8": Part(40, "runs.run_8", "train_base.py, batch 8"),
    "run-32": Part(40, "runs.run_32", "train_base.py, batch 32"),
    "checkpoint": Part(18, "runs.checkpoint", "How long training stands still for a checkpoint"),
    "graph": Part(20, "step.graph", "Forward, loss and backward as one CUDA graph"),
    "resume": Part(30, "numbers.resume", "A run that is stopped and continued, --deterministic"),
    "memory": Part(15, "runs.memory", "What is said when memory runs out"),
}


def main(argv: list[str] | None = None) -> int:
    parser = arguments()
    options = parser.parse_args(argv)
    if options.part:
        return within(options)
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device that torch can use here; see nvidia-smi")
    names = [n for n in PARTS if not options.only or n in [FIRST, *options.only]]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.log").unlink(missing_ok=True)
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    until = time.monotonic() + options.seconds - GRACE
    found: dict[str, Any] = {"command": command(options), "quick": options.quick, "parts": {}}
    try:
        for name in names:
            share = PARTS[name].seconds * options.seconds / BUDGET
            seconds = min(share, until - time.monotonic())
            # Written down beforehand, for a run that is cut off within the part.
            of = found["parts"][name] = {"status": "cut off", "seconds": 0.0, "cases": []}
            if seconds < share / 2:
                of["status"] = "no time was left"
            else:
                measure(name, seconds, options, of)
            keep(options.out, found)
            print(f"{name}: {of['status']}, {of['seconds']:.0f} s", flush=True)
    finally:
        keep(options.out, found)
        signal.signal(signal.SIGTERM, before)
    print("\n" + report(found))
    print(f"wrote {options.out / 'gpu.json'}, gpu.md and gpu.log")
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = Parser(
        "benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts: " + ", ".join(PARTS),
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("log/gpu"),
        metavar="DIR",
        help="where gpu.json, gpu.md and gpu.log go (default: log/gpu)",
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), metavar="PART", help="these parts alone"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=BUDGET,
        metavar="S",
        help="for all parts together; what each may take is a fixed share of it "
        f"(default: {BUDGET})",
    )
    add_data_and_quick(parser)
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--findings", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser


def command(options: argparse.Namespace) -> str:
    words = ["python -m benchmarks.gpu"]
    words += ["--only", *options.only] if options.only else []
    words += [f"--seconds {options.seconds:g}"] if options.seconds != BUDGET else []
    return " ".join(words + ["--quick"] * options.quick)


# ------------------------------------------------------------------------------------------------
# A part, seen from outside


def measure(name: str, seconds: float, options: argparse.Namespace, of: dict[str, Any]) -> None:
    """Runs a part, for at most so long, and writes down in `of` what it found and how it ended."""
    findings = (options.out / "gpu.part").resolve()
    findings.write_text("")
    words = words_of(name, findings, seconds, options)
    began = time.monotonic()
    output = options.out / "gpu.log"
    try:
        with output.open("a") as log:
            log.write(f"\n==== {name}\n")
            log.flush()
            start = log.tell()
            with group(words, log) as process:
                try:
                    code = process.wait(seconds)
                    of["status"] = "done" if code == 0 else "failed: " + last_line(output, start)
                except subprocess.TimeoutExpired:
                    of["status"] = f"not through after {seconds:.0f} s"
    finally:
        of["seconds"] = time.monotonic() - began
        for line in findings.read_text().splitlines():
            with contextlib.suppress(ValueError):  # one that was cut off as it was written
                one = json.loads(line)
                if "not here" in one:
                    of["status"] = f"not possible here: {one['not here']}"
                else:
                    of["cases"].append(one)
        findings.unlink()


def words_of(name: str, findings: Path, seconds: float, options: argparse.Namespace) -> list[str]:
    """Of a part's process: where its findings go, and at what time it ends."""
    words = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--findings", str(findings)]
    words += ["--data", str(options.data.resolve()), "--until", str(time.time() + seconds)]
    return words + ["--quick"] * options.quick


@contextlib.contextmanager
def group(words: list[str], log: Any) -> Iterator[subprocess.Popen]:
    """A process that is ended, with all that it has started, where it is left."""
    process = subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield process
    finally:
        # torchrun, which may be among them, needs a moment to end the processes of its own.
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + GRACE
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
                while time.monotonic() < until:
                    process.poll()
                    os.killpg(process.pid, 0)  # raises where none is left
                    time.sleep(0.05)
        process.wait()


def last_line(path: Path, start: int) -> str:
    """The last line that is not empty behind byte `start`; where a traceback ends, its error."""
    with path.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")[:300]


# ------------------------------------------------------------------------------------------------
# A part, within its own process


def within(options: argparse.Namespace) -> int:
    from benchmarks.gpu_parts.findings import Findings, NotHereError

    findings = Findings(options.findings, options.data, options.quick, options.until)
    module, name = PARTS[options.part].where.split(".")
    try:
        getattr(import_module(f"benchmarks.gpu_parts.{module}"), name)(findings)
    except (NotHereError, ModuleNotFoundError) as error:
        traceback.print_exc()
        findings.not_here(str(error))
    return 0


# ------------------------------------------------------------------------------------------------
# What is written


def keep(folder: Path, found: dict[str, Any]) -> None:
    """Writes both files anew, each whole or not at all."""
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    write_bytes(folder / "gpu.json", text.encode())
    write_bytes(folder / "gpu.md", report(found).encode())


def report(found: dict[str, Any]) -> str:
    """In Markdown: on what, by which command, each part's table, and how each part ended."""
    parts = found["parts"]
    on = "; ".join(
        f"{of['case']} {cell(of['figures']['is'])}"
        for of in parts.get(FIRST, {}).get("cases", ())
        if "is" in of["figures"]
    )
    lines = [f"    {found['command']}", "", f"On: {on or 'a machine that could not be asked'}."]
    lines += ["", "With --quick: whether it runs, not what is true."] if found["quick"] else []
    for name, of in parts.items():
        if name != FIRST and of["cases"]:
            lines += ["", f"### {PARTS[name].title}", "", cases_table(name, of["cases"])]
    rows = [[name, of["status"], f"{of['seconds']:.0f}"] for name, of in parts.items()]
    lines += ["", "### How each part ended", "", table(["part", "end", "seconds"], rows)]
    return "\n".join(lines) + "\n"


def cases_table(name: str, cases: list[dict[str, Any]]) -> str:
    """A line a case, a column a figure."""
    head = list(dict.fromkeys(figure for of in cases for figure in of["figures"]))
    rows = [[of["case"], *[cell(of["figures"].get(figure)) for figure in head]] for of in cases]
    return table([name, *head], rows)


def cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(cell(each) for each in value)
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
