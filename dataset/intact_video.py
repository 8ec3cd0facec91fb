"""Whether a video file holds what it promises, found by reading it through without decoding.

A file that is cut off, or overwritten in places, is read by FFmpeg as a shorter video, without an
error. Pictures that are damaged themselves are found when they are decoded: video.py.
"""

import os
import struct
from pathlib import Path
from typing import Any

# Whose headers say how long the video is; of others FFmpeg guesses it by what is there.
FORMATS_WITH_DURATION = ("mov", "matroska", "avi", "asf", "flv")
FORMATS_WITH_STREAM_DURATION = ("mov", "avi")  # which say it of each stream, to the frame
MAX_DECODER_DELAY_S = 1.0  # seconds: what decoders begin with
FRAMES, SECONDS, SHARE = 1.5, 0.1, 0.01  # that may lack: of a stream; of a file, the greater


def pictures_of(container: Any) -> Any:
    """The first video stream that is no cover: a picture that stands for the file in a list, which
    FFmpeg takes for a stream of one frame. None where there is no other."""
    streams = container.streams.video
    return next((s for s in streams if not s.disposition & s.disposition.attached_pic), None)


def what_lacks(path: Path, av: Any) -> str:
    """What a file that FFmpeg opens does not hold of its first video stream, in words; empty where
    all is there. av: the module. Raises its errors."""
    kind, faults = "", []
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # what another file's reading has said, too
    try:
        with av.logging.Capture() as told, av.open(os.fspath(path)) as container:
            kind = container.format.name.split(",")[0]
            faults += _read_through(container, kind, av)
    finally:
        av.logging.set_level(None)
    if kind == "mov" and (place := _broken_box(path)) is not None:
        faults.append(f"what lies behind byte {place} of {path.stat().st_size} is no part of it")
    if kind == "matroska" and not faults:
        faults += [line.strip() for level, name, line in told if "matroska" in name][:1]
    return "; ".join(faults)


def _read_through(container: Any, kind: str, av: Any) -> list[str]:
    video = pictures_of(container)
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    faults = []
    damaged, first = 0, 0.0
    try:
        for packet in container.demux():
            if packet.pts is None or not packet.time_base:
                continue
            start = float(packet.pts * packet.time_base)
            end = start + float((packet.duration or 0) * packet.time_base)
            starts[packet.stream_index] = min(starts.get(packet.stream_index, start), start)
            ends[packet.stream_index] = max(ends.get(packet.stream_index, end), end)
            if packet.is_corrupt and packet.stream_index == video.index:
                first = first if damaged else start
                damaged += 1
    except (av.FFmpegError, OSError) as error:
        faults.append(f"it cannot be read to its end ({getattr(error, 'strerror', error)})")
    if damaged:
        faults.append(f"{damaged} of its packets are damaged, the first at {first:.2f} s")
    promised, start, end = 0.0, min(starts.values(), default=0.0), max(ends.values(), default=0.0)
    if kind in FORMATS_WITH_STREAM_DURATION and video.duration:
        promised = float(video.duration * video.time_base)
        allowed = FRAMES / float(video.average_rate or 25)
        start, end = starts.get(video.index, 0.0), ends.get(video.index, 0.0)
    elif kind in FORMATS_WITH_DURATION and container.duration:
        promised = container.duration / av.time_base
        allowed = max(SECONDS, SHARE * promised)
    came = (
        end if 0 < start < MAX_DECODER_DELAY_S else end - start
    )  # some count from 0, whatever comes first
    if promised and came < promised - allowed:
        faults.insert(0, f"it ends after {came:.2f} s of the {promised:.2f} s that it promises")
    return faults


def _broken_box(path: Path) -> int | None:
    """Where the boxes of a fragmented MP4 stop to follow each other; None where they do not, or
    the file is not fragmented: then its header says what it holds."""
    size, place, fragmented = path.stat().st_size, 0, False
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            head = file.read(16)
            length, kind = struct.unpack(">I4s", head[:8]) if len(head) >= 8 else (-1, b"")
            if length == 1 and len(head) == 16:
                length = struct.unpack(">Q", head[8:])[0]
            elif length == 0 and kind == b"mdat":  # up to the end
                return None
            fragmented |= kind == b"moof"
            if length < 8 or not kind.isalnum() or place + length > size:
                return place if fragmented else None
            place += length
    return None
