"""What the tests of a run share: a script's command line in this process, and what it says."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import train_base
import train_refine
from tests.support.scripts import error_line

AUTO = ["--model-last-checkpoint", "auto"]
SCRIPTS = {"train_base": train_base, "train_refine": train_refine}
CROPS = {"train_base": (32, 64), "train_refine": (64, 96)}  # tiny ones, of two sizes
for_both = pytest.mark.parametrize("script", list(SCRIPTS))


def words_of(script: str, data: Path) -> list[str]:
    """What is typed behind a training script's name, so that a step takes a moment."""
    words = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "run"]
    words += ["--crop-size", *CROPS[script], "--batch-size", 4, "--epoch-end", 8]
    return [str(word) for word in [*words, "--num-workers", 0, "--device", "cpu"]]


def run(data: Path, *arguments: object, status: int = 0, script: str = "train_base") -> None:
    words = [*words_of(script, data), *map(str, arguments)]
    assert SCRIPTS[script].main(words) == status


def error_of(capsys: pytest.CaptureFixture) -> str:
    return error_line(capsys, "train_base", "train_refine")


def weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(name, weights_only=True)


def same(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def has_little_shm(command: str, size: str) -> subprocess.CompletedProcess:
    """Runs a command where /dev/shm is so small; skips where this system does not let us."""
    mounted = f"mount -t tmpfs -o size={size} none /dev/shm 2>/dev/null || exit 77; {command}"
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mounted],
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("a /dev/shm of one's own needs root")
    return done


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
