"""predict.py on videos: times, colours and turning kept, nothing half, memory constant."""

import os
import signal
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from predict import Matter
from tests.support import ROOT
from tests.support.predicting import error_of, files, save_weights, scene, words


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "weights.pth")


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
    assert f"{bgr} ends after 3 frames" in capsys.readouterr().out
    assert len(clip_of(tmp_path / "out/pha/clip.mp4")["times"]) == 7


def test_wrong_videos_are_one_line(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    bgr = tmp_path / "bgr.png"
    scene(0)[1].save(bgr)
    line = error_of(capsys, *video_words(weights, clip, bgr, "--type", "com"))
    assert "a video has no transparency" in line
    picture = f"type --bgr {tmp_path / 'PICTURE.png'}"
    for none, what in ((tmp_path, "is a folder"), (tmp_path / "no.png", "does not exist")):
        line = error_of(capsys, *video_words(weights, clip, none))
        assert f"--bgr {none} {what}" in line and picture in line
    scene(0, (62, 44))[1].save(tmp_path / "wide.png")
    line = error_of(capsys, *video_words(weights, clip, tmp_path / "wide.png"))
    assert "60x44" in line and "62x44" in line
    (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:900])
    line = error_of(capsys, *video_words(weights, tmp_path / "broken.mp4", bgr))
    assert "broken.mp4 cannot be read" in line
    assert "there is no file" in error_of(capsys, *video_words(weights, tmp_path / "no.mp4", bgr))
    assert not files(tmp_path / "out") if (tmp_path / "out").exists() else True
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install av" in error_of(capsys, *video_words(weights, clip, bgr))


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
    monkeypatch.setattr(
        "dataset.video.LIBX264_OPTIONS", {"preset": "ultrafast", "tune": "zerolatency"}
    )
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
