"""Builds the null GPU for the torch that is installed: libnull.so, which is preloaded.

It stands for each library of CUDA that torch calls: what the C files here do not define, and torch
leaves undefined, becomes a function that succeeds and does nothing.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".pytest_cache" / "null_cuda"  # git ignores it, `make clean` removes it
NAMES = re.compile(r"_*cuda[A-Z]|cublas[A-Z]|cublasLt|cudnn[A-Z]|nccl[A-Z]")
ANSWERED = {  # by the libraries themselves
    "cudnnGetVersion",
    "cudnnGetProperty",
    "cudnnGetCudartVersion",
    "ncclGetVersion",
    "cublasLtGetVersion",
}


class BuildError(RuntimeError):
    """The null GPU cannot be built here; the message says why."""


def built() -> Path:
    """The folder with the libraries, built if they are not there. Raises BuildError."""
    torch = torch_folder()
    sources = sorted([*HERE.glob("*.[ch]"), *HERE.glob("headers/*/*.h"), Path(__file__)])
    content = b"".join(path.read_bytes() for path in [*sources, torch / "version.py"])
    folder = CACHE / hashlib.sha256(content).hexdigest()[:16]
    with one_at_a_time():
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as making:
                build(torch, Path(making) / "built")
                (Path(making) / "built").rename(folder)
    return folder


def torch_folder() -> Path:
    """Where torch is, without the seconds that importing it takes. Raises BuildError."""
    for tool in ("gcc", "nm"):
        if not shutil.which(tool):
            raise BuildError(f"there is no {tool} to build the null GPU with")
    found = importlib.util.find_spec("torch")
    folders = found.submodule_search_locations if found else None
    torch = Path(folders[0] if folders else "")
    if not (torch / "lib" / "libtorch_cuda.so").exists():
        raise BuildError("torch is not a CUDA build for Linux")
    return torch


@contextlib.contextmanager
def one_at_a_time():
    import fcntl  # which Windows lacks, where tests are to skip

    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(torch: Path, out: Path) -> None:
    out.mkdir()
    includes = [f"-I{HERE / 'headers'}"]
    includes += [f"-I{path}" for path in torch.parent.glob("nvidia/*/include")]
    objects = []
    for source in sorted(HERE.glob("*.c")):
        if source.name != "driver.c":
            objects.append(out / f"{source.stem}.o")
            gcc("-c", source, "-o", objects[-1], *includes)
    called = symbols("--undefined-only", *torch.glob("lib/lib*.so"))
    names = {name for name in called if NAMES.match(name)} - ANSWERED
    names -= symbols("--defined-only", *objects, dynamic=False)
    rest = out / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(names)))
    gcc("-shared", "-o", out / "libnull.so", *objects, rest, "-lpthread")
    gcc("-shared", "-o", out / "libcuda.so.1", HERE / "driver.c")
    (out / "libnvidia-ml.so.1").symlink_to("libcuda.so.1")


def gcc(*arguments: object) -> None:
    command = ["gcc", "-O1", "-std=gnu11", "-fPIC", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"gcc cannot build the null GPU: {done.stderr}")


def symbols(which: str, *files: Path, dynamic: bool = True) -> set[str]:
    command = ["nm", which, *(["--dynamic"] if dynamic else []), *map(str, files)]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    words = (line.split() for line in listed.splitlines())
    return {line[-1].partition("@")[0] for line in words if len(line) > 1}


def environment(
    devices: int = 1, memory: float | None = None, launch_us: float | None = None
) -> dict[str, str]:
    """What to add to a process's environment before it starts, for it to have null GPUs: so many,
    each with `memory` bytes, on which queueing an operation takes the host `launch_us`."""
    folder = built()
    return {
        "LD_PRELOAD": str(folder / "libnull.so"),
        "LD_LIBRARY_PATH": os.pathsep.join(
            filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")])
        ),
        "CUDA_MODULE_LOADING": "LAZY",
        "TORCH_CUDNN_V8_API_DISABLED": "1",  # cuDNN's newer interface is too much to stand for
        "NULL_CUDA": str(folder),
        **settings(devices, memory, launch_us),
    }


def settings(devices: int, memory: float | None, launch_us: float | None) -> dict[str, str]:
    """The part of it that can be set later, until CUDA is used first."""
    values = {"DEVICES": devices, "MEMORY": memory, "LAUNCH_US": launch_us}
    given = {f"NULL_CUDA_{name}": str(value) for name, value in values.items() if value is not None}
    return given | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(devices)))}
