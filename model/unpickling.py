"""torch.load for files of other programs: what is no tensor or plain value is left out, unread.

Nothing that a file names is imported or called. What it says of foreign objects goes into
stand-ins, which keep nothing and do nothing.
"""

import argparse
import mmap
import pickle
import re
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError


# What real files hold beside tensors and plain values, and what makes nothing but plain values.
# Published DeepLab files keep their best score as a numpy float64; numpy 1 wrote its constructor's
# name as numpy.core, numpy 2 as numpy._core. torchvision's training script keeps its arguments.
def _number(dtype: np.dtype, content: bytes) -> np.generic | None:
    """In place of numpy's constructor, which would make objects of any size."""
    if dtype.kind in "SU":  # a name of something, which nobody asks for
        return None
    if dtype.kind not in "biufc" or len(content) != dtype.itemsize:
        raise pickle.UnpicklingError("a numpy scalar that is no number")
    return np.frombuffer(content, dtype)[0]


ALLOWED: list[Any] = [
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDSUO"},
    argparse.Namespace,
]

# Of Python's own library, whose functions a file has no honest use for, these are data. Classes of
# other packages are left out by stand-ins, whatever they are.
DATA = re.compile(
    r"builtins\.(list|dict|tuple|frozenset|int|float|str|bool|bytes|range|slice|object)"
    r"|collections\.(defaultdict|deque|OrderedDict|Counter|namedtuple)"
    r"|(pathlib(\._local)?\.\w*Path|datetime\.\w+|decimal\.Decimal|fractions\.Fraction|uuid\.UUID)"
    r"|(types\.SimpleNamespace|copyreg\._reconstructor|copy_reg\._reconstructor|enum\.\w+)"
    r"|functools\.partial|random\.Random"
)


class _Nothing:
    """Stands for an object of a foreign class: takes whatever it is given and keeps none of it.
    name: of the class."""

    name = ""

    def __new__(cls, *_given: Any, **_named: Any) -> "_Nothing":
        return object.__new__(cls)

    def __init__(self, *_given: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


class _NothingOfDict(OrderedDict):
    """The same where the file puts items into it: torch's reader does that to OrderedDicts alone,
    which is what comes of it."""

    def __new__(cls, *_given: Any, **_named: Any) -> Any:
        return OrderedDict()


class _NothingOfList(list):
    """The same where the file appends to it."""

    def __init__(self, *_given: Any, **_named: Any) -> None:
        super().__init__()

    def __setstate__(self, _state: Any) -> None:
        pass


class ForeignObjectError(UserError, ValueError):
    """The file names what is not left out; `name` is the type's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def load_plain(path: Path) -> Any:
    """What torch.save wrote into `path`, its tensors on the CPU, foreign objects left out.

    Raises ForeignObjectError where an object is of a type that could run code, or whose content
    cannot be left out; whatever torch.load raises where the file cannot be read.
    """
    stand_ins: dict[str, type] = {}
    while True:
        try:
            allowed = [*ALLOWED, *((kind, name) for name, kind in stand_ins.items())]
            with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old formats, which are read all the same
                return torch.load(path, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:
            message = str(error)
            if refused := _refused_type(path, message):
                if "." not in refused:  # so torch's reader says them
                    refused = f"builtins.{refused}"
                if refused in stand_ins or not _may_be_left_out(refused) or len(stand_ins) > 200:
                    raise ForeignObjectError(refused) from None
                stand_ins[refused] = _stand_in(refused, _Nothing)
                continue
            # Which of the stand-ins it puts something into is known only now.
            name = next((n for n, kind in stand_ins.items() if f"{kind}" in message), None)
            if name and "SETITEM" in message and issubclass(stand_ins[name], _Nothing):
                stand_ins[name] = _stand_in(name, _NothingOfDict)
            elif name and "append" in message and issubclass(stand_ins[name], _Nothing):
                stand_ins[name] = _stand_in(name, _NothingOfList)
            elif stand_ins and not isinstance(error, (RuntimeError, OSError, EOFError)):
                raise ForeignObjectError(name or next(iter(stand_ins))) from None
            else:
                raise


def left_out(content: Any) -> str | None:
    """The class of an object that was left out of `content`, where it is one, or a dict of some."""
    inside = content.values() if isinstance(content, dict) else [content]
    return next((each.name for each in inside if isinstance(each, _Nothing)), None)


def _stand_in(name: str, kind: type) -> type:
    """A class of its own for each name, so that torch's errors tell which it is."""
    return type(f"stand-in for {name}", (kind,), {"name": name})


def _may_be_left_out(name: str) -> bool:
    own = {*sys.stdlib_module_names, "__builtin__"}
    return bool(DATA.fullmatch(name)) or name.split(".")[0] not in own


def _refused_type(path: Path, message: str) -> str | None:
    """The type that torch.load would not make, if the file really names it: where a file is cut
    short, so may be a name."""
    for marker in ("Unsupported global: GLOBAL ", "unsupported GLOBAL ", "Unsupported class "):
        if marker in message:
            name = message.split(marker, 1)[1].split(" ", 1)[0].rstrip(".,:")
            named = b"\n%s\n" % name.rpartition(".")[2].encode()
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
                return name if m.find(named) >= 0 else None
    return None
