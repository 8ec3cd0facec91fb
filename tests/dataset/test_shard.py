"""Packing a data set into tar files: the same samples as from the files, and nothing half done."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import pack_data
from benchmarks import shards
from common.processes import STOP_SIGNALS
from dataset import shard
from dataset.folders import describe
from dataset.sample import MattingDataset, collate
from dataset.sampler import batch_of_step
from dataset.tar_index import tars_in
from tests.support import ROOT
from tests.support.drawn import SMALL, backdrop, figure, make_data
from tests.support.tars import contents, opened, train

pytestmark = pytest.mark.usefixtures("tiny_network")

# ---- The same samples ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "valid"])
def test_names_order_fingerprint_and_bytes_are_those_of_the_files(
    data: Path, packed: Path, split: str
) -> None:
    files, tars = opened(data, split), opened(packed, split)
    assert describe(*files) == describe(*tars)
    for index in range(len(files[0])):
        for path, member in zip(files[0].paths(index), tars[0].paths(index), strict=True):
            assert member.open().read() == path.read_bytes()
            assert str(member).endswith(f".tar: {path.relative_to(data / split)}")
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


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (1, "spawn")])
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


@pytest.mark.slow
def test_a_run_and_its_continuation_over_tars_equal_the_run_over_files(
    data: Path, packed: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    train(data, "--max-steps", 3, "--model-name", "files")
    train(packed, "--max-steps", 2, "--num-workers", 2)
    train(packed, "--max-steps", 3, "--model-last-checkpoint", "auto")
    train(data, "--max-steps", 2, "--model-name", "mixed")  # and begun over files
    train(packed, "--max-steps", 3, "--model-name", "mixed", "--model-last-checkpoint", "auto")
    assert capsys.readouterr().out.count("continuing") == 2
    files, *others = (
        torch.load(f"checkpoint/{name}/epoch-0.pth", weights_only=True)
        for name in ("files", "run", "mixed")
    )
    for other in others:
        assert list(files) == list(other)
        assert all(torch.equal(files[name], other[name]) for name in files)


def test_some_folders_may_hold_tars_and_others_pictures(data: Path, own_packed: Path) -> None:
    for place in ("backgrounds/train", "valid"):
        shutil.rmtree(own_packed / place)
        shutil.copytree(data / place, own_packed / place)
    for split in ("train", "valid"):
        assert describe(*opened(own_packed, split)) == describe(*opened(data, split))


def test_rgba_pictures(tmp_path: Path) -> None:
    source = make_data(tmp_path / "source", 0, 0)
    for split in ("train", "valid"):
        for folder in (f"{split}/rgba/a", f"backgrounds/{split}"):
            (source / folder).mkdir(parents=True)
        for number in range(3):
            fgr, pha = figure(72, 96, number)
            fgr.putalpha(pha)
            fgr.save(source / split / f"rgba/a/{number}.png")
        backdrop(80, 60, 1).save(source / "backgrounds" / split / "b.jpg")
    shard.pack(source, tmp_path / "target", SMALL)
    files, tars = opened(source), opened(tmp_path / "target")
    assert describe(*files) == describe(*tars) and len(tars[0]) == 3
    keys = batch_of_step(0, count=3, batch_size=3, seed=0, crop_size=(64, 64))
    one, other = (collate([MattingDataset(*each)[key] for key in keys]) for each in (files, tars))
    assert torch.equal(one["fgr"], other["fgr"]) and torch.equal(one["pha"], other["pha"])


def test_tars_may_be_packed_again(packed: Path, data: Path, tmp_path: Path) -> None:
    shard.pack(packed, tmp_path / "again", 10 * SMALL)
    shard.pack(data, tmp_path / "once", 10 * SMALL)
    assert contents(tmp_path / "again") == contents(tmp_path / "once")


# ---- The tool ------------------------------------------------------------------------------------


def packing(*arguments: object) -> int:
    return pack_data.main([str(word) for word in arguments])


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


def test_what_it_was_called_before_goes_on_working_and_says_so(data: Path, here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dataset.shard", data, "new", "--shard-size", "1"],
        cwd=here,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert re.search(r"pack_data\.py .* new --shard-size 1$", first)
    assert others[-1].endswith("train_base.py --dataset-dir new")
    assert sorted(os.listdir("new")) == ["backgrounds", "train", "valid"]


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
        assert line.startswith("pack_data.py: error: ") and said in line
    assert contents(Path(own)) == contents(data)
    assert sorted(os.listdir()) == ["file", "full", "killed", "own"]
    with pytest.raises(SystemExit, match="2"):
        packing(own, "new", "--shard-size", 0)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_leaves_the_target_as_it_was(
    data: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    number: int,
    there: bool,
) -> None:
    added = shard._add

    def add_and_signal(archive: tarfile.TarFile, name: str, *more: object) -> None:
        added(archive, name, *more)
        if name == "3.jpg":  # when there is a finished tar already
            try:
                os.kill(os.getpid(), number)
            finally:  # what comes while it tidies up does not disturb it
                for other in STOP_SIGNALS:
                    os.kill(os.getpid(), other)

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
    assert "has room for 9 bytes" in capsys.readouterr().err

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)  # found out too late
    assert packing(data, "new") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "new (No space left on device)" in line
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
    data: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    change: int,
) -> None:
    size_of = shard._size_of
    monkeypatch.setattr(shard, "_size_of", lambda path: size_of(path) - change)
    assert packing(data, "new") == 2
    assert "0000.jpg changed" in capsys.readouterr().err
    assert os.listdir() == []


def test_what_was_written_is_compared_with_the_source(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    numbered = shard._numbered
    monkeypatch.setattr(shard, "_numbered", lambda *args: list(numbered(*args))[:-1])
    assert packing(data, "new") == 2
    assert "written to new" in capsys.readouterr().err
    assert os.listdir() == []


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys, pack_data\n"
        "try: pack_data.main(['--help'])\n"
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
