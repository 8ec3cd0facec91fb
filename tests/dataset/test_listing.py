"""What is read of a folder, what is passed over and said, and which names meet."""

import os
import tarfile
import unicodedata
from pathlib import Path

import pytest

import check_data
import evaluate
from common.errors import DataError
from dataset.listing import by_stem, find_pictures, stem_of
from dataset.pictures import find_pairs
from dataset.tar_index import scan
from prediction.frames import find_frames
from tests.support.drawn import backdrop, figure, make_data
from tests.support.running import run
from tests.support.tars import add, jpeg

pytestmark = pytest.mark.usefixtures("tiny_network")

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café/é") for form in ("NFC", "NFD"))


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        backdrop(20, 10, 0).save(path, "PNG" if name.endswith("png") else "JPEG")
    return folder


def test_every_ending_of_a_jpeg_is_read_and_folders_may_have_one(tmp_path: Path) -> None:
    make(tmp_path, "a.jfif", "b.JPE", "c.jpeg", "x.jpg/e.jpg")
    assert find_pictures(tmp_path) == ["a.jfif", "b.JPE", "c.jpeg", "x.jpg/e.jpg"]


def test_what_is_passed_over_is_counted_by_its_ending(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    others = (
        "b.webp",
        "sub/c.WEBP",
        "d.tif",
        ".hidden.bmp",
        "Thumbs.db",
        "LICENSE",
        "no.such ending",
    )
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.png")
    said: list[str] = []
    assert find_pictures(tmp_path, said.append) == ["a.jpg"]
    assert said == [
        f"{tmp_path}: not read: 2 .webp, 2 without an ending, 1 .png that is no file, 1 .tif; "
        "pictures are .jpg, .jpeg, .jpe, .jfif, .png"
    ]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"there are 2 \.webp, .* which are not read"):
        find_pictures(tmp_path)


def test_a_tar_says_it_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("0.jpg", "1.webp", "2.webp", ".DS_Store"):
            add(archive, name, jpeg(0))
    said: list[str] = []
    assert list(scan(tmp_path / "a.tar", said.append).names) == ["0.jpg"]
    assert said == [
        f"{tmp_path}/a.tar: not read: 2 .webp; pictures are .jpg, .jpeg, .jpe, .jfif, .png"
    ]


def test_every_script_that_lists_says_it(here: Path, capsys: pytest.CaptureFixture) -> None:
    data = make_data(here / "data", 2, 2)
    (data / "train/fgr/x.webp").write_bytes(b"x")
    (data / "valid/pha/x.bmp").write_bytes(b"x")
    (data / "backgrounds/train/x.tif").write_bytes(b"x")
    run(data, "--max-steps", 1)
    trained = capsys.readouterr().out
    words = ["--dataset-dir", data, "--num-workers", "0", "--crop-size", "32", "32"]
    check_data.main([str(word) for word in [*words, "--contact-rows", "0"]])
    checked = capsys.readouterr().out
    for said in (trained, checked):
        for name in (
            "train/fgr: not read: 1 .webp",
            "valid/pha: not read: 1 .bmp",
            "backgrounds/train: not read: 1 .tif",
        ):
            assert said.count(f"{data}/{name};") == 1
    true = str(data / "valid/pha")
    evaluate.main(["--pred-dir", true, "--true-dir", true])
    assert f"{true}: not read: 1 .bmp;" in capsys.readouterr().out
    heard: list[str] = []
    find_frames(data / "train/fgr", data / "train/fgr", heard.append)
    assert len(heard) == 2 and "1 .webp" in heard[0]


def test_names_meet_whatever_their_unicode_form(tmp_path: Path) -> None:
    assert COMPOSED != DECOMPOSED and stem_of(f"{DECOMPOSED}.a.png") == f"{COMPOSED}.a"
    for folder, name in (("fgr", f"{COMPOSED}.jpg"), ("pha", f"{DECOMPOSED}.png")):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True)
        figure(20, 16, 0)[folder == "pha"].save(path)
    pairs = find_pairs(tmp_path / "fgr", tmp_path / "pha")
    assert [path.name for path in pairs.paths(0)] == [
        os.path.basename(f"{COMPOSED}.jpg"),
        os.path.basename(f"{DECOMPOSED}.png"),
    ]
    frames, _ = find_frames(tmp_path / "pha", tmp_path / "fgr")
    assert [frame.name for frame in frames] == [DECOMPOSED]  # outputs are named as the source is


def test_two_forms_of_a_name_in_one_folder_are_told_apart(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    data = make_data(here / "data", 2, 2)
    for form in (COMPOSED, DECOMPOSED):
        make(data / "train/fgr", f"{form}.jpg")
        make(data / "train/pha", f"{form}.png")
    with pytest.raises(DataError, match=r"in two Unicode forms: .*'cafe\\u0301/e\\u0301\.png'"):
        by_stem(data / "train/pha")
    run(data, status=2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and r"caf\xe9/\xe9.jpg' and 'cafe\u0301" in error.replace(
        r"cafe\u0301/e\u0301.jpg' and 'caf\xe9", r"caf\xe9/\xe9.jpg' and 'cafe\u0301"
    )
