"""No output replaces what is read, or lies where inputs are looked for, by whatever path."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

import check_data
import evaluate
import pack_data
import predict
from common.errors import OptionError
from common.files import check_apart
from tests.support.drawn import make_data
from tests.support.predicting import save_weights, scene
from tests.support.running import run as train


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "weights.pth")


@pytest.fixture
def folders(here: Path) -> Path:
    """in/a.png, in/sub/b.png, and other/c.png, which is read as in/other/c.png, too."""
    for name in ("in/a.png", "in/sub/b.png", "other/c.png"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 100).save(name)
    Path("in/other").symlink_to(here / "other")
    return here


def test_the_same_file_under_another_name(folders: Path) -> None:
    Path("link.json").symlink_to("in/a.png")
    Path("hard.json").hardlink_to("in/a.png")
    Path("behind.json").hardlink_to("other/c.png")
    Path("way").symlink_to("in/sub")
    for output in (
        "in/a.png",
        "in/../in/a.png",
        folders / "in/a.png",
        "link.json",
        "hard.json",
        "behind.json",
        "other/c.png",
        "in/new.json",
        "in/sub/new/new.json",
        "other/new.json",
        "way/new.json",
        "in",
        "in/sub",
    ):
        with pytest.raises(OptionError, match="is read"):
            check_apart([Path(output)], [Path("in")])
    os.chdir("in/sub")
    with pytest.raises(OptionError, match="is read"):
        check_apart([Path("new.json")], [Path("..")])


def test_other_places_are_free(folders: Path) -> None:
    Path("input").mkdir()  # whose name begins as that of in/ does
    Path("out.json").touch()
    free = [Path(name) for name in ("out.json", "input/x.json", "in.json", "new/in/x.json")]
    check_apart(free, [Path("in"), Path("nothing")])
    check_apart([Path("in/new.png")], [Path("in/a.png")])  # one picture: its folder is not read


def test_two_outputs_are_two_files(folders: Path) -> None:
    Path("also.json").symlink_to("x.json")
    for other in ("also.json", "in/../x.json", folders / "x.json"):
        with pytest.raises(OptionError, match="the same file"):
            check_apart([Path("x.json"), Path(other)], [])


def refused(capsys: pytest.CaptureFixture, main, *argv: object) -> str:
    before = content(Path())
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    assert content(Path()) == before
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_evaluate(here: Path, weights: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("pred/a.png", "true/a.png", "trimap/a.png", "src/a.png"):
        Path(name).parent.mkdir()
        Image.new("RGB" if name == "src/a.png" else "L", (8, 8), 128).save(name)
    Path("link.html").symlink_to("true/a.png")
    mattes = ["--pred-dir", "pred", "--true-dir", "true", "--device", "cpu", "--overwrite"]
    mattes += ["--trimap-dir", "trimap", "--src-dir", "src"]
    for option, output in (
        ("--report", "pred/a.png"),
        ("--json", "true/../true/a.png"),
        ("--csv", "trimap/a.png"),
        ("--report", "src/b.png"),
        ("--report", "link.html"),
    ):
        assert (
            "which is read" in (said := refused(capsys, evaluate.main, *mattes, option, output))
            or "and is read" in said
        )
    make_data(here / "data")
    shutil.copy(weights, "w.pth")
    network = ["--model-checkpoint", "w.pth", "--dataset-dir", "data", "--device", "cpu"]
    for output in ("w.pth", "data/valid/fgr/clip0/0000.jpg", "data/backgrounds/valid/new.json"):
        said = refused(capsys, evaluate.main, *network, "--overwrite", "--json", output)
        assert "is read" in said and output in said


def test_check_data(here: Path, capsys: pytest.CaptureFixture) -> None:
    make_data(here / "data")
    for option, output in (
        ("--json", "data/train/fgr/clip0/0000.jpg"),
        ("--contact-sheet", "data/backgrounds/train/sheet.png"),
    ):
        argv = ["--dataset-dir", "data", "--num-workers", 0, "--overwrite", option, output]
        assert f"{output} " in refused(capsys, check_data.main, *argv)
    argv = ["--dataset-dir", "data", "--num-workers", "0", "--json", "data/faults.json"]
    assert check_data.main(argv) == 1 and Path("data/faults.json").exists()  # beside what is read


def test_predict(here: Path, weights: Path, capsys: pytest.CaptureFixture) -> None:
    src, bgr = scene(0)
    for name, picture in (("photos/src/a.png", src), ("photos/bgr/a.png", bgr)):
        Path(name).parent.mkdir(parents=True)
        picture.save(name)
    shutil.copy(weights, "w.pth")
    argv = ["--model-checkpoint", "w.pth", "--device", "cpu", "--size", 48]
    both = ["--src", "photos/src", "--bgr", "photos/bgr"]
    for output in ("photos/src", "photos/bgr", "photos/src/out", "photos/bgr/../src"):
        said = refused(capsys, predict.main, *argv, *both, "--output", output)
        assert "lies in photos/" in said
    Path("out/com").mkdir(parents=True)
    Path("out/com/a.png").symlink_to(here / "behind.png")
    bgr.save("behind.png")
    com = ["--type", "com", "--com-bgr", "behind.png", "--output", "out", "--overwrite"]
    assert "behind.png" in refused(capsys, predict.main, *argv, *both, *com)
    # The picture's own folder is no input where the picture alone is given.
    one = ["--src", "photos/src/a.png", "--bgr", "photos/bgr/a.png", "--output", "photos/src"]
    assert predict.main([str(word) for word in [*argv, *one]]) == 0


def test_shard(here: Path, capsys: pytest.CaptureFixture) -> None:
    make_data(here / "data")
    Path("data/train/fgr").rename("elsewhere")
    Path("data/train/fgr").symlink_to(here / "elsewhere")
    for target in ("data/packed", "data/train/fgr/packed", "elsewhere/packed"):
        assert "lies in" in refused(capsys, pack_data.main, "data", target)


@pytest.mark.usefixtures("tiny_network")
def test_train(here: Path, capsys: pytest.CaptureFixture) -> None:
    make_data(here / "data")
    Path("data/backgrounds/train").rename("log")
    Path("data/backgrounds/train").symlink_to(here / "log")
    train(here / "data", "--max-steps", 1, status=2)
    assert "log/run lies in data/backgrounds/train" in capsys.readouterr().err.replace(
        f"{here}/", ""
    )
    Path("log").rename("elsewhere")
    Path("data/backgrounds/train").unlink()
    Path("elsewhere").rename("data/backgrounds/train")
    train(here / "data", "--max-steps", 1)
    before = content(Path("checkpoint"))
    (last,) = Path("checkpoint/run").glob("*-1.pth")
    for source in (last, Path("checkpoint/run/best.pth")):
        argv = ["--model-pretrain-initialization", source, "--overwrite"]
        train(here / "data", "--max-steps", 1, *argv, status=2)
        assert "choose another --model-name" in capsys.readouterr().err
        assert content(Path("checkpoint")) == before
