"""A data set out of clips: whole or not at all, and the same after a kill."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

import pack_data
from dataset import clip as one_clip
from dataset import clips
from dataset.clip import picture_size
from dataset.folders import open_split
from dataset.video import VideoReader
from tests.support import ROOT
from tests.support.clips import HEIGHT, WIDTH, write_clip, write_pair
from tests.support.drawn import backdrop
from tests.support.tars import contents, opened

ALONE = ("--num-workers", 1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("clips")
    for name in ("a", "b/c", "d"):
        write_pair(source, name)
    return source


@pytest.fixture
def source(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of one's own, in the current folder, under the names fgr and pha."""
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def packing(*more: object, out: str = "out") -> int:
    return pack_data.main([str(word) for word in ("--from-clips", "fgr", "pha", out, *more)])


def names_of(split: str, out: str = "out") -> list[str]:
    return sorted(str(path) for path in (Path(out) / split / "fgr").rglob("*.*"))


def foregrounds(split: str, out: str = "out"):
    (Path(out) / "backgrounds" / split).mkdir(parents=True, exist_ok=True)
    backdrop(40, 30, 1).save(Path(out) / "backgrounds" / split / "a.jpg")
    return opened(Path(out), split)[0]


# ---- What is written -----------------------------------------------------------------------------


def test_every_second_frame_of_both_is_what_the_reader_gives(source: Path) -> None:
    assert packing("--every", 2, "--valid-clips", "b/c", "--format", "png", *ALONE) == 0
    train, valid = foregrounds("train"), foregrounds("valid")
    assert list(valid.fgr_names) == [f"b/c/{n:06}.png" for n in (0, 2, 4)]
    assert list(train.fgr_names) == [f"{c}/{n:06}.png" for c in "ad" for n in (0, 2, 4)]
    assert sorted(os.listdir("out")) == ["backgrounds", "train", "valid"]
    with VideoReader(Path("fgr/a.mp4")) as fgr, VideoReader(Path("pha/a.mov")) as pha:
        frames = [(one[0], other[0]) for one, other in zip(fgr, pha, strict=True)]
    for index, number in enumerate((0, 2, 4)):
        one, other = (np.array(Image.open(member.open())) for member in train.paths(index))
        assert np.array_equal(one, frames[number][0])
        assert np.array_equal(other, frames[number][1][..., 0]) and other.ndim == 2
        middle = 10 + 8 * number
        assert other[HEIGHT // 2, middle] > 250 and other[2, middle] < 5


def test_folders_and_tars_hold_the_same_pictures(source: Path) -> None:
    assert packing("--folders", "--scale", 24, *ALONE) == 0
    assert packing("--scale", 24, *ALONE, out="tars") == 0
    for split in ("train", "valid"):
        one, other = foregrounds(split), foregrounds(split, "tars")
        assert list(one.fgr_names) == list(other.fgr_names)
        assert Image.open(one.paths(0)[0]).size == (WIDTH // 2, 24)
        for index in range(len(one)):
            for path, member in zip(one.paths(index), other.paths(index), strict=True):
                assert path.read_bytes() == member.open().read()


def test_a_folder_of_its_own_for_each_split(source: Path) -> None:
    """The clips to validate on may lie elsewhere: they are packed into the same OUT."""
    assert packing("--valid-share", 0, "--folders", *ALONE) == 0
    assert packing("--valid-share", 1, "--every", 5, "--folders", *ALONE) == 0
    assert len(names_of("train")) == 15 and len(names_of("valid")) == 3
    before = contents(Path("out"))
    assert packing("--valid-share", 0, *ALONE) == 2  # nothing is written over
    assert contents(Path("out")) == before


def test_a_split_takes_whole_clips_evenly_spaced() -> None:
    pairs = [one_clip.Clip(f"{n:02}", Path(), Path(), "") for n in range(20)]
    for share, expected in (
        (0.1, ["05", "15"]),
        (0.01, ["10"]),
        (0, []),
        (1, [*map("{:02}".format, range(20))]),
    ):
        found = clips._with_splits(pairs, None, share)
        assert [each.name for each in found if each.split == "valid"] == expected
        assert [each.name for each in found] == [each.name for each in pairs]
    almost = clips._with_splits(pairs, None, 0.999)
    assert {each.split for each in almost} == {"train", "valid"}


def test_pictures_keep_their_shape() -> None:
    assert picture_size((1080, 1440), 4 / 3, 0) == (1080, 1920)
    assert picture_size((2160, 3840), 1, 1080) == (1080, 1920)
    assert picture_size((480, 640), 1, 1080) == (480, 640)  # not enlarged
    assert picture_size((1920, 1080), 1, 1080) == (1080, 608)


# ---- Clips that do not fit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"count": 4}, ["ends after 4 frames", "fgr/a.mp4 goes on"]),
        ({"rate": 24}, ["frames a second", "25 and 24"]),
        ({"size": (48, 66)}, ["frame size", "(48, 64) and (48, 66)"]),
        ({"pixel_aspect": Fraction(4, 3)}, ["pixel aspect"]),
        ({"grey": False}, ["pha/a.mov is in colour"]),
        ({"cut": True}, ["pha/a.mov", "cut short or damaged"]),
        ({"remove": True}, ["1 clip without a partner", "fgr/a.mp4"]),
    ],
    ids=lambda each: str(next(iter(each))),
)
@pytest.mark.parametrize("how", ["--folders", "--format=jpg"])
def test_a_clip_that_does_not_fit_is_named_and_left_out_only_if_asked(
    source: Path, capsys: pytest.CaptureFixture, fault: dict, words: list[str], how: str
) -> None:
    pha = Path("pha/a.mov")
    if fault.get("remove"):
        pha.unlink()
    elif fault.get("cut"):
        pha.write_bytes(pha.read_bytes()[:-300])
    else:
        write_clip(pha, **{"grey": True, **fault})
    assert packing(how, *ALONE) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in [*words, "--on-bad-clip skip"]), line
    assert not Path("out/train").exists() and not Path("out/valid").exists()
    assert packing(how, "--on-bad-clip", "skip", *ALONE) == 0
    told = capsys.readouterr().out
    assert words[-1].split(" goes")[0] in told and "left out: " in told
    found = [name for split in ("train", "valid") for name in foregrounds(split).fgr_names]
    assert len(found) == 10 and not any(name.startswith("a/") for name in found)


def test_wrong_words(source: Path, capsys: pytest.CaptureFixture) -> None:
    Path("full/valid").mkdir(parents=True)
    Path("full/train").mkdir()
    Path("empty").mkdir()
    for words, said in (
        (("fgr", "nothing", "out"), "there is no folder nothing"),
        (("fgr", "fgr", "out"), "one folder"),
        (("fgr", "empty", "out"), "no clip (.mp4"),
        (("fgr", "pha", "fgr/out"), "fgr/out lies in fgr"),
        (("fgr", "pha", "full"), "full/train is there"),
        (("fgr", "pha", "fgr/a.mp4"), "is a file"),
        (("fgr", "pha", "out", "--valid-clips", "x"), "no pair of clips x"),
    ):
        assert pack_data.main(["--from-clips", *words]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line
    assert sorted(os.listdir()) == ["empty", "fgr", "full", "pha"]
    assert sorted(os.listdir("full")) == ["train", "valid"]  # nothing is left of a refused start
    for words in (["a"], ["a", "b", "--every", "2"], ["a", "--from-clips", "b", "c", "d"]):
        with pytest.raises(SystemExit, match="2"):
            pack_data.main(words)
    assert "--from-clips" in capsys.readouterr().err


def test_training_on_clips_says_this_command(source: Path, capsys: pytest.CaptureFixture) -> None:
    import check_data

    for split in ("train", "valid"):
        shutil.copytree("fgr", f"set/{split}/fgr")
        shutil.copytree("pha", f"set/{split}/pha")
        (source / "set/backgrounds" / split).mkdir(parents=True)
        backdrop(40, 30, 1).save(f"set/backgrounds/{split}/a.jpg")
    command = "pack_data.py --from-clips set/train/fgr set/train/pha OUT"
    with pytest.raises(ValueError, match=command):
        open_split({"train": {"fgr": "set/train/fgr", "pha": "set/train/pha"}}, "train")
    assert check_data.main(["--dataset-dir", "set", "--num-workers", "1"]) == 1
    assert command in capsys.readouterr().out


# ---- Stopped and gone on with --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["--folders", "--format=jpg"])
def test_what_was_stopped_goes_on_and_is_the_same_in_the_end(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, how: str
) -> None:
    assert packing(how, *ALONE, out="whole") == 0
    read, packed = one_clip._encoded, []

    def stop_in_the_second(*words: object) -> bytes:
        packed.append(1)
        if len(packed) == 13:  # 5 frames have 10 pictures
            os.kill(os.getpid(), signal.SIGTERM)
        return read(*words)

    monkeypatch.setattr(one_clip, "_encoded", stop_in_the_second)
    assert packing(how, *ALONE) == 128 + signal.SIGTERM
    assert "type the same command" in capsys.readouterr().err
    assert os.listdir("out") == [".unfinished"]  # which training does not take for a data set
    assert packing(how, "--every", 2, *ALONE) == 2  # other options would mix two kinds of sets
    assert "every was 1" in capsys.readouterr().err
    packed.clear()
    packed += [1] * 13
    assert packing(how, *ALONE) == 0
    assert "1 of 3 clips are packed" in capsys.readouterr().out
    assert len(packed) == 13 + 20  # what was done is not done again
    assert contents(Path("out")) == contents(Path("whole"))


def test_a_clip_that_changed_meanwhile_is_packed_anew(source: Path) -> None:
    Path("pha/d.mov").rename("d.mov")
    write_clip(Path("pha/d.mov"), True, count=4)
    assert packing("--folders", *ALONE) == 2
    for name, kind in (("fgr/a.mp4", False), ("pha/a.mov", True)):
        write_clip(Path(name), kind, count=3)
    Path("d.mov").replace("pha/d.mov")
    assert packing("--folders", "--valid-clips", "d", *ALONE) == 0
    assert len(names_of("train")) == 3 + 5 and len(names_of("valid")) == 5


def test_a_kill_between_two_moves_is_finished(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packing(*ALONE, out="whole") == 0
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if path.name == "valid":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        assert packing(*ALONE) == 128 + signal.SIGINT
    assert sorted(os.listdir("out")) == [".unfinished", "train"]
    assert packing(*ALONE) == 0
    assert contents(Path("out")) == contents(Path("whole"))


def test_one_program_at_a_time(source: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("fcntl")
    with clips._locked(Path("out/.unfinished")):
        assert packing(*ALONE) == 2
    assert "another program packs into out" in capsys.readouterr().err
    assert not Path("out").exists()


def test_no_room(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What was packed before stays, and the same command goes on."""
    write, written = one_clip.write_tars, []

    def full(*words: object) -> None:
        written.append(1)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*words)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(one_clip, "write_tars", full)
        assert packing(*ALONE) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no room in out (No space left on device): 1 clip of 3" in line
    assert packing(*ALONE) == 0
    assert "going on: 1 of 3" in capsys.readouterr().out


@pytest.mark.slow
def test_many_processes_and_one_that_is_killed_outright(source: Path) -> None:
    assert packing(*ALONE, out="whole") == 0
    command = [sys.executable, ROOT / "pack_data.py", "--from-clips", "fgr", "pha", "out"]
    command += ["--num-workers", "2"]
    with subprocess.Popen(command) as process:
        while process.poll() is None and not list(Path("out/.unfinished/done").glob("*")):
            pass
        process.kill()
    if Path("out/.unfinished").exists():
        assert subprocess.run(command).returncode == 0
    assert contents(Path("out")) == contents(Path("whole"))
