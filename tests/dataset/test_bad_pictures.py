"""Pictures that cannot be trained on: named, or left out where that is asked for."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from dataset.bad_images import BadImages
from dataset.folders import data_folders, open_split
from dataset.pictures import decode, find_pictures, open_picture
from dataset.sample import MattingDataset
from dataset.sampler import SampleKey
from tests.support.drawn import make_data
from tests.support.running import error_of, run, torch_threads

pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A background that is none, a foreground cut short, an alpha of another size."""
    own = make_data(tmp_path / "own", train=6)
    path = own / "train/fgr/clip1/0003.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    Image.new("L", (10, 10)).save(own / "train/pha/clip0/0004.png")
    (own / "backgrounds/train/1.jpg").write_text("hello")
    return own


def test_a_bad_picture_is_replaced_by_the_next_foreground(spoilt: Path) -> None:
    splits = open_split(data_folders("", spoilt, print), "train", check_headers=False)
    with pytest.raises(DataError, match="unlike sizes"):
        open_split(data_folders("", spoilt, print), "train")
    samples = MattingDataset(*splits, seed=1, skip=True)
    names = [Path(samples.foregrounds.paths(index)[0]).name for index in range(6)]
    bad = names.index("0003.jpg")
    plain, replaced = (samples[SampleKey(2, i, 0, (32, 32))] for i in ((bad + 1) % 6, bad))
    assert replaced["files"] == plain["files"]
    assert (replaced["bgr"] == plain["bgr"]).all()
    assert plain["faults"] == [] and "0003.jpg cannot be decoded" in replaced["faults"][0]
    assert isinstance(MattingDataset(*splits)[SampleKey(2, bad, 0, (32, 32))], DataError)


@pytest.mark.parametrize("skip", [False, True])
def test_threads_find_what_is_found_one_by_one(spoilt: Path, skip: bool) -> None:
    splits = open_split(data_folders("", spoilt, print), "train", check_headers=False)
    samples = MattingDataset(*splits, seed=1, skip=skip)
    keys = [SampleKey(0, index, draw, (32, 32)) for draw in range(3) for index in range(6)]
    alone = [samples[key] for key in keys]
    with torch_threads(3):
        together = samples.__getitems__(keys)
    errors = [str(sample) for sample in alone if isinstance(sample, DataError)]
    assert errors == [str(sample) for sample in together if isinstance(sample, DataError)]
    faults = [sample["faults"] for sample in alone if isinstance(sample, dict)]
    assert faults == [sample["faults"] for sample in together if isinstance(sample, dict)]
    assert any(faults) if skip else errors and not any(faults)


def test_skipping_counts_says_each_once_and_has_a_limit() -> None:
    said = []
    bad_images = BadImages(300, said.append)
    bad_images.report(["a.jpg is bad", "b.jpg is bad"])
    bad_images.report(["a.jpg is bad"])
    bad_images.report(["c.jpg is bad"])
    assert said == [
        f"left out (bad picture {n}): {name}.jpg is bad" for n, name in enumerate("abc", 1)
    ]
    assert bad_images.samples == 4
    with pytest.raises(DataError, match="4 pictures were left out, which is more than 1 % of 300"):
        bad_images.report(["d.jpg is bad"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_without_a_bad_picture(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture, workers: int
) -> None:
    own = make_data(tmp_path / "own")
    path = own / "train/fgr/clip1/0003.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    run(own, "--max-steps", 4, "--num-workers", workers, status=2)
    assert error_of(capsys).endswith("; replace or remove it, or type --on-bad-image skip")
    skip = ["--on-bad-image", "skip", "--num-workers", workers, "--overwrite"]
    run(own, "--max-steps", 4, *skip)
    told = capsys.readouterr().out
    assert told.count("left out (bad picture 1)") == 1
    # Once in each of two epochs, and once more where it fills an epoch's last batch.
    assert re.search("1 bad pictures left out, in [234] samples", told)
    (own / "train/fgr/clip1/0001.jpg").write_bytes(b"")
    run(own, "--max-steps", 8, *skip, status=2)
    assert "more than 1 % of 6" in error_of(capsys)


def test_modes_that_do_not_belong(tmp_path: Path) -> None:
    for name, mode, wanted in (
        ("cmyk.jpg", "CMYK", "RGB"),
        ("own-alpha.png", "RGBA", "L"),
        ("grey-alpha.png", "LA", "L"),
    ):
        Image.new(mode, (8, 8)).save(tmp_path / name)
        with pytest.raises(DataError, match=f"{name} cannot be taken as .* its mode is {mode}"):
            decode(open_picture(tmp_path / name), wanted, (8, 8), np.eye(3)[:2])


def test_pictures_that_are_too_large(tmp_path: Path) -> None:
    Image.new("1", (20_000, 5_001)).save(tmp_path / "large.png")
    Image.new("1", (20_000, 5_000)).save(tmp_path / "just.png")
    with pytest.raises(DataError, match="20000x5001, more than 100 million pixels"):
        open_picture(tmp_path / "large.png")
    open_picture(tmp_path / "just.png").close()


def test_other_formats_are_not_decoded(tmp_path: Path) -> None:
    forms = {"GIF": "a GIF", "BMP": "a BMP", "TIFF": "a TIFF", "WEBP": "a WebP", "PPM": "a PNM"}
    for form, named in forms.items():
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format=form)
        with pytest.raises(DataError, match=rf"decoded as JPEG or PNG \(is {named}; convert it"):
            open_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC; convert it to PNG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "is an AVIF; convert it to PNG"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "is a video; take the frames out of it first"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "fetch the file with git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page; download the file behind its link"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "is what macOS keeps beside a file; remove it"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "is a JPEG 2000; convert it to PNG"),
        (b"hello", "is no picture, or of another format"),
    ],
)
def test_a_file_with_a_picture_s_name_is_called_what_it_is(
    tmp_path: Path, content: bytes, named: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(named)):
        open_picture(tmp_path / "a.jpg")


def test_links_that_lead_back_do_not_hang_the_scan(tmp_path: Path) -> None:
    for folder in ("a", "b", "a/deep"):
        (tmp_path / folder).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / folder / "1.png")
    (tmp_path / "a/deep/up").symlink_to(tmp_path)
    (tmp_path / "a/over").symlink_to("../b")
    (tmp_path / "b/over").symlink_to("../a")
    (tmp_path / "b/self").symlink_to(".")
    (tmp_path / "b/loop").symlink_to("loop")
    found = find_pictures(tmp_path)
    assert found == [
        "a/1.png",
        "a/deep/1.png",
        "a/over/1.png",
        "b/1.png",
        "b/over/1.png",
        "b/over/deep/1.png",
    ]


def test_one_bad_background_of_few_is_skipped(tmp_path: Path) -> None:
    own = make_data(tmp_path / "own")
    for number in range(2, 6):
        (own / f"backgrounds/train/{number}.jpg").unlink()
    (own / "backgrounds/train/1.jpg").write_bytes(b"")
    splits = open_split(data_folders("", own, print), "train", check_headers=False)
    samples = MattingDataset(*splits, skip=True)
    for epoch in range(5):
        read = [samples[SampleKey(epoch, index, 0, (32, 32))] for index in range(6)]
        assert not [sample for sample in read if isinstance(sample, DataError)]
        assert {fault for sample in read for fault in sample["faults"]} <= {
            f"{own}/backgrounds/train/1.jpg cannot be decoded as JPEG or PNG (is empty); replace "
            "or remove it"
        }


def test_folders_that_all_link_to_each_other_are_refused(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "1.png")
        for other in "abcdefgh":
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    with pytest.raises(DataError, match="is a link behind 3 others"):
        find_pictures(tmp_path)


def test_a_pipe_is_no_picture_and_damaged_exif_no_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png", exif=b"Exif\x00\x00no such thing")
    assert find_pictures(tmp_path) == ["a.png"]
    picture = open_picture(tmp_path / "a.png")
    assert decode(picture, "RGB", (4, 6), np.eye(3)[:2])[0].shape == (4, 6, 3)
