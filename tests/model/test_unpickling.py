"""Objects of other programs in a weights file are left out unread; nothing of a file is run."""

import collections
import datetime
import enum
import functools
import os
import pathlib
import pickle
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.unpickling import load_plain
from model.weights_file import WeightsFileError, read_file, read_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3)}


class Config(dict):
    """As Lightning, OpenMMLab and others keep options."""


class Buffer(list):
    pass


class Slots:
    __slots__ = ("a",)

    def __init__(self) -> None:
        self.a = np.arange(3)


class Kind(enum.Enum):
    A = 1


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(2, 2, 3)


def metric() -> None:
    pass


@pytest.fixture
def foreign() -> Iterator[types.ModuleType]:
    """A package that is there where the file is written, and not where it is read."""
    module = types.ModuleType("foreignpackage")
    for each in (Config, Buffer, Slots, Kind, Network, metric):
        setattr(module, each.__name__, each)
        each.__module__ = "foreignpackage"
    sys.modules["foreignpackage"] = module
    yield module
    sys.modules.pop("foreignpackage", None)


def objects() -> dict[str, Any]:
    config = Config(lr=0.1, inner=Config(a=[1]))
    config.note = "an attribute"  # type: ignore[attr-defined]
    return {
        "dict of a class": config,
        "list of a class": Buffer([1, 2]),
        "slots": Slots(),
        "enum": Kind.A,
        "function": metric,
        "partial": functools.partial(metric, 1),
        "array": np.arange(3),
        "array of text": np.array(["a", "bc"]),
        "array of objects": np.array([None, "a"], dtype=object),
        "random state of numpy": np.random.RandomState(0).get_state(),
        "random state of python": random.Random(0).getstate(),
        "scalars": [np.float16(1), np.int8(1), np.bool_(True), np.complex64(1), np.str_("a")],
        "path": pathlib.PurePosixPath("/a/b"),
        "date": datetime.datetime(2020, 1, 1),
        "deque": collections.deque([1, 2], maxlen=3),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "namespace": types.SimpleNamespace(a=1),
        "set": {1, 2},
        "module": Network(),
    }


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("name", objects())
def test_what_lies_beside_weights_does_not_stop_them(
    tmp_path: Path, foreign: types.ModuleType, name: str, zip_format: bool
) -> None:
    if name == "module" and not zip_format:
        pytest.skip("the older format keeps a module's source, which torch.load refuses")
    content = {"before": objects()[name], "state_dict": STATE, "after": [objects()[name]]}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zip_format)
    del sys.modules["foreignpackage"]
    found = read_weights(tmp_path / "a.ckpt").state_dict
    assert "foreignpackage" not in sys.modules
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[each], STATE[each]) for each in STATE)


def test_all_at_once(tmp_path: Path, foreign: types.ModuleType) -> None:
    torch.save({**objects(), "state_dict": STATE}, tmp_path / "a.ckpt")
    del sys.modules["foreignpackage"]
    assert read_weights(tmp_path / "a.ckpt").wrapper == "state_dict"


def test_weights_in_a_dict_of_a_foreign_class(tmp_path: Path, foreign: types.ModuleType) -> None:
    torch.save({"net": Config(STATE)}, tmp_path / "a.ckpt")
    del sys.modules["foreignpackage"]
    assert read_weights(tmp_path / "a.ckpt").wrapper == "net"


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"epoch": 3, "model": model}])
def test_a_whole_network_is_named(tmp_path: Path, foreign: types.ModuleType, wrap: Any) -> None:
    torch.save(wrap(Network()), tmp_path / "a.pth")
    del sys.modules["foreignpackage"]
    with pytest.raises(WeightsFileError, match=r"of type foreignpackage\.Network.*state_dict\(\)"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch {}",)),
        (eval, ("open('{}', 'w')",)),
        (exec, ("open('{}', 'w')",)),
        (open, ("{}", "w")),
        (getattr, (Path("{}"), "touch")),
        (pathlib.Path.touch, (Path("{}"),)),
        (pickle.loads, (b"",)),
        (functools.partial(open, "{}", "w"), ()),
    ],
    ids=["system", "eval", "exec", "open", "getattr", "touch", "loads", "partial"],
)
def test_nothing_is_called(tmp_path: Path, call: tuple) -> None:
    target = str(tmp_path / "was-run")
    function, given = call
    if isinstance(function, functools.partial):
        function = functools.partial(open, target, "w")
    filled = [
        type(each)(str(each).format(target)) if isinstance(each, (str, Path)) else each
        for each in given
    ]

    class Payload:
        def __reduce__(self) -> tuple:
            return function, tuple(filled)

    torch.save({"state_dict": STATE, "extra": Payload()}, tmp_path / "a.pth")
    with pytest.raises(WeightsFileError, match="could run code"):
        read_file(tmp_path / "a.pth")
    assert not Path(target).exists()


def test_a_foreign_function_is_not_called(tmp_path: Path, foreign: types.ModuleType) -> None:
    """Even where its package is there, and the file asks for it."""
    called: list[int] = []
    foreign.metric = lambda: called.append(1)  # type: ignore[attr-defined]
    foreign.metric.__module__, foreign.metric.__qualname__ = "foreignpackage", "metric"

    class Payload:
        def __reduce__(self) -> tuple:
            return foreign.metric, ()

    torch.save({"extra": Payload()}, tmp_path / "a.pth")
    load_plain(tmp_path / "a.pth")
    assert not called
