"""predict.py: pictures and videos to mattes; what is wrong is said; what is done stays whole."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import predict
from common.errors import DataError
from predict import Matter
from prediction import pipeline as streaming
from prediction.frames import cover, read_rgb
from tests.support import ROOT
from tests.support.predicting import error_of, files, save_weights, scene, words
from tests.support.published import published_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "weights.pth")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """src/ and bgr/ with five pictures, nested, of two sizes, jpg beside png."""
    for number, name in enumerate(("0", "a/1", "a/b.c/2", "3", "4")):
        src, bgr = scene(number, (44, 60) if number == 3 else (60, 44))
        for kind, picture, ending in (("src", src, "JPG"), ("bgr", bgr, "png")):
            path = tmp_path / kind / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return tmp_path


# ---- Pictures -----------------------------------------------------------------------------------


def test_names_and_sizes_are_kept_and_values_are_those_of_matter(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture
) -> None:
    assert predict.main(words(weights, pairs, "--type", "pha", "fgr", "com", "err")) == 0
    names = ["0.png", "3.png", "4.png", "a/1.png", "a/b.c/2.png"]
    assert files(pairs / "out") == [
        f"{kind}/{name}" for kind in ("com", "err", "fgr", "pha") for name in names
    ]
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("5 image(s) in ")
    for name in ("3", "a/b.c/2"):
        src, bgr = (
            torch.from_numpy(read_rgb(pairs / kind / f"{name}.{ending}")).permute(2, 0, 1)[None]
            for kind, ending in (("src", "JPG"), ("bgr", "png"))
        )
        found = Matter(weights, "cpu", size=48)(src, bgr, ["pha", "fgr", "com", "err"])
        for kind, mode in (("pha", "L"), ("fgr", "RGB"), ("com", "RGBA"), ("err", "L")):
            with Image.open(pairs / f"out/{kind}/{name}.png") as picture:
                assert picture.mode == mode and picture.size == src.shape[:1:-1]
                written = np.asarray(picture).reshape(*picture.size[::-1], -1)
            expected = found[kind][0].permute(1, 2, 0).numpy()
            # Batches of another size add up in another order.
            assert np.abs(written.astype(int) - expected).max() <= 1


def test_pictures_upright_grey_deep_or_with_alpha(tmp_path: Path) -> None:
    pixels = np.array(scene(1, (7, 5))[0])
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        Image.fromarray(pixels).save(path, exif=exif)
        with Image.open(path) as picture:
            expected = np.asarray(ImageOps.exif_transpose(picture))
        assert np.array_equal(read_rgb(path), expected), orientation
    grey = pixels[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([pixels, grey])).save(tmp_path / "alpha.png")
    for name, expected in (("grey", grey[..., None]), ("deep", grey[..., None]), ("alpha", pixels)):
        found = read_rgb(tmp_path / f"{name}.png")
        assert found.shape == (5, 7, 3) and np.array_equal(
            found, np.broadcast_to(expected, (5, 7, 3))
        )


def test_a_photograph_on_its_side_is_predicted_upright(weights: Path, tmp_path: Path) -> None:
    src, bgr = scene(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "src").mkdir()
    src.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "src/one.jpg", exif=exif)
    bgr.save(tmp_path / "bgr.png")
    argv = words(weights, tmp_path)
    argv[argv.index(str(tmp_path / "bgr"))] = str(tmp_path / "bgr.png")
    assert predict.main(argv) == 0
    assert Image.open(tmp_path / "out/pha/one.png").size == src.size


def test_one_picture_and_one_background(weights: Path, pairs: Path) -> None:
    argv = words(weights, pairs)
    argv[3], argv[5] = str(pairs / "src/a/b.c/2.JPG"), str(pairs / "bgr/0.png")
    assert predict.main(argv) == 0
    assert files(pairs / "out") == ["pha/2.png"]


def test_com_on_a_colour_and_on_a_picture(weights: Path, pairs: Path) -> None:
    Image.fromarray(np.array([[[10, 20, 30]] * 20, [[200, 100, 0]] * 20], np.uint8)).resize(
        (200, 20), Image.Resampling.NEAREST
    ).save(pairs / "wide.png")
    for behind in ("#00b140", "white", str(pairs / "wide.png")):
        more = ["--type", "com", "pha", "fgr", "--com-bgr", behind, "--overwrite"]
        assert predict.main(words(weights, pairs, *more)) == 0
        for name, size in (("0", (44, 60)), ("3", (60, 44))):
            com, pha, fgr = (
                np.asarray(Image.open(pairs / f"out/{kind}/{name}.png")) / 255
                for kind in ("com", "pha", "fgr")
            )
            under = {"#00b140": (0, 0xB1, 0x40), "white": (255, 255, 255)}.get(behind)
            if under is None:
                under = cover(read_rgb(pairs / "wide.png"), size)
                assert (
                    under.shape == (*size, 3)
                    and abs(under[2, 2].astype(int) - (10, 20, 30)).max() < 9
                )
            expected = fgr * pha[..., None] + np.array(under) / 255 * (1 - pha[..., None])
            assert np.abs(com - expected).max() < 2 / 255


def test_batches_hold_one_size_and_fewer_large_pictures() -> None:
    sizes = [(10, 10), (4000, 6000), (10, 10), (4000, 6000), (10, 10), (1080, 1920)]
    frames = [streaming.Frame(str(i), Path(), Path(), size) for i, size in enumerate(sizes)]
    found = [[frame.name for frame in batch] for batch in streaming.batches(frames, 2)]
    assert found == [["0", "2"], ["4"], ["5"], ["1"], ["3"]]
    assert streaming.frames_at_once((1080, 1920), 100) == 8


# ---- What is wrong ------------------------------------------------------------------------------


def test_wrong_input_is_one_line(weights: Path, pairs: Path, capsys: pytest.CaptureFixture) -> None:
    argv = words(weights, pairs)

    def line(*more: object, src: object = None, bgr: object = None, ck: object = None) -> str:
        changed = [*argv, *map(str, more)]
        for index, value in ((1, ck), (3, src), (5, bgr)):
            changed[index] = str(value or changed[index])
        return error_of(capsys, *changed)

    assert f"there is no file or folder {pairs / 'none'}; check --src" in line(src=pairs / "none")
    assert "check --bgr" in line(bgr=pairs / "none")
    (pairs / "empty").mkdir()
    assert f".jfif, .png) in {pairs / 'empty'}" in line(src=pairs / "empty")
    assert "give the one background" in line(src=pairs / "src/0.JPG")
    assert "there is no file" in line(ck=pairs / "none.pth")
    deeplab = published_file(pairs / "deeplab.pth", "vainf_deeplabv3_mobilenet")
    assert "holds no weights of MattingBase" in line(ck=deeplab)
    assert "--com-bgr goes with --type com" in line("--com-bgr", "red")
    assert "--com-bgr reed is neither" in line("--type", "com", "--com-bgr", "reed")
    assert "is neither" in line("--type", "com", "--com-bgr", "#00ff0080")
    assert "cannot be used here" in line("--device", "cuda:77")
    assert "--precision fp16 needs CUDA" in line("--precision", "fp16")
    assert "unlike their background in size" in line(bgr=pairs / "bgr/0.png")
    (pairs / "bgr/a/1.png").unlink()
    found = line()
    assert "1 of 5 picture(s)" in found and str(pairs / "src/a/1.JPG") in found
    shutil.copy(pairs / "src/0.JPG", pairs / "src/0.png")
    assert "1 name(s) twice" in line()
    (pairs / "out").write_text("")
    assert "out is a file" in line()
    (pairs / "out").unlink()
    assert not (pairs / "out").exists()


def test_a_picture_unlike_its_background_in_size_is_named(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture
) -> None:
    scene(1, (61, 44))[1].save(pairs / "bgr/a/1.png")
    line = error_of(capsys, *words(weights, pairs))
    assert "1.JPG (60x44)" in line and "1.png (61x44)" in line and not (pairs / "out").exists()


def test_a_truncated_picture_stops_it_and_what_was_done_stays(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pairs / "src/a/b.c/2.JPG"
    path.write_bytes(path.read_bytes()[:-300])
    argv = words(weights, pairs, "--batch-size", 2, "--num-workers", 1)
    original = streaming.write_pictures
    with monkeypatch.context() as patch:  # so that some still wait to be written
        slowly = lambda *of: (time.sleep(0.3), original(*of))  # noqa: E731
        patch.setattr(streaming, "write_pictures", slowly)
        assert f"{path} cannot be decoded" in error_of(capsys, *argv)
    assert files(pairs / "out") == ["pha/0.png", "pha/4.png"]
    for name in ("0", "4"):
        Image.open(pairs / f"out/pha/{name}.png").load()
    assert predict.main([*argv, "--skip-existing", "--on-bad-image", "skip"]) == 0
    said = capsys.readouterr().out
    assert f"left out: {path}" in said and said.strip().endswith("1 left out")
    assert "2 of 5 are there already" in said
    assert files(pairs / "out") == ["pha/0.png", "pha/3.png", "pha/4.png", "pha/a/1.png"]


def test_a_file_that_is_no_picture(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture
) -> None:
    (pairs / "bgr/4.png").write_text("hello")
    assert "4.png cannot be decoded" in error_of(capsys, *words(weights, pairs))
    assert not (pairs / "out").exists()
    assert predict.main(words(weights, pairs, "--on-bad-image", "skip")) == 0
    assert len(files(pairs / "out")) == 4
    for path in (pairs / "src").rglob("*.JPG"):
        path.write_text("hello")
    argv = words(weights, pairs, "--on-bad-image", "skip", "--overwrite")
    assert "no picture could be read" in error_of(capsys, *argv)


def test_outputs_that_are_there(weights: Path, pairs: Path, capsys: pytest.CaptureFixture) -> None:
    (pairs / "out/pha").mkdir(parents=True)
    (pairs / "out/pha/0.png").write_text("mine")
    argv = words(weights, pairs, "--type", "pha", "err")
    line = error_of(capsys, *argv)
    assert "1 output(s) are there already" in line and "pha/0.png" in line
    assert files(pairs / "out") == ["pha/0.png"]
    assert predict.main([*argv, "--skip-existing"]) == 0
    assert (pairs / "out/pha/0.png").read_text() == "mine" and len(files(pairs / "out")) == 10
    assert predict.main([*argv, "--overwrite"]) == 0
    assert Image.open(pairs / "out/pha/0.png").size == (60, 44)
    capsys.readouterr()
    assert predict.main([*argv, "--skip-existing"]) == 0
    assert capsys.readouterr().out.strip() == "all outputs of 5 picture(s) are there already"


def test_an_input_is_never_written_over(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture
) -> None:
    """Backgrounds that lie where the mattes would go."""
    shutil.copytree(pairs / "bgr", pairs / "out/pha")
    argv = words(weights, pairs, "--overwrite")
    argv[5] = str(pairs / "out/pha")
    before = (pairs / "out/pha/0.png").read_bytes()
    assert "would be written over, and is read" in error_of(capsys, *argv)
    assert (pairs / "out/pha/0.png").read_bytes() == before


def test_ctrl_c_leaves_whole_files_and_says_how_to_go_on(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Matter.__call__, []

    def asking(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(Matter, "__call__", asking)
    argv = words(weights, pairs, "--batch-size", 1)
    assert predict.main(argv) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("stopped; ") and last.endswith("--skip-existing")
    done = files(pairs / "out")
    assert 2 <= len(done) <= 3 and not any("partial" in name for name in done)
    for name in done:
        Image.open(pairs / "out" / name).load()
    assert predict.main([*argv, "--skip-existing"]) == 0
    assert len(calls) == 4 + 5 - len(done)
    assert len(files(pairs / "out")) == 5
    calls[:] = [1] * 3
    assert predict.main([*argv, "--overwrite"]) == 130  # skipping would leave the old ones
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "to start again: " in last and last.endswith("--overwrite")


def test_a_full_disk(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("common.files.os.fsync", full)
    line = error_of(capsys, *words(weights, pairs))
    assert "could not be written (No space left on device)" in line
    assert files(pairs / "out") == []


def test_weights_that_give_no_number(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture
) -> None:
    state = torch.load(weights)
    state["decoder.conv4.bias"][0] = torch.nan
    torch.save(state, pairs / "bad.pth")
    assert "not finite, such as decoder.conv4.bias" in error_of(
        capsys, *words(pairs / "bad.pth", pairs)
    )
    assert not (pairs / "out").exists()


def test_help_and_import_need_nothing_heavy() -> None:
    code = (
        "import sys, predict\n"
        "try: predict.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'av', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "--com-bgr" in done.stdout and "None)" not in done.stdout
    with pytest.raises(AttributeError):
        predict.Other  # noqa: B018


def test_a_missing_file_of_pictures_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_rgb(tmp_path / "none.png")
