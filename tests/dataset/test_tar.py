"""Tar files that are trained on: read where they lie; what is wrong with one is said before
anything is trained on it."""

import bz2
import gzip
import io
import json
import lzma
import multiprocessing
import os
import pickle
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from dataset import tar
from dataset.folders import describe
from dataset.pictures import decode, find_pairs, open_picture
from dataset.tar_index import read_index, scan, write_index
from tests.support.drawn import figure
from tests.support.tars import add, contents, jpeg, open_all, opened, train

pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.fixture
def background(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with a tar of pictures, written by Python's tarfile."""

    def make(count: int = 3, name: str = "a.tar", **form: object) -> Path:
        with tarfile.open(tmp_path / name, "w", **form) as archive:
            for number in range(count):
                add(archive, f"{number}.jpg", jpeg(number))
        return tmp_path

    return make


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_other_programs_are_looked_through_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, form: int
) -> None:
    """In any order, with another name for the same folder, splits in several tars."""
    odd = "ü" * 20 if form == tarfile.USTAR_FORMAT else "long-" * 30 + "\udcff"
    for kind, picture in zip(("fgr", "pha"), figure(72, 96, 3), strict=True):
        with tarfile.open(tmp_path / f"{kind}.tar", "w", format=form) as archive:
            for path in sorted((data / "train" / kind).rglob("*.*"), reverse=True):
                archive.add(path, f"./{kind}/{path.relative_to(data / 'train' / kind)}")
            file = io.BytesIO()
            picture.save(file, "PNG")
            add(archive, f"{kind}/{odd}.png", file.getvalue())
    found = tar.open_tars(tmp_path, ("fgr", "pha", "rgba"), print)
    assert "2 of 2 tar files" in capsys.readouterr().out
    pairs = find_pairs(found["fgr"], found["pha"])
    files = find_pairs(data / "train/fgr", data / "train/pha")
    assert list(pairs.fgr_names) == sorted([*files.fgr_names, f"{odd}.png"])
    for index in range(len(pairs)):
        with open_picture(pairs.paths(index)[0]) as picture:
            picture.load()

    kept = contents(tmp_path)
    again = tar.open_tars(tmp_path, ("fgr", "pha", "rgba"), print)
    assert capsys.readouterr().out == "" and contents(tmp_path) == kept
    assert list(again["pha"].names) == list(found["pha"].names)


def test_where_the_index_cannot_be_written_that_is_said(
    background: Callable, capsys: pytest.CaptureFixture
) -> None:
    folder = background()
    (folder / f".a.tar.index.{os.getpid()}").mkdir()  # where it would be written first
    assert list(open_all(folder).names) == ["0.jpg", "1.jpg", "2.jpg"]
    assert "the index cannot be kept (Is a directory)" in capsys.readouterr().out
    assert not (folder / "a.tar.index").exists()


@pytest.mark.slow
def test_a_folder_of_tars_can_be_sent_to_another_process(packed: Path) -> None:
    _, backgrounds = opened(packed)
    member = backgrounds.path(3)
    member.open()  # which must not be sent along
    assert pickle.loads(pickle.dumps(backgrounds)).path(3) == member
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_read, (member,)) == member.open().read()


def _read(member: tar.Member) -> bytes:
    return member.open().read()


def test_a_member_reads_as_a_file_of_its_own(background: Callable) -> None:
    content = jpeg(1)
    file = (open_all(background()) / "1.jpg").open()
    assert file.read() == content and file.read(1) == b""
    assert file.seek(-5, io.SEEK_END) == len(content) - 5 and file.read(99) == content[-5:]
    file.seek(7)
    assert file.read(3) == content[7:10] and file.tell() == 10
    file.seek(len(content) + 600)
    assert file.read() == b""


def test_few_tars_are_open_at_once(background: Callable, capsys: pytest.CaptureFixture) -> None:
    count = tar.MAX_OPEN_TARS + 20
    for number in range(count):
        folder = background(1, f"{number:03}.tar")
        with tarfile.open(folder / f"{number:03}.tar", "w") as archive:
            add(archive, f"{number:03}.jpg", jpeg(1))
    tars = open_all(folder)
    tar._descriptor.cache_clear()
    before = len(os.listdir("/proc/self/fd"))
    first = (tars / "000.jpg").open()
    for name in tars.names:
        (tars / name).open().read()
    assert len(os.listdir("/proc/self/fd")) - before <= tar.MAX_OPEN_TARS + 1
    assert first.read() == jpeg(1)  # its tar is closed only with it
    tar._descriptor.cache_clear()


# ---- What is left out ----------------------------------------------------------------------------


def test_links_devices_and_names_that_lead_outside_never_count(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = jpeg(1)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "good.jpg", content)
        add(archive, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(archive, "device.jpg", type=tarfile.CHRTYPE)
        add(archive, "pipe.png", type=tarfile.FIFOTYPE)
        add(archive, "/absolute.jpg", content)
        add(archive, "a/../../outside.jpg", content)
        add(archive, "folder.jpg", type=tarfile.DIRTYPE)
        add(archive, "a/._good.jpg", content)  # as macOS adds them
        add(archive, ".hidden/good.jpg", content)
        add(archive, "notes.txt", b"hello")
        add(archive, "last.PNG", content)
    assert list(open_all(tmp_path).names) == ["good.jpg", "last.PNG"]
    told = capsys.readouterr().out
    assert "left out 6 member(s)" in told and "the first is link.jpg" in told


def test_tars_without_what_is_wanted(background: Callable) -> None:
    folder = background()
    with pytest.raises(DataError, match=r"no picture .* under fgr/, pha/ in .*; there is 0\.jpg"):
        tar.open_tars(folder, ("fgr", "pha"), print)
    with tarfile.open(folder / "a.tar", "w") as archive:
        add(archive, "notes.txt", b"hello")
    (folder / "a.tar.index").unlink()
    with pytest.raises(DataError, match=r"no picture \(.*\) in .*/\*\.tar: pack"):
        open_all(folder)


def test_foregrounds_without_alphas(own_packed: Path) -> None:
    shutil.rmtree(own_packed / "train")
    (own_packed / "train").mkdir()
    with tarfile.open(own_packed / "train/a.tar", "w") as archive:
        add(archive, "fgr/a.jpg", jpeg(1))
    with pytest.raises(DataError, match=r"no picture under pha/ in .*, but 1 under fgr/"):
        opened(own_packed)
    with tarfile.open(own_packed / "train/b.tar", "w") as archive:
        add(archive, "pha/b.jpg", jpeg(1))
    with pytest.raises(DataError, match=r"2 picture.*a\.tar: fgr/a\.jpg, .*b\.tar: pha/b\.jpg"):
        opened(own_packed)


# ---- Tars that cannot be trained on --------------------------------------------------------------


@pytest.mark.parametrize("indexed", [True, False])
def test_a_tar_that_is_cut_off_anywhere_is_an_error(background: Callable, indexed: bool) -> None:
    path = background() / "a.tar"
    whole = path.read_bytes()
    if indexed:
        write_index(path, scan(path))
    end = scan(path).offsets[-1] + scan(path).sizes[-1]
    end += -end % 512
    for length in {*range(0, end + 1, 512), *range(700, end, 333), end + 511}:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.tar is (cut off|damaged)"):
            open_all(path.parent)
        assert (path.parent / "a.tar.index").exists() == indexed


def test_a_header_that_is_damaged(background: Callable) -> None:
    path = background() / "a.tar"
    content = bytearray(path.read_bytes())
    content[scan(path).offsets[1] - 500] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar is damaged at byte \d+"):
        open_all(path.parent)


def test_an_index_of_another_tar(background: Callable) -> None:
    path = background(3) / "a.tar"
    write_index(path, scan(path))
    size = path.stat().st_size
    with tarfile.open(path, "a") as archive:  # longer
        for number in range(30):
            add(archive, f"more-{number}.jpg", jpeg(1))
    with pytest.raises(DataError, match=r"a\.tar is not the tar that .*: delete .*a\.tar\.index"):
        open_all(path.parent)
    with tarfile.open(path, "w") as archive:  # of the same length
        for number in range(3):
            add(archive, f"{number}.jpg", jpeg(number), mtime=1)
    assert path.stat().st_size == size
    with pytest.raises(DataError, match=r"not the tar .*0\.jpg is not where the index says"):
        open_all(path.parent)
    (path.parent / "a.tar.index").unlink()  # what the message says
    assert len(open_all(path.parent).names) == 3


def test_what_the_start_has_not_looked_at_is_noticed_when_it_is_read(background: Callable) -> None:
    path = background(40) / "a.tar"
    index = scan(path)
    write_index(path, index)
    content = bytearray(path.read_bytes())
    content[index.offsets[4] - 512] ^= 1
    path.write_bytes(content)
    tars = open_all(path.parent)
    with pytest.raises(DataError, match=r"a\.tar is not the tar .*4\.jpg is not where"):
        open_picture(tars / "4.jpg")


def test_a_tar_that_is_cut_off_or_gone_while_it_is_used(background: Callable) -> None:
    path = background() / "a.tar"
    tars = open_all(path.parent)
    tar._descriptor.cache_clear()
    file = (tars / "2.jpg").open()
    os.truncate(path, scan(path).offsets[2])
    with pytest.raises(OSError, match="was cut off"):
        file.read()
    tar._descriptor.cache_clear()
    with pytest.raises(DataError, match=r"not the tar .* bytes instead of"):
        open_picture(tars / "1.jpg")
    path.unlink()
    with pytest.raises(DataError, match=r"a\.tar cannot be read \(No such file"):
        open_picture(tars / "1.jpg")


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("}", ""),
        ("{", "[" * 100_000 + "{"),
        ("index 1", "index 0"),
        ('"0.jpg", ', ""),
        ('"0.jpg"', "null"),
        ('"sizes": [', '"sizes": [-'),
        ('"offsets": [', '"offsets": [9'),
        ("headers", "x"),
        ('"sizes": [', '"sizes": [99999999999999999999'),
        ("[512", "[0"),
    ],
)
def test_an_index_that_is_damaged(background: Callable, there: str, instead: str) -> None:
    path = background() / "a.tar"
    write_index(path, scan(path))
    index = path.parent / "a.tar.index"
    text = index.read_text()
    assert there in text
    index.write_text(text.replace(there, instead))
    with pytest.raises(DataError, match=r"a\.tar\.index is damaged \(.*\): delete it"):
        read_index(path)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.NAME"])
@pytest.mark.parametrize(("pack", "ending"), [(gzip, "gz"), (bz2, "bz2"), (lzma, "xz")])
def test_a_compressed_tar_is_refused_with_what_to_type(
    background: Callable, pack: object, ending: str, name: str
) -> None:
    folder = background()
    content = (folder / "a.tar").read_bytes()
    (folder / "a.tar").unlink()
    (folder / name.replace("NAME", ending)).write_bytes(pack.compress(content))
    with pytest.raises(DataError, match=r"is compressed, and .*: ") as caught:
        open_all(folder)
    command = str(caught.value).split("already: ")[1]
    if not shutil.which(command.split("&& ")[-1].split()[0]):
        pytest.skip("its program is not installed")
    subprocess.run(command, shell=True, check=True)
    assert len(open_all(folder).names) == 3


def test_tars_that_were_joined_together(background: Callable) -> None:
    path = background() / "a.tar"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match=r"a\.tar goes on"):
        open_all(path.parent)


def test_a_name_that_is_there_twice(background: Callable) -> None:
    background(2, "b.tar")
    with pytest.raises(DataError, match=r"2 name.* twice, the first is 0\.jpg in .*a.tar and .*b"):
        open_all(background(3, "a.tar"))


def test_what_lies_beside_tars(own_packed: Path) -> None:
    Image.new("RGB", (9, 9)).save(own_packed / "backgrounds/train/x.jpg")
    with pytest.raises(DataError, match=r"holds both tar files \(00000.tar\) and pictures"):
        opened(own_packed)
    (own_packed / "backgrounds/train/x.jpg").unlink()
    (own_packed / "train/fgr").mkdir()
    with pytest.raises(DataError, match=r"holds both tar files .*\(fgr\).*: move one kind away"):
        opened(own_packed)
    (own_packed / "train/fgr").rmdir()
    (own_packed / "train/00001.tar").unlink()
    with pytest.raises(DataError, match=r"00001\.tar is missing"):
        opened(own_packed)


def test_pictures_beside_a_compressed_archive_are_read(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "data")
    (folder / "backgrounds/train/original.tar.gz").write_bytes(gzip.compress(b"whatever"))
    assert describe(*opened(folder)) == describe(*opened(data))


# ---- As a user sees it ---------------------------------------------------------------------------


def test_a_cut_tar_stops_the_run_before_training(
    own_packed: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    path = own_packed / "train/00000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    train(own_packed, status=2)
    told = capsys.readouterr()
    (line,) = told.err.strip().splitlines()
    assert line.startswith(f"train_base.py: error: {path} is cut off: it has 5000 of the")
    assert "validation" not in told.out and not list(here.glob("checkpoint/run/*.pth"))


@pytest.mark.parametrize("skip", [False, True])
def test_a_bad_picture_is_named_with_its_tar(
    own_packed: Path, here: Path, capsys: pytest.CaptureFixture, skip: bool
) -> None:
    path = own_packed / "train/00000.tar"
    index = read_index(path)
    content = bytearray(path.read_bytes())
    start = index.offsets[0]
    content[start : start + index.sizes[0]] = b"x" * index.sizes[0]
    path.write_bytes(content)
    name = f"{path}: {index.names[0]} cannot be decoded as JPEG or PNG (is no picture"
    if skip:
        train(own_packed, "--max-steps", 3, "--on-bad-image", "skip")
        assert f"left out (bad picture 1): {name}" in capsys.readouterr().out
    else:
        train(own_packed, status=2)
        assert f"train_base.py: error: {name}" in capsys.readouterr().err


def test_a_picture_that_is_damaged_behind_its_header_is_named_with_its_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "b/c.jpg", jpeg(1)[:700])
    picture = open_picture(open_all(tmp_path) / "b/c.jpg")
    with pytest.raises(DataError, match=r"a\.tar: b/c\.jpg cannot be decoded as JPEG or PNG"):
        decode(picture, "RGB", (40, 60), np.eye(3)[:2])


def test_the_index_is_plain_json(packed: Path) -> None:
    content = json.loads((packed / "train/00000.tar.index").read_text())
    with (packed / "train/00000.tar").open("rb") as file:
        file.seek(content["offsets"][0])
        picture = Image.open(io.BytesIO(file.read(content["sizes"][0])))
    assert picture.format == "JPEG" and content["names"][0].startswith("fgr/")


def test_a_system_that_cannot_read_them_is_told_so(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "preadv")
    with pytest.raises(DataError, match="not read on this system"):
        open_all(packed / "train")
