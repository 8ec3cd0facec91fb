"""Runs that are killed, asked to stop, or out of room, and what is left of them: nothing lost,
nothing half done, and in the end the same bits as a run that was never stopped."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.processes import STOP_SIGNALS
from tests.support import ROOT
from tests.support.drawn import make_data
from tests.support.running import AUTO, SCRIPTS, for_both, words_of
from training import checkpoint
from training.checkpoint_folder import CheckpointFolder

pytestmark = pytest.mark.slow
STEPS = 24


class Zygote:
    """Starts runs in a fraction of a second; see zygote.py."""

    def __init__(self, script: str, data: Path) -> None:
        self.script, self.data = script, data
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/support/zygote.py")],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, folder: Path, *words: object, **limits: int) -> int:
        argv = [*words_of(self.script, self.data), "--batch-size", 2, "--max-steps", STEPS]
        argv += ["--checkpoint-interval", 1, *AUTO, *words]
        request = {"argv": [str(word) for word in argv], "folder": str(folder), **limits}
        request["script"] = self.script
        request["output"] = str(folder / "output.txt")
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """The exit status of the run that was started last, when it has ended."""
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module", params=SCRIPTS)
def zygote(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Zygote]:
    zygote = Zygote(request.param, make_data(tmp_path_factory.mktemp("survival")))
    yield zygote
    zygote.process.stdin.close()
    zygote.process.wait(timeout=60)


@pytest.fixture(scope="module")
def never_stopped(
    zygote: Zygote, tmp_path_factory: pytest.TempPathFactory
) -> tuple[checkpoint.Checkpoint, float]:
    """The last checkpoint of a run that nothing happened to, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    zygote.start(folder, "--num-workers", 0)
    assert zygote.end() == 0, (folder / "output.txt").read_text()
    return checkpoint.read_checkpoint(folder / "checkpoint/run/epoch-7.pth"), (
        time.monotonic() - began
    )


def assert_same(one: object, other: object) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for each, counterpart in zip(one, other, strict=True):
            assert_same(each, counterpart)
    else:
        assert one == other


def assert_ended_alike(folder: Path, whole: checkpoint.Checkpoint) -> None:
    ended = checkpoint.read_checkpoint(folder / "checkpoint/run/epoch-7.pth")
    assert ended.state["step"] == STEPS
    assert_same(ended.weights, whole.weights)
    for name in ("optimizer", "scaler", "step", "data"):
        assert_same(ended.state[name], whole.state[name])


def assert_all_whole(folder: Path) -> int:
    """Every checkpoint that is there can be read and has all its parts; the newest one's step."""
    found = CheckpointFolder(folder / "checkpoint/run").checkpoints()
    for path in found:
        read = checkpoint.read_checkpoint(path)
        assert read.state is None or read.state["step"] == checkpoint.steps_of(path.name, 3)
    assert not found or checkpoint.state_path(found[-1]).exists()
    return checkpoint.steps_of(found[-1].name, 3) if found else 0


def test_killed_at_any_instant(
    zygote: Zygote, never_stopped: tuple[checkpoint.Checkpoint, float], tmp_path: Path
) -> None:
    """60 kills at least, in 5 runs at least; each run continues until it has all of its steps. A
    third of that for the second stage, whose parts are the same."""
    whole, seconds = never_stopped
    rng, counts = random.Random(4), Counter()
    kills, runs, in_saves = (60, 5, 10) if zygote.script == "train_base" else (20, 2, 3)
    while counts["kills"] < kills or counts["runs"] < runs:
        folder = tmp_path / str(counts["runs"])
        folder.mkdir()
        checkpoints = folder / "checkpoint/run"
        for start in range(1000):
            pid = zygote.start(folder, "--num-workers", rng.choice([0, 0, 1, 2]))
            until = time.monotonic() + rng.uniform(0, seconds / 2)
            in_save = rng.random() < 0.4 and start % 3 != 0
            while time.monotonic() < until and not (
                in_save and any(checkpoints.glob("*.partial-*"))
            ):
                time.sleep(0.002)
            if in_save:
                time.sleep(rng.uniform(0, 0.1))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = zygote.end()
            assert status in (0, -signal.SIGKILL), (folder / "output.txt").read_text()
            assert_all_whole(folder)
            counts["in a save"] += any(checkpoints.glob("*.partial-*"))
            if status == 0:
                break
            counts["kills"] += 1
        assert not list(checkpoints.glob("*.partial-*"))
        assert_ended_alike(folder, whole)
        counts["runs"] += 1
    print("killed:", dict(counts))
    assert counts["in a save"] >= in_saves


def handled(pid: int) -> bool:
    """Whether a process has its own handler for SIGTERM; before that no program can help it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to look at")
def test_asked_to_stop_at_any_instant(
    zygote: Zygote, never_stopped: tuple[checkpoint.Checkpoint, float], tmp_path: Path
) -> None:
    """30 signals, in start-up and validation too: 128 + the signal, and the way to go on. A third
    of that for the second stage."""
    whole, seconds = never_stopped
    rng, counts = random.Random(5), Counter()
    while counts["signals"] < (30 if zygote.script == "train_base" else 10):
        folder = tmp_path / str(counts["runs"])
        folder.mkdir()
        for _ in range(1000):
            before = assert_all_whole(folder)
            words = ["--num-workers", rng.choice([0, 1]), "--log-valid-interval", 2]
            pid = zygote.start(folder, *words, "--checkpoint-interval", 1000)
            number = rng.choice(STOP_SIGNALS)
            while not handled(pid):
                time.sleep(0.001)
            time.sleep(rng.uniform(0, seconds / 4))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            status, told = zygote.end(), (folder / "output.txt").read_text()
            ended = "saved checkpoint/run/epoch-7.pth" in told  # and then it no longer listens
            if status == 0 or (status == -number and ended):
                break
            assert status == 128 + number, told
            last = told.strip().splitlines()[-1]
            assert last.startswith("stopped; ") and "--model-last-checkpoint auto" in last, told
            # Once it trains it saves the step that it ends; before, there is nothing to save.
            saved = "\nsaved checkpoint/run/" in told
            assert ("stopped; to continue: " in last) == saved, told
            assert (assert_all_whole(folder) > before) == saved, told
            counts["signals"] += 1
            counts["in start-up or the first validation"] += not saved
        assert_ended_alike(folder, whole)
        counts["runs"] += 1
    print("signals:", dict(counts))
    assert 0 < counts["in start-up or the first validation"] < counts["signals"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """100 MB, where one may be mounted: room for one checkpoint of 63 MB, not for two."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(
    zygote: Zygote, never_stopped: tuple[checkpoint.Checkpoint, float], small_disk: Path
) -> None:
    zygote.start(small_disk, "--num-workers", 0)
    assert zygote.end() == 2
    told = (small_disk / "output.txt").read_text().strip().splitlines()
    assert "could not be written (No space left on device): it needs " in told[-2]
    assert " MB are free in checkpoint/run" in told[-2]
    assert told[-1].startswith("to continue: ")
    folder = small_disk / "checkpoint/run"
    assert assert_all_whole(small_disk) == 1
    left = {path.name for path in folder.glob("*.pth*")}
    assert left == {"epoch-0-iter-1.pth", "epoch-0-iter-1.state.pth"}

    taken = shutil.disk_usage(small_disk).free - 30_000_000
    (small_disk / "filler").write_bytes(bytes(taken))
    zygote.start(small_disk, "--num-workers", 0)
    assert zygote.end() == 2
    assert "a checkpoint takes 6" in (small_disk / "output.txt").read_text()  # found at the start

    subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
    zygote.start(small_disk, "--num-workers", 0)
    assert zygote.end() == 0
    assert_ended_alike(small_disk, never_stopped[0])


def test_a_limit_on_file_sizes(zygote: Zygote, tmp_path: Path) -> None:
    """As a quota would: the second of the two files does not fit, the first is taken back."""
    zygote.start(tmp_path, "--num-workers", 0, file_size=25_000_000)
    assert zygote.end() == 2
    told = (tmp_path / "output.txt").read_text()
    assert "epoch-0-iter-1.state.pth could not be written (File too large)" in told
    assert not list(tmp_path.glob("checkpoint/run/*.pth*"))


@for_both
def test_two_starts_at_once(tmp_path: Path, data: Path, script: str) -> None:
    command = [sys.executable, str(ROOT / f"{script}.py"), *words_of(script, data)]
    command += ["--batch-size", "2", "--epoch-end", "1000"]
    runs = [
        subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    until = time.monotonic() + 120
    while all(run.poll() is None for run in runs):
        assert time.monotonic() < until
        time.sleep(0.1)
    refused, alive = sorted(runs, key=lambda run: run.poll() is None)
    assert refused.returncode == 2
    assert "alive in checkpoint/run" in refused.communicate()[1]
    while not list(tmp_path.glob("checkpoint/run/*.pth")):
        assert alive.poll() is None
        time.sleep(0.1)
    alive.send_signal(signal.SIGTERM)
    assert "to continue" in alive.communicate(timeout=60)[1]
    assert alive.returncode == 128 + signal.SIGTERM
