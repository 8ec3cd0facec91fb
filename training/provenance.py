"""Where a run comes from: log/NAME/run.json, a list with an entry for each start and resume."""

import json
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from common.files import rename_aside, write_bytes
from training.start import Start

PACKAGES = ("torch", "torchvision", "kornia", "numpy", "pillow", "tensorboard", "safetensors")


def record(
    path: Path,
    options: dict[str, Any],
    device: torch.device,
    start: Start,
    data: dict[str, dict],
) -> dict[str, Any]:
    """Appends an entry to the list in `path`, and returns it. options: by name, as Run records
    them. start: how the run starts. data: what
    folders.describe says of each split. A file that is no list is renamed, not lost."""
    entry = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "start": start.kind,
        "from": start.source and str(start.source),
        "steps_done": start.first_step,
        "data": data,
        "transfer": start.transferred and start.transferred[1],
        "options": plain_options(options),
        "device": _device(device),
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda}
        | {package: _version(package) for package in PACKAGES},
        "commit": _commit(Path(__file__).resolve().parents[1]),
    }
    entries = []
    if path.exists():
        try:
            entries = json.loads(path.read_text())
            if not isinstance(entries, list):
                raise ValueError
        except ValueError:
            entries = []
            print(f"{path} cannot be read")
            rename_aside(path)
    write_bytes(path, (json.dumps([*entries, entry], indent=1) + "\n").encode())
    return entry


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """By name; paths as text."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in options.items()
    }


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """Of the program's source, where it lies in a repository of its own; "+ changes" where it
    differs from that."""

    def git(*words: str) -> list[str]:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.splitlines()

    try:
        top, commit = git("rev-parse", "--show-toplevel", "HEAD")
        if Path(top).resolve() != folder:
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return commit + (" + changes" if changed else "")
