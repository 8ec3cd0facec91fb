"""What holds for all tests, and the fixtures of several folders."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.register_assert_rewrite("tests.support")  # so that a failure there shows its values

from model.matting_base import ENCODERS  # noqa: E402
from tests.support.drawn import SMALL, make_data  # noqa: E402
from tests.support.tiny import TinyEncoder  # noqa: E402

torch.set_num_threads(1)  # tests run side by side, one a core
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what it puts behind `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; tests that spoil a data set make their own."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def packed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in tar files, several because they are small. Read only."""
    from dataset import shard

    target = tmp_path_factory.mktemp("packed") / "data"
    shard.pack(data, target, SMALL)
    return target


@pytest.fixture
def own_packed(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "own")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, where log/ and checkpoint/ will appear."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _tiny_network() -> Iterator[None]:
    """In the place of MobileNetV2, in this process: for tests that do not care what is trained."""
    with pytest.MonkeyPatch.context() as patched:  # of its own: tests undo theirs
        patched.setitem(ENCODERS, "mobilenetv2", TinyEncoder)
        yield


@pytest.fixture
def tiny_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """As _tiny_network; a test that is marked `published` trains the published one all the same,
    as one does that compares it with what another process has trained."""
    if request.node.get_closest_marker("published"):
        yield
    else:
        yield from _tiny_network()


tiny_network_throughout = pytest.fixture(scope="module")(_tiny_network)  # fixtures of it included
