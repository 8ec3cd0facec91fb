"""Videos that are cut or damaged, of pixels that are not square, of wide colours; and those in the
place of pictures."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import predict
from common.errors import DataError
from dataset.video import VideoReader, VideoWriter
from dataset.wide_video import HLG, PQ, converted, to_bt709
from tests.support.drawn import make_data
from tests.support.predicting import error_of, files, save_weights, words
from tests.support.running import error_of as training_error_of
from tests.support.running import run as train

av = pytest.importorskip("av")

SIZE = (48, 64)  # height, width
COUNT = 40
MP4 = {"fragmented.mp4": "frag_keyframe+empty_moov", "head-first.mp4": "faststart"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "weights.pth")


def picture(number: int) -> np.ndarray:
    """Hard to compress, so that a clip's bytes are its frames."""
    rng = np.random.default_rng(number // 4)
    return rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def make(path: Path, count: int = COUNT, sound: bool = False) -> Path:
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
    flags = MP4.get(path.name)
    with av.open(str(path), "w", options={"movflags": flags} if flags else {}) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "8"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio:  # longer than the pictures
            for number in range(30):
                samples = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), "fltp", "mono"
                )
                samples.sample_rate, samples.pts = 8000, 1024 * number
                container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_a_little(content: bytes) -> bytes:
    return content[: -len(content) // 20]


def overwritten(content: bytes) -> bytes:
    noise = np.random.default_rng(1).bytes(3000)
    middle = len(content) // 2
    return content[:middle] + noise + content[middle + len(noise) :]


def of_a_lost_fragment(content: bytes) -> bytes:
    """No frame is damaged: those behind the fragment's header are not found."""
    at = content.index(b"moof", len(content) // 2) - 4
    return content[:at] + bytes(64) + content[at + 64 :]


NAMES = ["a.mkv", "a.mp4", "a.avi", "a.ts", "a.webm", *MP4]
DAMAGE = [
    *(("a.mkv", how) for how in (cut, cut_a_little, overwritten)),
    *(("fragmented.mp4", how) for how in (cut, overwritten, of_a_lost_fragment)),
    *(("head-first.mp4", how) for how in (cut, cut_a_little, overwritten)),
    *(("a.avi", how) for how in (cut, overwritten)),
    *(("a.webm", how) for how in (cut, overwritten)),
    ("a.mp4", overwritten),
    ("a.ts", overwritten),
]


@pytest.mark.parametrize("name", [*NAMES, "sound.mkv", "sound.mp4"])
def test_whole_videos_are_read_without_a_word(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, sound=name.startswith("sound"))
    lines: list[str] = []
    with VideoReader(path, say=lines.append) as video:
        assert len(list(video)) == COUNT and not lines


@pytest.mark.parametrize(("name", "how"), DAMAGE)
def test_a_damaged_video_is_no_shorter_one(
    tmp_path: Path, name: str, how: Callable[[bytes], bytes]
) -> None:
    path = make(tmp_path / name)
    path.write_bytes(how(path.read_bytes()))
    with pytest.raises(DataError) as caught, VideoReader(path) as video:
        list(video)
    assert caught.value.skippable and "--on-bad-image" not in str(caught.value)
    lines: list[str] = []
    with VideoReader(path, skip=True, say=lines.append) as video:
        assert 0 < len(list(video)) <= COUNT
    assert lines and all(name in line for line in lines)


def test_a_frame_of_which_a_part_is_missing_is_told(tmp_path: Path) -> None:
    """A transport stream promises nothing: what the decoder notices is all there is."""
    path = make(tmp_path / "a.ts")
    with av.open(str(path)) as container:
        packets = [(packet.size, packet.pos) for packet in container.demux() if packet.size]
    size, start = max(packets[COUNT // 2 :])
    path.write_bytes(path.read_bytes()[: start + size // 2])
    with (
        pytest.raises(DataError, match=r"frame \d+ \(\d\.\d\d s\) is damaged"),
        VideoReader(path) as video,
    ):
        list(video)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", count=160)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux() if packet.size]
    content = bytearray(path.read_bytes())
    for place in places[1:61]:
        content[place : place + 8] = bytes([255] * 8)  # no picture is so long
    path.write_bytes(content)
    lines: list[str] = []
    with VideoReader(path, skip=True, say=lines.append) as video:
        assert 90 < len(list(video)) < 160
    assert len(lines) == 21 and "more such faults" in lines[-1]


def test_what_is_missing_is_told_before_anything_is_written(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    whole, half = make(tmp_path / "a.mkv"), tmp_path / "half.mkv"
    half.write_bytes(cut(whole.read_bytes()))
    for src, bgr in ((half, whole), (whole, half)):
        argv = words(weights, tmp_path)
        argv[3], argv[5] = str(src), str(bgr)
        said = error_of(capsys, *argv)
        assert "half.mkv is cut short" in said and "of the 1.60 s that it promises" in said
        assert not (tmp_path / "out").exists()
    argv[3], argv[5] = str(half), str(whole)
    assert predict.main([*argv, "--on-bad-image", "skip"]) == 0
    assert "warning" in capsys.readouterr().out and files(tmp_path / "out") == ["pha/half.mp4"]


def test_what_came_before_a_damaged_frame_is_kept_under_another_name(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    path = make(tmp_path / "a.mp4")
    path.write_bytes(overwritten(path.read_bytes()))
    argv = words(weights, tmp_path, "--type", "pha", "fgr", "--batch-size", 2)
    argv[3] = argv[5] = str(path)
    said = error_of(capsys, *argv)
    assert " s)" in said and "what was predicted before it is in" in said
    assert "type --on-bad-image skip" in said
    kept = sorted((tmp_path / "out").rglob("*.mp4"))
    assert [each.parent.name for each in kept] == ["fgr", "pha"]
    count = int(kept[0].name.removeprefix("a.first-").removesuffix(".mp4"))
    assert 0 < count < COUNT and all(str(each) in said for each in kept)
    with VideoReader(kept[0]) as video:
        assert len(list(video)) == count
    assert error_of(capsys, *argv, "--skip-existing") == said  # it is not taken for the whole
    assert len(files(tmp_path / "out")) == 4  # the earlier ones were renamed


def test_pixels_keep_their_shape(tmp_path: Path, weights: Path) -> None:
    for name, aspect, turned, expected in (
        ("a", Fraction(4, 3), 0, Fraction(4, 3)),
        ("b", Fraction(4, 3), 90, Fraction(3, 4)),
        ("c", None, 0, None),
    ):
        path = tmp_path / f"{name}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            if aspect:
                stream.codec_context.sample_aspect_ratio = aspect
            if turned:
                stream.set_display_rotation(turned)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
            container.mux(stream.encode(None))
        argv = words(weights, tmp_path)
        argv[3] = argv[5] = str(path)
        assert predict.main(argv) == 0
        with av.open(str(tmp_path / "out/pha" / path.name)) as container:
            assert (container.streams.video[0].sample_aspect_ratio or None) in (expected, 1) and (
                expected is None or container.streams.video[0].sample_aspect_ratio == expected
            )


def wide_clip(path: Path, pixels: np.ndarray, transfer: int, primaries: int) -> Path:
    """Of pixels that are already in that curve and of those primaries."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = 9, 1
        context.color_trc, context.color_primaries = transfer, primaries
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def signal_of(nits: float, transfer: int) -> float:
    """The curves of ITU-R BT.2100 the other way round, for a grey."""
    if transfer == PQ:
        power = (nits / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    scene = (nits / 1000) ** (1 / 1.2)
    if scene <= 1 / 12:
        return (3 * scene) ** 0.5
    return 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_light_of_high_dynamic_range(transfer: int) -> None:
    """Greys up to 0.8 of a white sheet (203 nits) keep their light; above, none is cut off, and
    none changes places."""
    nits = np.array([0.5, 5, 20, 80, 160, 203, 400, 700, 1000])
    grey = np.array([signal_of(each, transfer) for each in nits])
    found = converted(np.repeat(grey[:, None], 3, axis=1), transfer, 9)
    assert np.abs(found - found[:, :1]).max() < 1e-3
    light = np.where(found > 0.04045, ((found + 0.055) / 1.055) ** 2.4, found / 12.92)[:, 0]
    assert np.allclose(light[:5], nits[:5] / 203, rtol=0.01)
    assert (np.diff(light) > 0.005).all() and light[5] > 0.85 and abs(light[-1] - 1) < 1e-3
    table = to_bt709(
        np.round(np.repeat(grey[:, None, None], 3, axis=2) * 255).astype(np.uint8), transfer, 9
    )
    assert np.abs(table[:, 0] / 255 - found).max() < 0.03


def test_colours_of_a_wide_gamut() -> None:
    """BT.709's own primaries, written as BT.2020, come back; a curve as usual stays."""
    in_2020 = np.array(
        [[0.6274, 0.0691, 0.0164], [0.3293, 0.9195, 0.0880], [0.0433, 0.0114, 0.8956]]
    )
    curved = np.where(in_2020 > 0.0031308, 1.055 * in_2020 ** (1 / 2.4) - 0.055, 12.92 * in_2020)
    assert np.abs(converted(curved, 1, 9) - np.eye(3)).max() < 0.05
    some = np.random.default_rng(0).random((50, 3))
    assert np.allclose(converted(some, 1, 1), some)


def test_a_video_of_high_dynamic_range_is_brought_to_bt709_and_said(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    grey = round(signal_of(80, HLG) * 255)
    pixels = np.full((*SIZE, 3), grey, np.uint8)
    path = wide_clip(tmp_path / "a.mp4", pixels, HLG, 9)
    with VideoReader(path) as video:
        ((found, _),) = video
    expected = 255 * (1.055 * (80 / 203) ** (1 / 2.4) - 0.055)
    assert np.abs(found.astype(int) - expected).max() <= 4 and abs(grey - expected) > 10
    argv = words(weights, tmp_path, "--type", "fgr")
    argv[3] = argv[5] = str(path)
    assert predict.main(argv) == 0
    assert "a.mp4 is HLG, BT.2020" in capsys.readouterr().out


def box(kind: bytes, *content: bytes) -> bytes:
    inside = b"".join(content)
    return struct.pack(">I", 8 + len(inside)) + kind + inside


def with_cover(path: Path) -> None:
    """Puts a cover into an MP4, as music stores do, before its streams: FFmpeg's first stream."""
    shown = io.BytesIO()
    Image.new("RGB", SIZE[::-1], "red").save(shown, "PNG")
    data = box(b"data", struct.pack(">II", 14, 0), shown.getvalue())
    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    cover = box(b"udta", box(b"meta", bytes(4), handler, box(b"ilst", box(b"covr", data))))
    content = path.read_bytes()
    place = content.index(b"moov") - 4  # the last box, so that nothing that it points to moves
    first = place + 8 + int.from_bytes(content[place + 8 : place + 12], "big")  # behind mvhd
    path.write_bytes(
        content[:place] + box(b"moov", content[place + 8 : first], cover, content[first:])
    )


def test_a_cover_is_not_taken_for_the_video(tmp_path: Path) -> None:
    path = make(tmp_path / "clip.mp4")
    with_cover(path)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2 and container.streams[0].frames <= 1
    with VideoReader(path) as reader:
        frames = [frame for frame, _ in reader]
    assert len(frames) == COUNT and frames[0].std() > 20
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    with_cover(tmp_path / "song.mp4")
    with pytest.raises(DataError, match="has no pictures in it, but for a cover; give a video"):
        VideoReader(tmp_path / "song.mp4")


def test_an_interlaced_video_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mpg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(3):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24"))
            )
        container.mux(stream.encode(None))
    with VideoReader(path) as video:
        assert ["is interlaced" in note for note in video.notes()] == [True]


def test_videos_where_pictures_are_wanted(
    here: Path, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    clip = make(here / "clip.mts".upper(), count=2)
    argv = words(weights, here, "--type", "com", "--com-bgr", str(clip))
    argv[3] = argv[5] = str(clip)
    assert "CLIP.MTS is a video, not a picture" in error_of(capsys, *argv)
    assert predict.main([*argv[:-4], "--type", "pha"]) == 0  # of any ending
    (here / "many").mkdir()
    make(here / "many/1.wmv.mp4", count=1)
    argv[3] = str(here / "many")
    said = error_of(capsys, *argv[:-4])
    assert "1 .mp4, which are not read" in said
    data = make_data(here / "data")
    for each in (data / "train/fgr").rglob("*.jpg"):
        each.unlink()
    make(data / "train/fgr/1.mkv", count=1)
    train(data, status=2)
    assert "pack_data.py --from-clips" in training_error_of(capsys)


def test_a_writer_keeps_what_it_is_told(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", SIZE, Fraction(25), Fraction(1, 25)) as writer:
        writer.write(picture(0), 0)
    with VideoReader(tmp_path / "a.mp4") as video:
        assert video.shape == (SIZE, 25, video.time_base, 1) and not video.notes()
