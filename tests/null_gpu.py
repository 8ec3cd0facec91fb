"""Runs scripts and snippets on a null GPU: torch's own CUDA code, with a device that does nothing.

In a test:

    from tests.null_gpu import needs_null_gpu, run_code, run_script

    @needs_null_gpu
    def test_a_run_ends(data, tmp_path):
        done = run_script(["train_base.py", "--dataset-dir", str(data), ...], tmp_path)
        assert done.returncode == 0, done.stderr

By hand, from the project's folder:

    python -m tests.null_gpu [--devices 2] [--memory 3e9] [--launch-us 5] train_base.py ...
    python -m tests.null_gpu -m benchmarks.step --device cuda --quick

tests/null_cuda/README.md says what a null GPU can show. Each case is a process of its own, forked
from one that has imported all already (tests/null_cuda/zygote.py), so it costs a second or two.
"""

import argparse
import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tests.null_cuda import build
from tests.support import ROOT


def _missing() -> str:
    """Why there can be no null GPU here; empty where there can be."""
    try:
        build.torch_folder()
    except build.BuildError as error:
        return str(error)
    return ""


needs_null_gpu = pytest.mark.skipif(bool(_missing()), reason=f"no null GPU: {_missing()}")


def run_script(
    argv: list,
    cwd: Path | str,
    devices: int = 1,
    memory: float | None = None,
    launch_us: float | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 120,
    processes: int = 1,
) -> subprocess.CompletedProcess:
    """Runs what `python argv...` would: a script of the project or -m and a module, in the folder
    `cwd`. devices: how many GPUs; memory: bytes of each (80e9); launch_us: microseconds that the
    host takes to queue an operation (0); env: to add to the environment. processes: how many, told
    of each other as torchrun would; the status is then that of the first that failed.
    Returns returncode (negative: a signal), stdout, stderr. Raises subprocess.TimeoutExpired.
    """
    common = build.settings(devices, memory, launch_us) | (env or {})
    environment = [common | words for words in _as_torchrun(processes)]
    return _zygote().run([str(word) for word in argv], Path(cwd), environment, timeout)


def run_code(source: str, cwd: Path | str | None = None, **named) -> dict:
    """What the Python code `source` prints last, as JSON, when it runs as run_script would run a
    script. It may import the project, tests/, and `from tests.null_cuda import counts`, whose
    docstring names what is counted. Fails with what was said where the status is not 0."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snippet.py"
        path.write_text(source)
        done = run_script([str(path)], cwd or folder, **named)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def _as_torchrun(processes: int) -> list[dict[str, str]]:
    """The environment that torchrun gives to each of so many processes on one machine."""
    if processes == 1:
        return [{}]
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "GROUP_WORLD_SIZE": 1,
        "TORCHELASTIC_RUN_ID": "null",
        "TORCHELASTIC_RESTART_COUNT": 0,
    }
    each = [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(processes)]
    return [{name: str(value) for name, value in words.items()} for words in each]


# ---- The process that all are forked from -------------------------------------------------------


class Zygote:
    """One for each process of pytest, started when it is needed first. Ends with it."""

    def __init__(self) -> None:
        given = {k: v for k, v in os.environ.items() if not k.startswith("NULL_CUDA_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.null_cuda.zygote"],
            cwd=ROOT,
            env={**given, "OMP_NUM_THREADS": "1", **build.environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def run(
        self, argv: list[str], folder: Path, environment: list[dict[str, str]], timeout: float
    ) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as said:
            output, errors = Path(said) / "output", Path(said) / "errors"
            for path in (output, errors):
                path.touch()
            request = {
                "argv": argv,
                "folder": str(folder),
                "environment": environment,
                "output": str(output),
                "errors": str(errors),
            }
            children = self._answer(request)
            late = threading.Event()

            def end() -> None:
                late.set()
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child, signal.SIGKILL)

            timer = threading.Timer(timeout, end)
            timer.start()
            try:
                statuses = self._answer()
            finally:
                timer.cancel()
            told = output.read_text(errors="replace"), errors.read_text(errors="replace")
        if late.is_set():
            raise subprocess.TimeoutExpired(argv, timeout, *told)
        status = next((each for each in statuses if each), 0)
        return subprocess.CompletedProcess(argv, status, *told)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answer(self, request: dict | None = None) -> list[int]:
        if request is not None:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the process that null GPUs are forked from has ended; see stderr")
        return json.loads(line)


@functools.cache
def _zygote() -> Zygote:
    return Zygote()


# ---- By hand ------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.null_gpu",
        usage="%(prog)s [--devices N] [--memory BYTES] [--launch-us US] train_base.py ...\n"
        "       %(prog)s [...] -m MODULE ...",
        description="Runs a script on null GPUs: CUDA's host side, without numbers.",
        allow_abbrev=False,
    )
    parser.add_argument("--devices", type=int, default=1, help="how many GPUs (default: 1)")
    parser.add_argument("--memory", type=float, help="bytes of each (default: 80e9)")
    parser.add_argument("--launch-us", type=float, help="what an operation costs the host (0)")
    own, argv = [], sys.argv[1:]
    while argv and (argv[0].startswith("--") or argv[0] == "-h"):  # what comes then is the script's
        words = 1 if "=" in argv[0] or argv[0] in ("-h", "--help") else 2
        own, argv = [*own, *argv[:words]], argv[words:]
    options = parser.parse_args(own)
    if not argv:
        parser.error("name a script, such as train_base.py, or -m and a module; then its options")
    try:
        environment = build.environment(options.devices, options.memory, options.launch_us)
    except build.BuildError as error:
        sys.exit(f"tests.null_gpu: error: {error}")
    os.execve(sys.executable, [sys.executable, *argv], {**os.environ, **environment})


if __name__ == "__main__":
    main()
