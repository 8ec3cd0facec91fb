"""Each picture of a tar is the one that its index names, whatever wrote the tar."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from common.errors import DataError
from dataset import shard
from dataset.pictures import open_picture
from dataset.tar_index import read_index, scan, write_index
from tests.support.drawn import make_data
from tests.support.running import error_of
from tests.support.tars import add, jpeg, open_all, train

pytestmark = pytest.mark.usefixtures("tiny_network")

NAMES = [
    "0.jpg",
    "./a//./1.jpg",
    "café/é.jpg",
    f"{'d' * 90}/{'e' * 120}.jpg",
    f"{'f' * 99}.jpg",
    f"{'ü' * 90}.jpg",
    "caf\udce9.jpg",
]


def swap(index: Path, one: str, other: str, *columns: str, sealed: bool = False) -> None:
    content = json.loads(index.read_text())
    places = [content["names"].index(name) for name in (one, other)]
    for column in columns:
        values = content[column]
        values[places[0]], values[places[1]] = values[places[1]], values[places[0]]
    if not sealed:
        content.pop("seal")  # as in an index of before, or where the editor made it fit
    index.write_text(json.dumps(content))


@pytest.mark.parametrize("written", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_name_is_found_in_its_header(written: int, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=written, errors="surrogateescape") as archive:
        for number, name in enumerate(NAMES):
            add(archive, name, jpeg(number))
    for _ in range(2):  # without an index, and with it
        found = open_all(tmp_path)
        assert len(found.names) == len(NAMES)
        for name in found.names:
            open_picture(found / name).load()


@pytest.mark.skipif(not shutil.which("tar"), reason="no tar")
@pytest.mark.parametrize("written", ["gnu", "pax", "ustar", "v7"])
def test_so_it_is_in_those_of_tar(written: str, tmp_path: Path) -> None:
    short = [name for name in NAMES if len(name) < 60 and "\udce9" not in name]
    for name in short if written in ("ustar", "v7") else NAMES:
        path = tmp_path / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(0))
    folder = tmp_path / "tars"
    folder.mkdir()
    command = ["tar", f"--format={written}", "-C", tmp_path / "x", "-cf", folder / "a.tar", "."]
    subprocess.run(command, check=True)
    found = open_all(folder)
    for name in found.names:
        open_picture(found / name).load()


@pytest.mark.parametrize("columns", [["names"], ["offsets", "sizes", "headers"], ["sizes"]])
@pytest.mark.parametrize("one", ["fgr/clip1/0001.jpg", "fgr/clip1/é.jpg", f"fgr/{'x' * 120}.jpg"])
def test_swapped_entries_are_found(columns: list[str], one: str, here: Path) -> None:
    data = make_data(here / "data", 4, 2)
    name = one.removeprefix("fgr/").removesuffix(".jpg")
    for kind, ending in (("fgr", "jpg"), ("pha", "png")):
        path = data / f"train/{kind}/clip1/0001.{ending}"
        path.rename(data / f"train/{kind}/{name}.{ending}")
    shard.pack(data, here / "packed", 20_000_000)
    index = next((here / "packed/train").glob("*.index"))
    swap(index, one, "fgr/clip0/0002.jpg", *columns)
    found = open_all(here / "packed/train")
    with pytest.raises(DataError, match=r"(should be is another|not where).*delete .*\.tar\.index"):
        for each in found.names:
            open_picture(found / each).load()


def test_an_index_that_was_changed_is_refused(here: Path, capsys: pytest.CaptureFixture) -> None:
    data = make_data(here / "data", 4, 2)
    shard.pack(data, here / "packed", 20_000_000)
    index = next((here / "packed/train").glob("*.index"))
    before = index.read_text()
    swap(index, "fgr/clip1/0001.jpg", "fgr/clip0/0002.jpg", "names", sealed=True)
    train(here / "packed", "--max-steps", 1, status=2)
    assert f"{index} was changed" in error_of(capsys)
    index.write_text(before)
    swap(index, "fgr/clip1/0001.jpg", "fgr/clip0/0002.jpg", "names")
    train(here / "packed", "--max-steps", 1, status=2)
    assert "is another member" in error_of(capsys)
    index.unlink()
    train(here / "packed", "--max-steps", 1)


def test_an_index_of_before_has_no_seal_and_is_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "0.jpg", jpeg(0))
    path = tmp_path / "a.tar"
    write_index(path, scan(path))
    index = tmp_path / "a.tar.index"
    index.write_text(
        json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k != "seal"})
    )
    assert list(read_index(path).names) == ["0.jpg"]
