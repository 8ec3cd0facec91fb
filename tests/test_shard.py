"""Data sets in tar files: the same samples as from the files, and what is wrong with a tar is said
before anything is trained on it."""

import bz2
import errno
import gzip
import io
import json
import lzma
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import backdrop, figure, make_data
from PIL import Image
from torch.utils.data import DataLoader

import train_base
from benchmarks import shards
from dataset import shard, tar
from dataset.folders import data_folders, describe, open_half
from dataset.images import DataError, decode, find_pairs, open_picture
from dataset.matting import MattingDataset, collate
from dataset.sampler import batch_of_step
from dataset.tar_index import read_index, scan, tars_in, write_index

ROOT = Path(train_base.__file__).parent
SMALL = 20_000  # bytes of a tar, so that the tiny data set takes several


@pytest.fixture(scope="module")
def packed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    target = tmp_path_factory.mktemp("packed") / "data"
    shard.pack(data, target, SMALL)
    return target


@pytest.fixture
def own(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "own")


@pytest.fixture
def background(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with a tar of pictures, written by Python's tarfile."""

    def make(count: int = 3, name: str = "a.tar", **form: object) -> Path:
        with tarfile.open(tmp_path / name, "w", **form) as archive:
            for number in range(count):
                add(archive, f"{number}.jpg", jpeg(number))
        return tmp_path

    return make


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    backdrop(60, 40, number).save(file, "JPEG")
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


def opened(folder: Path, half: str = "train", **more: object) -> tuple:
    return open_half(data_folders("", folder, print), half, **more)


def open_all(folder: Path, say: Callable[[str], None] = print) -> tar.TarFolder:
    return tar.open_tars(folder, ("",), say)[""]


def run(data: Path, *arguments: object, status: int = 0) -> None:
    argv = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "run"]
    argv += ["--crop-size", 32, 64, "--batch-size", 2, "--num-workers", 0, "--device", "cpu"]
    assert train_base.main([str(word) for word in [*argv, *arguments]]) == status


# ---- The same samples ----------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["train", "valid"])
def test_names_order_fingerprint_and_bytes_are_those_of_the_files(
    data: Path, packed: Path, half: str
) -> None:
    files, tars = opened(data, half), opened(packed, half)
    assert describe(*files) == describe(*tars)
    for index in range(len(files[0])):
        for path, member in zip(files[0].paths(index), tars[0].paths(index), strict=True):
            assert member.open().read() == path.read_bytes()
            assert str(member).endswith(f".tar: {path.relative_to(data / half)}")
    for index in range(len(files[1])):
        assert tars[1].path(index).open().read() == files[1].path(index).read_bytes()


def test_pairs_lie_side_by_side_in_tars_of_the_size_that_was_asked_for(packed: Path) -> None:
    paths = tars_in(packed / "train")
    assert [path.name for path in paths] == [f"{n:05}.tar" for n in range(len(paths))]
    assert len(paths) > 1
    for path in paths:
        assert path.stat().st_size <= SMALL
        with tarfile.open(path) as archive:
            members = archive.getmembers()
        for fgr, pha in zip(members[::2], members[1::2], strict=True):
            assert fgr.name.removeprefix("fgr/")[:-4] == pha.name.removeprefix("pha/")[:-4]
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")])
def test_batches_are_bit_equal_to_those_from_files(
    data: Path, packed: Path, workers: int, start: str | None
) -> None:
    keys = [
        batch_of_step(step, count=6, batch_size=3, seed=5, crop_size=(32, 64)) for step in range(4)
    ]
    loaders = [
        DataLoader(
            MattingDataset(*opened(folder), seed=5),
            batch_sampler=keys,
            collate_fn=collate,
            num_workers=number,
            multiprocessing_context=context,
        )
        for folder, number, context in ((data, 0, None), (packed, workers, start))
    ]
    for one, other in zip(*loaders, strict=True):
        for name in set(one) - {"files"}:
            if isinstance(one[name], torch.Tensor):
                assert torch.equal(one[name], other[name]), name
            else:
                assert one[name] == other[name], name
        assert all(".tar: " in path for files in other["files"] for path in files)


def test_a_run_and_its_continuation_over_tars_equal_the_run_over_files(
    data: Path, packed: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 3, "--model-name", "files")
    run(packed, "--max-steps", 2, "--num-workers", 2)
    run(packed, "--max-steps", 3, "--model-last-checkpoint", "auto")
    run(data, "--max-steps", 2, "--model-name", "mixed")  # and begun over files
    run(packed, "--max-steps", 3, "--model-name", "mixed", "--model-last-checkpoint", "auto")
    assert capsys.readouterr().out.count("continuing") == 2
    files, *others = (
        torch.load(f"checkpoint/{name}/epoch-0.pth", weights_only=True)
        for name in ("files", "run", "mixed")
    )
    for other in others:
        assert list(files) == list(other)
        assert all(torch.equal(files[name], other[name]) for name in files)


def test_some_folders_may_hold_tars_and_others_pictures(data: Path, own: Path) -> None:
    for place in ("backgrounds/train", "valid"):
        shutil.rmtree(own / place)
        shutil.copytree(data / place, own / place)
    for half in ("train", "valid"):
        assert describe(*opened(own, half)) == describe(*opened(data, half))


def test_rgba_pictures(tmp_path: Path) -> None:
    source = make_data(tmp_path / "source", 0, 0)
    for half in ("train", "valid"):
        for folder in (f"{half}/rgba/a", f"backgrounds/{half}"):
            (source / folder).mkdir(parents=True)
        for number in range(3):
            fgr, pha = figure(72, 96, number)
            fgr.putalpha(pha)
            fgr.save(source / half / f"rgba/a/{number}.png")
        backdrop(80, 60, 1).save(source / "backgrounds" / half / "b.jpg")
    shard.pack(source, tmp_path / "target", SMALL)
    files, tars = opened(source), opened(tmp_path / "target")
    assert describe(*files) == describe(*tars) and len(tars[0]) == 3
    keys = batch_of_step(0, count=3, batch_size=3, seed=0, crop_size=(64, 64))
    one, other = (collate([MattingDataset(*half)[key] for key in keys]) for half in (files, tars))
    assert torch.equal(one["fgr"], other["fgr"]) and torch.equal(one["pha"], other["pha"])


def test_tars_may_be_packed_again(packed: Path, data: Path, tmp_path: Path) -> None:
    shard.pack(packed, tmp_path / "again", 10 * SMALL)
    shard.pack(data, tmp_path / "once", 10 * SMALL)
    assert contents(tmp_path / "again") == contents(tmp_path / "once")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_other_programs_are_looked_through_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, form: int
) -> None:
    """In any order, with another name for the same folder, halves in several tars."""
    odd = "ü" * 20 if form == tarfile.USTAR_FORMAT else "long-" * 30 + "\udcff"
    for kind, picture in zip(("fgr", "pha"), figure(72, 96, 3), strict=True):
        with tarfile.open(tmp_path / f"{kind}.tar", "w", format=form) as archive:
            for path in sorted((data / "train" / kind).rglob("*.*"), reverse=True):
                archive.add(path, f"./{kind}/{path.relative_to(data / 'train' / kind)}")
            file = io.BytesIO()
            picture.save(file, "PNG")
            add(archive, f"{kind}/{odd}.png", file.getvalue())
    found = tar.open_tars(tmp_path, ("fgr", "pha", "rgba"), print)
    assert "2 of 2 tar files have no index" in capsys.readouterr().out
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
    count = tar.OPEN_AT_MOST + 20
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
    assert len(os.listdir("/proc/self/fd")) - before <= tar.OPEN_AT_MOST + 1
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


def test_foregrounds_without_alphas(own: Path) -> None:
    shutil.rmtree(own / "train")
    (own / "train").mkdir()
    with tarfile.open(own / "train/a.tar", "w") as archive:
        add(archive, "fgr/a.jpg", jpeg(1))
    with pytest.raises(DataError, match=r"no picture under pha/ in .*, but 1 under fgr/"):
        opened(own)
    with tarfile.open(own / "train/b.tar", "w") as archive:
        add(archive, "pha/b.jpg", jpeg(1))
    with pytest.raises(DataError, match=r"2 picture.*a\.tar: fgr/a\.jpg, .*b\.tar: pha/b\.jpg"):
        opened(own)


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
    with pytest.raises(OSError, match="was cut off while it was read"):
        file.read()
    tar._descriptor.cache_clear()
    with pytest.raises(DataError, match=r"not the tar .* bytes instead of"):
        open_picture(tars / "1.jpg")
    path.unlink()
    with pytest.raises(DataError, match=r"a\.tar cannot be read \(No such file"):
        open_picture(tars / "1.jpg")


@pytest.mark.parametrize(("there", "instead"), [
    ("}", ""), ("{", "[" * 100_000 + "{"), ("index 1", "index 0"), ('"0.jpg", ', ""),
    ('"0.jpg"', "null"), ('"sizes": [', '"sizes": [-'), ('"offsets": [', '"offsets": [9'),
    ("headers", "x"), ('"sizes": [', '"sizes": [99999999999999999999'), ("[512", "[0"),
])  # fmt: skip
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
    with pytest.raises(DataError, match=r"a\.tar goes on behind its end mark"):
        open_all(path.parent)


def test_a_name_that_is_there_twice(background: Callable) -> None:
    background(2, "b.tar")
    with pytest.raises(DataError, match=r"2 name.* twice, the first is 0\.jpg in .*a.tar and .*b"):
        open_all(background(3, "a.tar"))


def test_what_lies_beside_tars(own: Path) -> None:
    Image.new("RGB", (9, 9)).save(own / "backgrounds/train/x.jpg")
    with pytest.raises(DataError, match=r"holds both tar files \(00000.tar\) and pictures"):
        opened(own)
    (own / "backgrounds/train/x.jpg").unlink()
    (own / "train/fgr").mkdir()
    with pytest.raises(DataError, match=r"holds both tar files .*\(fgr\).*: move one kind away"):
        opened(own)
    (own / "train/fgr").rmdir()
    (own / "train/00001.tar").unlink()
    with pytest.raises(DataError, match=r"00001\.tar is missing, but its index is there"):
        opened(own)


def test_pictures_beside_a_compressed_archive_are_read(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "data")
    (folder / "backgrounds/train/original.tar.gz").write_bytes(gzip.compress(b"whatever"))
    assert describe(*opened(folder)) == describe(*opened(data))


# ---- As a user sees it ---------------------------------------------------------------------------


def test_a_cut_tar_stops_the_run_before_training(
    own: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    path = own / "train/00000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    run(own, status=2)
    told = capsys.readouterr()
    (line,) = told.err.strip().splitlines()
    assert line.startswith(f"train_base.py: error: {path} is cut off: it has 5000 of the")
    assert "validation" not in told.out and not list(here.glob("checkpoint/run/*.pth"))


@pytest.mark.parametrize("skip", [False, True])
def test_a_bad_picture_is_named_with_its_tar(
    own: Path, here: Path, capsys: pytest.CaptureFixture, skip: bool
) -> None:
    path = own / "train/00000.tar"
    index = read_index(path)
    content = bytearray(path.read_bytes())
    start = index.offsets[0]
    content[start : start + index.sizes[0]] = b"x" * index.sizes[0]
    path.write_bytes(content)
    name = f"{path}: {index.names[0]} cannot be decoded as JPEG or PNG (is no picture"
    if skip:
        run(own, "--max-steps", 3, "--on-bad-image", "skip")
        assert f"left out (bad picture 1): {name}" in capsys.readouterr().out
    else:
        run(own, status=2)
        assert f"train_base.py: error: {name}" in capsys.readouterr().err


def test_a_picture_that_is_damaged_behind_its_header_is_named_with_its_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "b/c.jpg", jpeg(1)[:700])
    picture = open_picture(open_all(tmp_path) / "b/c.jpg")
    with pytest.raises(DataError, match=r"a\.tar: b/c\.jpg cannot be decoded as JPEG or PNG"):
        decode(picture, "RGB", (40, 60), np.eye(3)[:2])


# ---- The tool ------------------------------------------------------------------------------------


def packing(*arguments: object) -> int:
    return shard.main([str(word) for word in arguments])


def test_the_tool_says_what_it_wrote_and_how_to_train_on_it(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert packing(data, "new/folder", "--shard-size", 1) == 0
    told = capsys.readouterr().out
    assert "6 foregrounds and 6 backgrounds to train on, 2 and 2 to validate on, in 4 tar" in told
    assert told.endswith("python train_base.py --dataset-dir new/folder\n")
    assert sorted(os.listdir("new/folder")) == ["backgrounds", "train", "valid"]
    Path("other").mkdir()
    assert packing(data, "other", "--shard-size", 1) == 0
    assert contents(Path("other")) == contents(Path("new/folder"))  # to the last bit


def test_wrong_places(data: Path, here: Path, capsys: pytest.CaptureFixture) -> None:
    own = shutil.copytree(data, "own")
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    Path("killed/.unfinished").mkdir(parents=True)
    Path("file").touch()
    for source, target, said in (
        ("nothing", "new", "there is no folder nothing: SOURCE"),
        ("full", "new", "there is no folder full/train/fgr"),
        (own, "full", "TARGET full is not empty, mine.txt is in it: nothing is written over"),
        (own, "killed", "(left by a run that was killed: delete all)"),
        (own, "file", "TARGET file is a file"),
        (own, own, "is not empty"),
        (own, own + "/tars", "TARGET own/tars lies in SOURCE own"),
    ):
        assert packing(source, target) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("shard.py: error: ") and said in line
    assert contents(Path(own)) == contents(data)
    assert sorted(os.listdir()) == ["file", "full", "killed", "own"]
    with pytest.raises(SystemExit, match="2"):
        packing(own, "new", "--shard-size", 0)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_target_as_it_was(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    number: int, there: bool,
) -> None:  # fmt: skip
    added = shard._add

    def add_and_signal(archive: tarfile.TarFile, name: str, *more: object) -> None:
        added(archive, name, *more)
        if name == "3.jpg":  # when there is a finished tar already
            os.kill(os.getpid(), number)

    monkeypatch.setattr(shard, "_add", add_and_signal)
    if there:
        Path("a").mkdir()
    before = signal.getsignal(number)
    assert packing(data, "a" if there else "a/b/c") == 128 + number
    assert signal.getsignal(number) == before
    assert "is as it was before" in capsys.readouterr().err
    assert os.listdir() == (["a"] if there else []) and not (there and os.listdir("a"))


def test_no_room(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
        assert packing(data, "new") == 2
    assert "has room for 0.00 GB" in capsys.readouterr().err

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)  # found out too late
    assert packing(data, "new") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "in new (No space left on device): nothing of it is left there" in line
    assert os.listdir() == []


def test_what_others_put_into_the_target_meanwhile_is_left_alone(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    mine = Path("new/.unfinished/mine.txt")  # another run's, begun at the same time

    def put(*_: object) -> None:
        mine.parent.mkdir(parents=True)
        mine.touch()

    with monkeypatch.context() as patch:
        patch.setattr(shard, "_check_places", put)
        assert packing(data, "new") == 2
    assert "File exists" in capsys.readouterr().err
    assert contents(Path()) == {str(mine): b""}

    shutil.rmtree("new")
    mine = Path("new/valid/mine.txt")
    compare = shard._compare
    monkeypatch.setattr(shard, "_compare", lambda *a: (compare(*a), mine.exists() or put()))
    assert packing(data, "new") == 2
    assert "Directory not empty" in capsys.readouterr().err
    assert contents(Path()) == {str(mine): b""}
    assert os.listdir("new") == ["valid"]


@pytest.mark.parametrize("change", [-10, 10])
def test_a_picture_that_changes_while_it_is_packed(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    change: int,
) -> None:  # fmt: skip
    size_of = shard._size_of
    monkeypatch.setattr(shard, "_size_of", lambda path: size_of(path) - change)
    assert packing(data, "new") == 2
    assert "0000.jpg changed while it was packed" in capsys.readouterr().err
    assert os.listdir() == []


def test_what_was_written_is_compared_with_the_source(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    split = shard._split
    monkeypatch.setattr(shard, "_split", lambda *args: [each[:-1] for each in split(*args)])
    assert packing(data, "new") == 2
    assert "what was written to new is not what was read" in capsys.readouterr().err
    assert os.listdir() == []


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\nfrom dataset import shard\n"
        "try: shard.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert re.search(r"--shard-size MB.*\(default: 1000\)", done.stdout, re.DOTALL)


@pytest.mark.slow
def test_the_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "shards.json"
    shards.main(["--quick", "--data", str(tmp_path / "drawn"), "--json", str(path)])
    figures = json.loads(path.read_text())
    assert set(figures["tars_over_files"]) == {"read", "header", "decode", "worker"}
    ms = {name: of["median"] for name, of in figures["ms"].items()}
    for place in ("files", "tars"):
        assert 0 < ms[f"read {place}"] < ms[f"decode {place}"]
    assert figures["opening"]["names"] == 2000 and figures["opening"]["scanned_a_second"] > 0
    assert os.listdir(tmp_path / "drawn") and not list(tmp_path.glob("shards-*"))


def test_the_index_is_plain_json(packed: Path) -> None:
    content = json.loads((packed / "train/00000.tar.index").read_text())
    with (packed / "train/00000.tar").open("rb") as file:
        file.seek(content["offsets"][0])
        picture = Image.open(io.BytesIO(file.read(content["sizes"][0])))
    assert picture.format == "JPEG" and content["names"][0].startswith("fgr/")
