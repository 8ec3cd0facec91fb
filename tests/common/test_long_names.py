"""Names as long as a file system takes, and of any bytes: read, written, printed."""

import os
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import check_data
import evaluate
from common.files import MAX_NAME_BYTES, beside, write_bytes
from dataset import shard
from tests.support.alpha_pictures import disc, saved
from tests.support.drawn import make_data
from tests.support.running import run
from tests.support.tars import add, jpeg, open_all

LONGEST = ["x" * 255, "é" * 127 + "x", "漢" * 85, "\udce9" * 255, "x" * 250 + ".json"]


@pytest.mark.parametrize("name", LONGEST, ids=lambda name: ascii(name[:3]))
def test_a_name_as_long_as_can_be_is_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_bytes(path, b"here")
    assert path.read_bytes() == b"here" and os.listdir(tmp_path) == [name]
    for ending in (".partial-1234567", ".index"):
        found = beside(path, ending)
        assert len(os.fsencode(found.name)) <= MAX_NAME_BYTES and found.name.endswith(ending)
        found.write_bytes(b"x")


def test_names_that_begin_alike_have_others_beside_them() -> None:
    one, other = (beside(Path("a") / ("x" * 254 + end), ".partial-1") for end in "ab")
    assert one != other and one.parent == Path("a")
    assert beside(Path("epoch-3.pth"), ".partial-7").name == "epoch-3.pth.partial-7"


def test_a_tar_of_so_long_a_name_is_read_without_an_index(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with tarfile.open(tmp_path / ("x" * 251 + ".tar"), "w") as archive:
        add(archive, "0.jpg", jpeg(0))
    assert list(open_all(tmp_path).names) == ["0.jpg"]
    assert "cannot be kept (File name too long)" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_network")
def test_every_script_works_in_a_folder_of_any_name(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    """Files in it, too: of bytes that are no UTF-8, and as long as can be."""
    data = make_data(here / ("caf\udce9\n\x1b[31m" + "x" * 200), 2, 1)
    for kind, ending in (("fgr", "jpg"), ("pha", "png")):
        path = data / f"train/{kind}/clip0/0000.{ending}"
        path.rename(path.with_name("\udcff" + "y" * 250 + f".{ending}"))
        path = data / f"train/{kind}/clip1/0001.{ending}"
        path.rename(path.with_name(unicodedata.normalize("NFD", "é\udce9") + f".{ending}"))
    (data / "train/fgr/passed.webp").write_bytes(b"x")
    run(data, "--max-steps", 1)
    words = ["--dataset-dir", data, "--num-workers", 0, "--crop-size", 32, 64]
    check_data.main([str(word) for word in [*words, "--json", "faults.json"]])
    shard.pack(data, here / "packed", 20_000_000)
    run(here / "packed", "--max-steps", 1, "--overwrite")
    for kind in ("pred", "true"):
        saved(here / kind / ("\udcff" + "z" * 250 + ".png"), disc(40, 4, (90, 120)))
    true = here / "true"
    assert evaluate.main(["--pred-dir", "pred", "--true-dir", str(true), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert not any(0xDC80 <= ord(letter) <= 0xDCFF for letter in said) and "\x1b" not in said
    alpha = next((data / "train/pha").rglob("*.png"))
    Image.fromarray(np.asarray(Image.open(alpha)) // 255).save(alpha)
    run(data, "--max-steps", 1, "--overwrite", status=2)
    said = capsys.readouterr().err
    assert "multiply by 255" in said and not any(0xDC80 <= ord(c) <= 0xDCFF for c in said)
