"""Packages that are not there, or for which memory is short, are one line."""

import os
import subprocess
import sys

import pytest

from common.loading import loading, memory_limit
from tests.support import ROOT

SCRIPTS = ["train_base", "evaluate", "predict", "export", "check_data", "pack_data"]
WORDS = {
    "train_base": [],
    "evaluate": ["--pred-dir", "a", "--true-dir", "b"],
    "predict": ["--model-checkpoint", "a", "--src", "b", "--bgr", "c", "--output", "d"],
    "export": ["--model-checkpoint", "a", "--format", "torchscript", "--output", "d"],
    "check_data": [],
    "pack_data": ["a", "b"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_without_the_packages_is_told_what_to_type(script: str) -> None:
    bare = "import runpy, sys; sys.argv = sys.argv[1:]; "  # -S: without site-packages
    bare += "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", bare, script, *WORDS[script]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"{script}.py: error: this Python ({sys.executable}) has no ")
    assert done.stderr.endswith("pip install -r requirements.txt\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment", name=None), "memory is too short"),
        (MemoryError(), "memory is too short to begin"),
        (ImportError("undefined symbol: x", name="torchvision._C"), "torchvision._C cannot be"),
    ],
)
def test_what_cannot_be_loaded(capsys: pytest.CaptureFixture, error: Exception, words: str) -> None:
    with pytest.raises(SystemExit) as ended, loading("x.py"):
        raise error
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"x.py: error: {words}")


@pytest.mark.parametrize("name", ["training.nowhere", "data_path", None])
def test_what_is_ours_is_an_error_of_ours(name: str | None) -> None:
    with pytest.raises(ImportError), loading("x.py"):
        raise ImportError("cannot import name", name=name)


def test_a_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (2 * 10**9, -1))
    assert memory_limit() == " (ulimit -v allows 2.00 GB; raise it)"
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (resource.RLIM_INFINITY, -1))
    assert memory_limit() == ""
