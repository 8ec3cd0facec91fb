"""Videos, frame by frame: read upright, written as H.264, never held in memory as a whole.

Needs PyAV (https://pyav.org), which is no requirement of the rest: it is imported on first use.
"""

import os
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from common.cli import command
from common.errors import DataError
from common.text import MAX_NAMES_LISTED
from dataset.intact_video import pictures_of, what_lacks
from dataset.kinds import VIDEO_ENDINGS
from dataset.wide_video import said, to_bt709

ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that this PyAV has
LIBX264_OPTIONS = {"crf": "16", "preset": "medium"}  # of libx264: hardly told from the original
BT601, BT709 = 5, 1  # as H.264 and swscale number them
UNSPECIFIED_COLOURS = 2
MIN_BT709_ROWS = 720  # from this height on, pictures that do not say so are taken to be of BT.709


def is_video(path: Path) -> bool:
    """By its ending."""
    return path.suffix.lower() in VIDEO_ENDINGS and not path.is_dir()


def _av():
    try:
        import av
    except ImportError:
        raise DataError(
            "reading and writing videos needs PyAV; type: "
            f"{command('-m', 'pip', 'install', 'av')} (or give a folder of pictures)"
        ) from None
    av.logging.set_level(None)  # what stops us is raised; the rest is no concern of the user's
    return av


def frames_said(path: Path) -> int | None:
    """How many frames a file says that it has, found without reading it through; None where it does
    not say it or cannot be read, which a VideoReader tells more of. Raises DataError without
    PyAV."""
    av = _av()
    try:
        with av.open(os.fspath(path)) as container:
            stream = pictures_of(container)
            return (stream.frames or None) if stream else None
    except (av.FFmpegError, OSError, ValueError):
        return None


class VideoReader:
    """The frames of a file's first video stream that is no cover, within `with`; iterate once.

    size: (height, width) upright. rate: frames a second, the average. time_base: seconds, of which
    a frame's time is a whole multiple. pixel_aspect: how wide a pixel is shown, heights being 1.
    count: of frames, as the file says; None if it does not. audio: whether there is sound, which is
    not read. wide: what the video is of where that is no BT.709: frames come in BT.709.

    skip: whether damage stops it. Where it does not, `say` is told of what lacks and of each frame
    that is damaged, which comes as far as it could be decoded, or cannot be decoded, which is left
    out. Raises DataError, also while iterating.
    """

    def __init__(
        self, path: Path, skip: bool = False, say: Callable[[str], object] = print
    ) -> None:
        self.path, self._skip, self._say, self._faults = path, skip, say, 0
        self._av = _av()
        if not path.exists():
            raise DataError(f"there is no file {path}; check the path")
        if not path.is_file():  # which is read twice
            raise DataError(f"{path} is no file, but a folder, a pipe or a device; give a video")
        try:
            self._container = self._av.open(os.fspath(path))
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise DataError(self._unreadable(error)) from None
        try:
            stream = pictures_of(self._container)
            if stream is None:
                cover = ", but for a cover" if self._container.streams.video else ""
                raise DataError(f"{path} has no pictures in it{cover}; give a video")
            if path.is_file() and (lacks := what_lacks(path, self._av)):  # a pipe is read once
                self._damaged(f"{path} is cut short or damaged: {lacks}")
            stream.thread_type = "AUTO"
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.time_base = stream.time_base or 1 / self.rate
            self.count = stream.frames or None
            self.audio = bool(self._container.streams.audio)
            self.pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
            self.wide, self._interlaced = "", False
            self._frames = self._decode(stream)
            self._first = next(self._frames, None)
            if self._first is None:
                raise DataError(f"{path} has no frame that can be decoded; give another video")
            self.size = self._first[0].shape[:2]
        except self._av.FFmpegError as error:
            self._container.close()
            raise DataError(self._unreadable(error)) from None
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_error: object) -> None:
        self._frames.close()
        self._container.close()

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        """Frames, uint8 (H, W, 3), and their times in units of time_base."""
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._frames

    def _decode(self, stream) -> Generator[tuple[np.ndarray, int], None, None]:
        last, size = None, None
        step = max(1, round(1 / (self.rate * self.time_base)))
        try:
            for frame in self._decoded(stream):
                pixels = _upright_rgb(frame)
                if last is None:
                    self.wide, self._interlaced = _wide(frame), frame.interlaced_frame
                    if round(frame.rotation / 90) % 2:
                        self.pixel_aspect = 1 / self.pixel_aspect
                if size and pixels.shape[:2] != size:
                    raise DataError(
                        f"{self.path} changes its size on the way, from {size[1]}x{size[0]} to "
                        f"{pixels.shape[1]}x{pixels.shape[0]}; convert it to one size"
                    )
                size = pixels.shape[:2]
                time = frame.pts
                if time is None or (last is not None and time <= last):  # no or a wrong one
                    time = 0 if last is None else last + step
                last = time
                yield pixels, time
            if (more := self._faults - MAX_NAMES_LISTED) > 0:
                self._say(f"warning: {self.path}: {more} more such faults")
        except (self._av.FFmpegError, OSError) as error:
            raise DataError(self._unreadable(error)) from None

    def _decoded(self, stream) -> Iterator:
        """The frames as they are stored, one by one, and beyond what is damaged."""
        number, last = 0, "its beginning"
        for packet in self._container.demux(stream):
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                if not packet.size:  # behind the last one: decoders end so
                    return
                self._damaged(
                    f"{self.path}: what follows {last} cannot be decoded ({error.strerror})"
                )
                continue
            for frame in frames:
                number += 1
                last = f"frame {number}" + ("" if frame.time is None else f" ({frame.time:.2f} s)")
                if frame.is_corrupt:
                    self._damaged(f"{self.path}: {last} is damaged")
                yield frame

    def _damaged(self, what: str) -> None:
        if not self._skip:
            raise DataError(f"{what}; replace it", skippable=True)
        self._faults += 1
        if self._faults <= MAX_NAMES_LISTED:
            self._say(f"warning: {what}")

    @property
    def shape(self) -> tuple[tuple[int, int], Fraction, Fraction, Fraction]:
        """What a VideoWriter wants to know to write such a video."""
        return self.size, self.rate, self.time_base, self.pixel_aspect

    def notes(self, sound: bool = True) -> list[str]:
        """What a user should know of it. sound: whether that it is left out is said."""
        said = [f"the sound of {self.path} is left out"] if self.audio and sound else []
        if self.wide:
            said.append(f"{self.path} is {self.wide}: its colours are brought to BT.709")
        if self._interlaced:
            said.append(
                f"{self.path} is interlaced: what moves has combs, and so have its mattes; "
                "deinterlace it first: ffmpeg -i IN -vf bwdif -crf 10 OUT.mp4"
            )
        return said

    def _unreadable(self, error: Exception) -> str:
        why = getattr(error, "strerror", None) or error
        return f"{self.path} cannot be read as a video ({why}); replace it or convert it"


def _wide(frame) -> str:
    return said(int(frame.color_trc), int(frame.color_primaries))


def _upright_rgb(frame) -> np.ndarray:
    colours = frame.colorspace
    if colours == UNSPECIFIED_COLOURS:
        colours = BT709 if frame.height >= MIN_BT709_ROWS else BT601
    pixels = frame.reformat(format="rgb24", src_colorspace=int(colours)).to_ndarray()
    if _wide(frame):
        pixels = to_bt709(pixels, int(frame.color_trc), int(frame.color_primaries))
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy turns
    return np.ascontiguousarray(np.rot90(pixels, quarters))


class VideoWriter:
    """Writes frames into an MP4 file, within `with`: H.264 where this PyAV has it, else MPEG-4.

    path: of the file, whatever its ending. size: (height, width), of pixels that are shown
    pixel_aspect times as wide as high; with an odd side, colours are
    kept at full resolution (4:4:4), which needs no even sides but fewer players show. rate,
    time_base: as VideoReader has them. Raises OSError.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        rate: Fraction,
        time_base: Fraction,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        av = _av()
        self.path = path
        self._av = av
        encoder = next(name for name in ENCODERS if name in av.codecs_available)
        if encoder == "mpeg4" and time_base.denominator > 65535:  # more than its headers can say
            time_base_out = Fraction(1, 60000)
        else:
            time_base_out = time_base
        self._time_base = time_base
        # The header's length would else be rounded to milliseconds.
        how = {"movflags": "+faststart", "movie_timescale": "90000"}
        self._container = av.open(os.fspath(path), "w", format="mp4", options=how)
        stream = self._container.add_stream(
            encoder, rate=rate, options=LIBX264_OPTIONS if encoder == "libx264" else {"q:v": "2"}
        )
        stream.height, stream.width = size
        odd = size[0] % 2 or size[1] % 2
        stream.pix_fmt = "yuv444p" if odd and encoder == "libx264" else "yuv420p"
        context = stream.codec_context
        context.time_base = time_base_out
        if pixel_aspect != 1:
            context.sample_aspect_ratio = pixel_aspect
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1  # 16..235, what players expect
        self._stream = stream

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is None:
                self._mux(None)
        finally:
            self._container.close()

    def write(self, pixels: np.ndarray, time: int) -> None:
        """A frame, uint8 (H, W, 3) or grey (H, W), at a time in units of time_base."""
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=BT709)
        frame.pts, frame.time_base = time, self._time_base
        self._mux(frame)

    def _mux(self, frame) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except self._av.FFmpegError as error:
            raise OSError(f"{self.path} could not be written ({error.strerror})") from None
