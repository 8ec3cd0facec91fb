"""Whole programs: the tests, runs of train_base.py, a checkpoint, and memory that is short."""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from benchmarks.gpu import GRACE, ROOT
from benchmarks.gpu_parts.common import Training, batch_of, host_seconds
from benchmarks.gpu_parts.findings import Findings, NotHereError
from benchmarks.gpu_parts.numbers import scratch
from benchmarks.run import link_many

EVERY = 10  # steps between two speeds
ROOM = 10**9  # bytes that are left to a run which needs more


def tests(found: Findings) -> None:
    """The tests that need CUDA."""
    if importlib.util.find_spec("pytest") is None:
        raise NotHereError("pytest is not installed")
    files = [path for path in (ROOT / "tests").glob("test_*.py") if "mark.cuda" in path.read_text()]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-m", "cuda", "--tb=short", "-rfE", "-q"]
        command += ["-p", "no:cacheprovider", f"--basetemp={folder}/tests"]
        command += ["-k", "augmenting_waits"] if found.quick else []
        if importlib.util.find_spec("xdist") and not found.quick:
            command += ["-n", "4"]
        done = subprocess.run(
            [*command, *map(str, sorted(files))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    print(done.stdout)
    lines = done.stdout.strip().splitlines() or ["pytest said nothing"]
    found.case("pytest -m cuda", status=done.returncode, said=lines[-1].strip("= "))
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            found.case(line.split(" - ")[0], said=line.partition(" - ")[2])
    if done.returncode:
        raise RuntimeError(lines[-1].strip("= "))


def run_8(found: Findings) -> None:
    _run(found, 8)


def run_32(found: Findings) -> None:
    _run(found, 32)


def _run(found: Findings, batch: int) -> None:
    """train_base.py as a user starts it, with the recipe's crops, over JPEGs of 1920x1080; it is
    asked to stop where its time is over. What it tells TensorBoard is what is measured."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # More than a GPU takes in that time: at the end of an epoch it would save.
    images = 400 if found.quick else 1000 * round(found.seconds_left())
    pictures = link_many(images, found.pictures())
    words = ["--dataset-dir", str(pictures.resolve()), "--model-backbone", "resnet50"]
    words += ["--batch-size", str(batch), "--device", "cuda", "--model-name", "run"]
    words += ["--log-train-loss-interval", str(EVERY), "--epoch-end", "1000"]
    if found.quick:
        words += ["--crop-size", "64", "96", "--num-workers", "2", "--max-steps", str(3 * EVERY)]
        words[words.index("resnet50")] = "mobilenetv2"
    try:
        with scratch() as folder:
            asked = time.time()
            process = subprocess.Popen([sys.executable, str(ROOT / "train_base.py"), *words])
            try:
                process.wait(max(0.0, found.seconds_left() - 2 * GRACE))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.5 * GRACE)
            status = process.poll()  # None where it has not ended: it is, with this part
            events = EventAccumulator(str(folder / "log/run"), size_guidance={"scalars": 0})
            events.Reload()
            tags = events.Tags()["scalars"]
            speeds, waiting, losses = (
                events.Scalars(tag) if tag in tags else []
                for tag in ("run/images_per_s", "run/waiting_share", "train/loss")
            )
    finally:
        shutil.rmtree(pictures)
    if not speeds:
        raise RuntimeError(f"train_base.py ended with {status}, before step {EVERY}")
    half = len(speeds) // 2
    late = [each.value for each in speeds[half:]]
    found.case(
        f"batch {batch}",
        status=status,
        steps=speeds[-1].step,
        s_to_the_first_speed=speeds[0].wall_time - asked,
        images_per_s=statistics.median(late),
        least=min(late),
        most=max(late),
        in_the_first_half=[each.value for each in speeds[: half : max(1, half // 4)]],
        waiting_for_data=statistics.fmean(each.value for each in waiting[half:]),
        loss=[losses[0].value, losses[-1].value],
    )


def checkpoint(found: Findings) -> None:
    """How long the call that saves takes, the step behind it beside one by itself, and whether the
    file holds the weights as they were when it was asked for, though they move meanwhile."""
    from model.weights_file import read_weights
    from training.saving import Saver

    training = Training("mobilenetv2" if found.quick else "resnet50")
    batch = batch_of(found.pictures(), 8, (64, 64) if found.quick else (256, 256))
    for _ in range(5):
        training.step(batch)
    by_itself = host_seconds(lambda: training.step(batch), 10)
    with scratch() as folder, Saver(training.device) as saver:
        for number in range(3):
            model, path = training.model, folder / f"epoch-{number}.pth"
            before = {name: value.cpu() for name, value in model.state_dict().items()}
            state = {"optimizer": training.update.optimizer.state_dict()}
            began = time.perf_counter()
            saver.save(path, model.state_dict(), state, lambda: None)
            stall = time.perf_counter() - began
            behind = host_seconds(lambda: training.step(batch))
            saver.wait()
            saved = read_weights(path).state_dict
            same = all(torch.equal(value, saved[name]) for name, value in before.items())
            found.case(
                f"checkpoint {number + 1}",
                stall_s=stall,
                step_behind_it_s=behind,
                step_by_itself_s=by_itself,
                s_until_on_disk=time.perf_counter() - began,
                MB=sum(each.stat().st_size for each in folder.iterdir()) / 1e6,
                pinned_MB=pinned_mb(),
                as_when_asked="yes" if same else "no",
            )
            for each in folder.iterdir():
                each.unlink()


def pinned_mb() -> float | None:
    """Pinned memory that torch holds on the host, where it says."""
    statistics_of = getattr(torch.cuda, "host_memory_stats", dict)()
    held = statistics_of.get("allocated_bytes.current")
    return None if held is None else held / 1e6


def python_path() -> str:
    """For a process of another current folder, which imports the program."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def memory(found: Findings) -> None:
    """Memory runs out within train_base.py: one line and status 2."""
    code = (
        "import sys, torch, train_base; torch.empty(1, device='cuda'); "
        "free, _ = torch.cuda.mem_get_info(); "
        f"ballast = torch.empty(max(0, free - {ROOM}), dtype=torch.uint8, device='cuda'); "
        "sys.exit(train_base.main(sys.argv[1:]))"
    )
    words = ["--dataset-dir", str(found.pictures().resolve()), "--model-backbone", "resnet50"]
    words += ["--crop-size", "512", "512", "--batch-size", "8" if found.quick else "64"]
    words += ["--device", "cuda", "--max-steps", "3", "--num-workers", "2", "--model-name", "run"]
    with scratch() as folder:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": python_path()},
        )
    print(done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"\S+: error: ", line)]
    found.case(
        "train_base.py", status=done.returncode, lines=len(lines), said=(errors or lines)[-1:]
    )
    if done.returncode != 2 or len(errors) != 1:
        raise RuntimeError(f"status {done.returncode}, {len(errors)} line(s) of an error")
