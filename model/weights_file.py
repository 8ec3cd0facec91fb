"""Reads weight files that others wrote, and finds the state dict inside.

It never executes what a file holds: everything is read with weights_only=True.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class WeightsFileError(ValueError):
    """A file that cannot be read as weights; the message names it and says what to do."""


# Published DeepLab files keep their best score as a numpy float64. numpy 1 wrote the constructor's
# name as numpy.core, numpy 2 as numpy._core; both make a plain number and nothing else.
_scalar = np._core.multiarray.scalar if hasattr(np, "_core") else np.core.multiarray.scalar
NUMPY_SCALARS = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
]

WRAPPERS = ("model_state", "state_dict", "model")


def read_file(path: str | Path) -> Any:
    """What torch.save wrote into `path`, its tensors on the CPU.

    Raises WeightsFileError where there is no such file, it is none of torch.save's, it is cut
    short, or it holds objects other than tensors, plain Python values and numpy numbers.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsFileError(f"{path} is a folder; give a file in it, such as epoch-0.pth")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsFileError(f"there is no file {path}; check the path") from None
    except PermissionError:
        raise WeightsFileError(f"{path} may not be read; check its permissions") from None
    except pickle.UnpicklingError as error:
        refused = _refused_type(str(error))
        if refused:
            raise WeightsFileError(
                f"{path} holds an object of type {refused}, which is not loaded because reading "
                "it could run code; save only the state dict: torch.save(model.state_dict(), FILE)"
            ) from None
        raise WeightsFileError(_not_readable(path)) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError, AttributeError):
        # What torch.load raises for a damaged file depends on where the damage lies.
        raise WeightsFileError(_not_readable(path)) from None


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict in `path`: the file's own dict, or the one under `model_state`, `state_dict`
    or `model`. Values that are no tensors are left out. Raises WeightsFileError."""
    content = read_file(path)
    found = find_state_dict(content)
    if not found:
        if isinstance(content, dict):
            what = f"a dict with the keys {', '.join(map(str, list(content)[:8])) or '(none)'}"
        else:
            what = f"a {type(content).__name__}"
        raise WeightsFileError(
            f"{path} holds {what} and no weights; expected a state dict, bare or under one of "
            f"{', '.join(WRAPPERS)}"
        )
    return found


def find_state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors by name in a loaded file, unwrapped; empty where there are none."""
    if not isinstance(content, dict):
        return {}
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors
    for key in WRAPPERS:
        if key in content:
            return find_state_dict(content[key])
    return {}


def _refused_type(message: str) -> str | None:
    marker = "Unsupported global: GLOBAL "
    if marker not in message:
        return None
    return message.split(marker, 1)[1].split(" ", 1)[0].rstrip(".,")


def _not_readable(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if size == 0:
        return f"{path} is empty; download or copy it again"
    if head.startswith((b"<!doctype html", b"<html")):
        return f"{path} is a web page, not a weights file; download the file behind its link"
    return (
        f"{path} ({size:,} bytes) cannot be read as a PyTorch file: it is damaged, cut short, or "
        "of another program; download or copy it again"
    )
