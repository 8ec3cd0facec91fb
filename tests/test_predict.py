"""predict.py: pictures and videos to mattes; what is wrong is said; what is done stays whole."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import backdrop, figure, published_file
from PIL import Image, ImageOps

import predict
from dataset.frames import TURNS, cover, read_rgb
from dataset.images import DataError
from model import MattingBase
from predict import Matter
from training import streaming

ROOT = Path(predict.__file__).parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = MattingBase("mobilenetv2")
    with torch.no_grad():  # neither 0 nor 1 everywhere
        model.decoder.conv4.bias[:5] = torch.tensor([0.5, 0.05, -0.05, 0.1, 0.3])
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(model.state_dict(), path)
    return path


def scene(number: int, size: tuple[int, int] = (60, 44)) -> tuple[Image.Image, Image.Image]:
    """src and bgr of (width, height)."""
    fgr, pha = figure(*size, number)
    bgr = backdrop(*size, number)
    return Image.composite(fgr, bgr, pha), bgr


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


def words(weights: Path, folder: Path, *more: object) -> list[str]:
    argv = ["--model-checkpoint", weights, "--src", folder / "src", "--bgr", folder / "bgr"]
    argv += ["--output", folder / "out", "--device", "cpu", "--size", 48, *more]
    return [str(word) for word in argv]


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def error_of(capsys: pytest.CaptureFixture, argv: list[str]) -> str:
    try:
        status = predict.main(argv)
    except SystemExit as stop:  # argparse's own way
        status = stop.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and lines[-1].startswith("predict.py: error: ")
    assert sum("error" in line for line in lines) == 1
    return lines[-1]


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
    assert set(TURNS) == set(range(2, 9))
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
        return error_of(capsys, changed)

    assert f"there is no file or folder {pairs / 'none'}; check --src" in line(src=pairs / "none")
    assert "check --bgr" in line(bgr=pairs / "none")
    (pairs / "empty").mkdir()
    assert f"no picture (.jpg, .jpeg, .png) in {pairs / 'empty'}" in line(src=pairs / "empty")
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
    line = error_of(capsys, words(weights, pairs))
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
        assert f"{path} cannot be decoded" in error_of(capsys, argv)
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
    assert "4.png cannot be decoded" in error_of(capsys, words(weights, pairs))
    assert not (pairs / "out").exists()
    assert predict.main(words(weights, pairs, "--on-bad-image", "skip")) == 0
    assert len(files(pairs / "out")) == 4
    for path in (pairs / "src").rglob("*.JPG"):
        path.write_text("hello")
    argv = words(weights, pairs, "--on-bad-image", "skip", "--overwrite")
    assert "no picture could be read" in error_of(capsys, argv)


def test_outputs_that_are_there(weights: Path, pairs: Path, capsys: pytest.CaptureFixture) -> None:
    (pairs / "out/pha").mkdir(parents=True)
    (pairs / "out/pha/0.png").write_text("mine")
    argv = words(weights, pairs, "--type", "pha", "err")
    line = error_of(capsys, argv)
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
    assert "would be written over, and is read" in error_of(capsys, argv)
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

    monkeypatch.setattr("training.saving.os.fsync", full)
    line = error_of(capsys, words(weights, pairs))
    assert "could not be written (No space left on device)" in line
    assert files(pairs / "out") == []


def test_weights_that_give_no_number(
    weights: Path, pairs: Path, capsys: pytest.CaptureFixture
) -> None:
    state = torch.load(weights)
    state["decoder.conv4.bias"][0] = torch.nan
    torch.save(state, pairs / "bad.pth")
    assert "is not finite" in error_of(capsys, words(pairs / "bad.pth", pairs))
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


# ---- Video --------------------------------------------------------------------------------------


def make_clip(
    path: Path,
    count: int = 9,
    size: tuple[int, int] = (60, 44),
    times: list[int] | None = None,
    rate: Fraction = Fraction(30000, 1001),
    turned: int = 0,
    sound: bool = False,
) -> Path:
    """A clip as PyAV itself writes it. times: of the frames, in 1/90000 s. turned: degrees by
    which a player is told to turn it."""
    av = pytest.importorskip("av")
    pictures = [scene(number, size)[0] for number in range(min(count, 5))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 90000)
        if turned:
            stream.set_display_rotation(turned)
        if sound:
            audio = container.add_stream("aac", rate=8000, layout="mono")
        for number in range(count):
            frame = av.VideoFrame.from_image(pictures[number % 5])
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 90000) if times else 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


def clip_of(path: Path) -> dict:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return {
            "times": [float(frame.pts * frame.time_base) for frame in frames],
            "length": float(stream.duration * stream.time_base),
            "rate": stream.average_rate,
            "size": (frames[0].width, frames[0].height),
            "codec": stream.codec_context.name,
            "pixels": [frame.to_ndarray(format="rgb24") for frame in frames],
            "streams": len(container.streams),
        }


def video_words(weights: Path, src: Path, bgr: Path, *more: object) -> list[str]:
    argv = words(weights, src.parent, *more)
    argv[3], argv[5] = str(src), str(bgr)
    return argv


def test_a_video_keeps_rate_and_length(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clip = make_clip(tmp_path / "clip.mov", sound=True)
    scene(0)[1].save(tmp_path / "bgr.png")
    more = ["--type", "pha", "com", "--com-bgr", "#00b140", "--batch-size", 2]
    assert predict.main(video_words(weights, clip, tmp_path / "bgr.png", *more)) == 0
    assert files(tmp_path / "out") == ["com/clip.mp4", "pha/clip.mp4"]
    assert "the sound of" in capsys.readouterr().out
    before = clip_of(clip)
    for kind in ("pha", "com"):
        after = clip_of(tmp_path / f"out/{kind}/clip.mp4")
        assert after["codec"] == "h264" and after["streams"] == 1
        assert after["rate"] == before["rate"] == Fraction(30000, 1001)
        assert after["size"] == before["size"] and len(after["times"]) == 9
        assert after["times"] == pytest.approx(before["times"], abs=1e-4)
        assert after["length"] == pytest.approx(before["length"], abs=1e-4)
    src, bgr = before["pixels"][4], np.asarray(scene(0)[1])
    src, bgr = (torch.from_numpy(x.copy()).permute(2, 0, 1)[None] for x in (src, bgr))
    colour = torch.tensor([0, 0xB1, 0x40], dtype=torch.uint8).view(1, 3, 1, 1)
    found = Matter(weights, "cpu", size=48)(src, bgr, ["pha", "com"], colour)
    for kind in ("pha", "com"):  # H.264 loses a little, colours at half the resolution more
        written = clip_of(tmp_path / f"out/{kind}/clip.mp4")["pixels"][4].astype(int)
        expected = found[kind][0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(written - expected).mean() < 4


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_colours_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    pytest.importorskip("av")
    from dataset.video import VideoReader, VideoWriter

    monkeypatch.setattr("dataset.video.ENCODERS", (encoder,))

    colours = [(255, 0, 0), (0, 160, 60), (30, 60, 200), (128, 128, 128), (255, 255, 255)]
    for size in ((44, 60), (720, 1280), (45, 61)):
        path = tmp_path / "colours.mp4"
        with VideoWriter(path, size, Fraction(25), Fraction(1, 90000)) as writer:
            for number, colour in enumerate(colours):
                writer.write(np.full((*size, 3), colour, np.uint8), 3600 * number)
        with VideoReader(path) as reader:
            assert reader.size == size and reader.count == 5 and reader.rate == 25
            for (pixels, _), colour in zip(reader, colours, strict=True):
                assert np.abs(pixels.astype(int) - colour).max() <= 3


def test_frames_keep_their_uneven_times(weights: Path, tmp_path: Path) -> None:
    times = [0, 3000, 6000, 15000, 16500, 30000]
    clip = make_clip(tmp_path / "clip.mp4", 6, times=times)
    scene(0)[1].save(tmp_path / "bgr.png")
    assert predict.main(video_words(weights, clip, tmp_path / "bgr.png")) == 0
    found = clip_of(tmp_path / "out/pha/clip.mp4")["times"]
    assert found == pytest.approx([time / 90000 for time in times], abs=1e-4)


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_turned_video_comes_out_upright(weights: Path, tmp_path: Path, turned: int) -> None:
    pytest.importorskip("av")
    from dataset.video import VideoReader

    straight = make_clip(tmp_path / "straight.mp4", 2)
    clip = make_clip(tmp_path / "clip.mp4", 2, turned=turned)
    with VideoReader(straight) as one, VideoReader(clip) as other:
        (pixels, _), (upright, _) = next(iter(one)), next(iter(other))
    data = clip.read_bytes()
    matrix = data.index(b"tkhd") + 44  # ISO 14496-12: where a track header has its matrix
    right = tuple(
        int.from_bytes(data[matrix + 4 * i : matrix + 4 * i + 4], "big", signed=True) >> 16
        for i in (0, 1)
    )  # where a step to the right leads to on the screen, (x, y)
    quarters = {(0, -1): 1, (-1, 0): 2, (0, 1): 3}[right]  # counter-clockwise
    assert np.array_equal(upright, np.rot90(pixels, quarters))
    Image.fromarray(upright).save(tmp_path / "bgr.png")
    assert predict.main(video_words(weights, clip, tmp_path / "bgr.png")) == 0
    assert clip_of(tmp_path / "out/pha/clip.mp4")["size"] == upright.shape[1::-1]


def test_a_video_as_background_is_held_at_its_end(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clip, bgr = make_clip(tmp_path / "clip.mp4", 7), make_clip(tmp_path / "bgr.mp4", 3)
    assert predict.main(video_words(weights, clip, bgr, "--batch-size", 2)) == 0
    assert f"{bgr} ends after 3 frames; its last one is held" in capsys.readouterr().out
    assert len(clip_of(tmp_path / "out/pha/clip.mp4")["times"]) == 7


def test_wrong_videos_are_one_line(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    bgr = tmp_path / "bgr.png"
    scene(0)[1].save(bgr)
    line = error_of(capsys, video_words(weights, clip, bgr, "--type", "com"))
    assert "a video has no transparency" in line
    assert "give --bgr the one" in error_of(capsys, video_words(weights, clip, tmp_path))
    scene(0, (62, 44))[1].save(tmp_path / "wide.png")
    line = error_of(capsys, video_words(weights, clip, tmp_path / "wide.png"))
    assert "60x44" in line and "62x44" in line
    (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:900])
    line = error_of(capsys, video_words(weights, tmp_path / "broken.mp4", bgr))
    assert "broken.mp4 cannot be read as a video" in line
    assert "there is no file" in error_of(capsys, video_words(weights, tmp_path / "no.mp4", bgr))
    assert not files(tmp_path / "out") if (tmp_path / "out").exists() else True
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install av" in error_of(capsys, video_words(weights, clip, bgr))


def test_a_video_that_is_stopped_leaves_nothing_half(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    scene(0)[1].save(tmp_path / "bgr.png")
    original, calls, there = Matter.__call__, [], []

    def asking(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            there.extend(files(tmp_path / "out"))
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(Matter, "__call__", asking)
    # An encoder that writes each frame at once, so that there is something half.
    monkeypatch.setattr("dataset.video.QUALITY", {"preset": "ultrafast", "tune": "zerolatency"})
    argv = video_words(weights, clip, tmp_path / "bgr.png", "--batch-size", 1)
    assert predict.main(argv) == 130
    assert there == [f"pha/clip.mp4.partial-{os.getpid()}"] and files(tmp_path / "out") == []
    assert predict.main([*argv, "--skip-existing"]) == 0
    assert files(tmp_path / "out") == ["pha/clip.mp4"]


@pytest.mark.slow
def test_memory_does_not_grow_with_a_videos_length(weights: Path, tmp_path: Path) -> None:
    """150 frames more would be 138 MB more as pixels, if they were kept."""
    pytest.importorskip("av")
    code = (
        "import resource, sys, torch, predict\n"
        "torch.set_num_threads(1)\n"
        "assert predict.main(sys.argv[1:]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    scene(0, (640, 480))[1].save(tmp_path / "bgr.png")
    peaks = []
    for count in (80, 230):  # beyond what the encoder keeps to look ahead
        clip = make_clip(tmp_path / f"{count}.mp4", count, (640, 480))
        argv = video_words(weights, clip, tmp_path / "bgr.png")
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks


def test_no_more_than_a_few_frames_are_alive(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    pytest.importorskip("av")
    from dataset import video

    clip = make_clip(tmp_path / "clip.mp4", 40)
    scene(0)[1].save(tmp_path / "bgr.png")
    seen, alive, original = [], [], video.VideoReader.__iter__

    def watched(self: video.VideoReader) -> object:
        for pixels, at in original(self):
            seen.append(weakref.ref(pixels))
            alive.append(sum(each() is not None for each in seen))
            yield pixels, at

    monkeypatch.setattr(video.VideoReader, "__iter__", watched)
    argv = video_words(weights, clip, tmp_path / "bgr.png", "--batch-size", 3)
    assert predict.main(argv) == 0
    assert len(seen) == 40 and max(alive) <= 12


def test_a_missing_file_of_pictures_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_rgb(tmp_path / "none.png")
