"""Mattes of pictures or of a video, by weights that training has saved. Any size of picture.

python predict.py --model-checkpoint checkpoint/NAME/epoch-7.pth --src DIR --bgr DIR --output OUT

As a library: `from predict import Matter, RefineSettings`.
"""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.choices import REFINED_TYPES
from common.cli import MAX_BATCH, MAX_WORKERS, Formatter, Parser, command, integer
from common.script import message_of, run_script
from common.text import tell
from prediction import refining

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np

    from prediction.frames import Frame


def __getattr__(name: str) -> Any:
    """`from predict import Matter`, without importing torch for who only wants --help."""
    if name == "Matter":
        from prediction.predictor import Matter

        return Matter
    if name == "RefineSettings":
        return refining.RefineSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


DESCRIPTION = """\
Mattes of pictures, or of a video, given the same scene without the person.

    python predict.py --model-checkpoint checkpoint/NAME/epoch-7.pth \\
        --src photos/src --bgr photos/bgr --output mattes --type pha com

writes mattes/pha/a/b.png and mattes/com/a/b.png for photos/src/a/b.jpg; its background is
photos/bgr/a/b.jpg or .png. A video gives mattes/pha/NAME.mp4.
"""


SKIP = "--on-bad-image skip to take what there is"


def main(argv: list[str] | None = None) -> int:
    """Predicts as the command line says. Returns the exit status: 0; 2 where the input is at
    fault, with one line that says what; 128 + the signal's number where it was asked to stop."""
    argv = sys.argv[1:] if argv is None else argv

    def stopped(options: argparse.Namespace) -> str:
        how, more = "to go on", []
        if options.overwrite:  # which old outputs are replaced already cannot be told from outside
            how = "to start again"
        elif not options.skip_existing:
            more = ["--skip-existing"]
        line = command(sys.argv[0], *argv, *more)
        return f"stopped; what is written is intact; {how}: {line}"

    def short_of_memory(options: argparse.Namespace) -> str:
        if options.refines:
            return (
                f"out of memory with --batch-size {options.batch_size} at the pictures' own size; "
                f"type {refining.for_less_memory(options)}, or make the pictures smaller"
            )
        return (
            f"out of memory with --batch-size {options.batch_size} and --size "
            f"{options.size or refining.SIZE}; type smaller ones"
        )

    return run_script(
        "predict.py",
        parse_options,
        predict,
        argv,
        when_stopped=stopped,
        when_memory_is_short=short_of_memory,
        skip=SKIP,
    )


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser("predict.py", description=DESCRIPTION, formatter_class=Formatter)
    # fmt: off
    parser.add_argument(
        "--model-checkpoint", type=Path, required=True, metavar="FILE",
        help="weights of MattingBase or MattingRefine: this program's or the published one's",
    )

    data = parser.add_argument_group("pictures")
    data.add_argument(
        "--src", "--images-src", "--video-src", type=Path, required=True, metavar="DIR_OR_FILE",
        help="a folder of JPEG and PNG pictures, nested as you like, one picture, or a video",
    )
    data.add_argument(
        "--bgr", "--images-bgr", "--video-bgr", type=Path, required=True, metavar="DIR_OR_FILE",
        help="the scene without the person: a folder with a background of the same name for each "
        "picture, or one picture for all; for a video, a picture or a video",
    )
    data.add_argument(
        "--output", "--output-dir", type=Path, required=True, metavar="DIR",
        help="where OUTPUT/TYPE/NAME.png goes (of a video, OUTPUT/TYPE/NAME.mp4)",
    )
    data.add_argument(
        "--type", "--output-types", nargs="+", choices=REFINED_TYPES, default=["pha"],
        dest="types",
        help="pha: the alpha; fgr: the foreground's colours; com: the foreground on --com-bgr; "
        "err: how wrong the network expects its alpha to be; ref: where MattingRefine has refined "
        "(default: pha)",
    )
    data.add_argument(
        "--com-bgr", metavar="COLOUR_OR_FILE",
        help="behind com: a colour (green, #00b140), a picture, scaled to cover, or transparent: "
        "RGBA, straight alpha (default: transparent)",
    )
    existing = data.add_mutually_exclusive_group()
    existing.add_argument(
        "--overwrite", "-y", action="store_true",
        help="replace outputs that are there; without it they stop the program",
    )
    existing.add_argument(
        "--skip-existing", action="store_true",
        help="leave outputs that are there as they are, and make the others",
    )
    data.add_argument(
        "--on-bad-image", choices=["stop", "skip"], default="stop",
        help="a picture that cannot be decoded, or a video that is cut short or damaged: stop and "
        "name it; or skip: name it and go on with what there is",
    )

    refining.add_options(parser)
    enlarging = parser.add_argument_group("enlarging, where the base network is alone")
    enlarging.add_argument(
        "--size", type=integer(32), metavar="N",
        help="the network sees a larger picture scaled down to the pixels of a square of N: as in "
        f"training (--crop-size); smaller ones as they are (default: {refining.SIZE})",
    )
    enlarging.add_argument(
        "--upsample", choices=["guided", "bilinear"],
        help="how alpha is brought back to the picture's size: led by the picture, or not "
        "(default: guided)",
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N; auto: a GPU if there is one"
    )
    machine.add_argument(
        "--precision", choices=["fp16", "bf16", "fp32"],
        help="of the network (default: fp16 on CUDA, fp32 elsewhere); fp32 on CUDA "
        "computes convolutions in TF32, with 10 bits of fraction",
    )
    machine.add_argument(
        "--batch-size", type=integer(1, MAX_BATCH), default=4, metavar="N",
        help="pictures of one size at a time; fewer where they are large",
    )
    machine.add_argument(
        "--num-workers", type=integer(0, MAX_WORKERS), default=4, metavar="N",
        help="threads that read pictures, and as many that write them; 0, as published, is 1",
    )
    # fmt: on
    options = parser.parse_args(argv)
    options.types = list(dict.fromkeys(options.types))
    options.num_workers = max(1, options.num_workers)
    options.refines = False  # until the file is read
    if options.com_bgr is not None and "com" not in options.types:
        parser.error("--com-bgr goes with --type com")
    options.com_bgr = options.com_bgr or "transparent"
    return options


def predict(options: argparse.Namespace) -> None:
    """Predicts, writes and tells. Raises the errors that are turned into a line."""
    # Heavy things only now, so that --help need not wait for them.
    from common.files import check_writable
    from dataset.video import is_video

    check_writable(options.output)
    with contextlib.ExitStack() as exit_stack:
        (predict_video if is_video(options.src) else predict_pictures)(options, exit_stack)


# ---- Pictures -----------------------------------------------------------------------------------


def predict_pictures(options: argparse.Namespace, exit_stack: contextlib.ExitStack) -> None:
    """Reads a batch while another is predicted and the one before is written."""
    from common.errors import DataError
    from prediction.frames import find_frames, read_rgb
    from prediction.network import make_matter, tell_not_refined, tell_settings
    from prediction.pipeline import (
        Progress,
        arrays_of,
        batches,
        com_background,
        one_ahead,
        outputs_to_write,
        tensor_of,
        threads,
        wait_for_all,
        write_pictures,
    )

    skip = options.on_bad_image == "skip"
    frames, faults = find_frames(options.src, options.bgr, tell)
    if faults and not skip:
        raise faults[0]
    names = [frame.name for frame in frames]
    outputs = outputs_to_write(options, names, ".png")
    left = [frame for frame in frames if outputs[frame.name]]
    if frames and not left:
        print(f"all outputs of {len(frames)} picture(s) are there already")
        return
    com_bgr = com_background(options)
    bgr_of_all = None if options.bgr.is_dir() or not frames else read_rgb(options.bgr)
    matter = make_matter(options)
    progress = exit_stack.enter_context(Progress(len(left)))
    for fault in faults:
        progress.say(f"left out: {fault}")
    if len(left) < len(frames):
        progress.say(f"{len(frames) - len(left)} of {len(frames)} are there already")

    readers = exit_stack.enter_context(threads(options.num_workers))
    writers = exit_stack.enter_context(threads(options.num_workers))

    def read(frame: "Frame") -> "tuple[np.ndarray, np.ndarray] | DataError":
        try:
            bgr = read_rgb(frame.bgr) if bgr_of_all is None else bgr_of_all
            return read_rgb(frame.src), bgr
        except DataError as error:
            return error

    def begin(batch: "list[Frame]") -> list:
        return [readers.submit(read, frame) for frame in batch]

    writing: list[Future] = []
    for batch, begun in one_ahead(batches(left, options.batch_size), begin):
        good = []
        for frame, future in zip(batch, begun, strict=True):
            pixels = future.result()
            if not isinstance(pixels, DataError):
                good.append((frame, *pixels))
            elif skip:
                faults.append(pixels)
                progress.say(f"left out: {pixels}")
            else:
                wait_for_all(writing, progress)  # what was done before it stays
                raise pixels
        if not good:
            continue
        done, srcs, bgrs = zip(*good, strict=True)
        tell_settings(matter, done[0].size, progress)
        types = [name for name in options.types if any(name in outputs[f.name] for f in done)]
        found = matter(
            tensor_of(srcs),
            tensor_of(bgrs if bgr_of_all is None else bgrs[:1]),
            types,
            com_bgr(done[0].size),
        )
        begun_writing = [
            writers.submit(write_pictures, outputs[frame.name], arrays)
            for frame, arrays in zip(done, arrays_of(found), strict=True)
        ]
        wait_for_all(writing, progress)
        writing = begun_writing
    wait_for_all(writing, progress)
    if not progress.done:
        raise DataError(f"no picture could be read; the first: {faults[0]}")
    folders = ", ".join(str(options.output / each) for each in options.types)
    tell_not_refined(matter, progress)
    progress.end(f"; wrote {folders}" + (f"; {len(faults)} left out" if faults else ""))


# ---- A video ------------------------------------------------------------------------------------


def predict_video(options: argparse.Namespace, exit_stack: contextlib.ExitStack) -> None:
    """Reads, predicts and writes a batch of frames at a time, as predict_pictures does. The files
    get their names when they are complete."""
    from common.errors import DataError, OptionError
    from dataset.video import VideoReader, VideoWriter, is_video
    from prediction.frames import read_rgb
    from prediction.network import make_matter, tell_not_refined, tell_settings
    from prediction.pipeline import (
        Progress,
        arrays_of,
        com_background,
        frames_at_once,
        one_ahead,
        outputs_to_write,
        part_of,
        tensor_of,
        threads,
        wait_for_all,
        whole_file,
        with_backgrounds,
    )

    name = options.src.stem
    if "com" in options.types and options.com_bgr == "transparent":
        raise OptionError(
            "a video has no transparency: type --com-bgr with a colour or a picture, or --type "
            "pha fgr"
        )
    if not options.bgr.is_file():
        what = "is a folder" if options.bgr.is_dir() else "does not exist"
        where = options.bgr if options.bgr.is_dir() else options.bgr.parent
        raise OptionError(
            f"--bgr {options.bgr} {what}; --src is a video, which has one background: type --bgr "
            f"{where / 'PICTURE.png'}, or the name of a video of the scene"
        )
    paths = outputs_to_write(options, [name], ".mp4")[name]
    if not paths:
        print("all outputs are there already")
        return
    skip = options.on_bad_image == "skip"
    video = exit_stack.enter_context(VideoReader(options.src, skip, tell))
    bgrs: Iterator[np.ndarray]
    if is_video(options.bgr):
        backgrounds = exit_stack.enter_context(VideoReader(options.bgr, skip, tell))
        bgr_size, bgrs, one_for_all = backgrounds.size, (bgr for bgr, _ in backgrounds), False
    else:
        bgr = read_rgb(options.bgr)
        bgr_size, bgrs, one_for_all = bgr.shape[:2], itertools.repeat(bgr), True
    if bgr_size != video.size:
        raise DataError(
            f"{options.src} is {video.size[1]}x{video.size[0]}, and {options.bgr} "
            f"{bgr_size[1]}x{bgr_size[0]}; both must show the same scene from the same place"
        )
    com_bgr = com_background(options)(video.size)
    matter = make_matter(options)
    progress = exit_stack.enter_context(Progress(video.count, "frame"))
    tell_settings(matter, video.size, progress)
    for note in video.notes():
        progress.say(note)

    cut: list[DataError] = []  # what stopped it on the way

    def part() -> str:
        return f"first-{progress.done}" if cut else ""

    stream = with_backgrounds(video, bgrs, options.bgr, progress.say)
    count = frames_at_once(video.size, options.batch_size)
    reader = exit_stack.enter_context(threads(1))
    with contextlib.ExitStack() as files:
        writers = {
            each: files.enter_context(
                VideoWriter(files.enter_context(whole_file(path, part)), *video.shape)
            )
            for each, path in paths.items()
        }
        encoder = files.enter_context(threads(1))

        def write(arrays: "dict[str, np.ndarray]", at: int) -> None:
            for each, writer in writers.items():
                writer.write(arrays[each], at)

        def begin(_number: int) -> Any:
            return reader.submit(lambda: list(itertools.islice(stream, count)))

        writing: list[Future] = []
        for _number, begun in one_ahead(itertools.count(), begin):
            try:
                batch = begun.result()
            except DataError as error:
                wait_for_all(writing, progress)
                if not progress.done:
                    raise
                cut.append(error)
                break
            if not batch:
                break
            srcs, times, bgrs_read = zip(*batch, strict=True)
            bgrs_read = bgrs_read[:1] if one_for_all else bgrs_read
            found = matter(tensor_of(srcs), tensor_of(bgrs_read), list(paths), com_bgr)
            begun_writing = [
                encoder.submit(write, arrays, at)
                for arrays, at in zip(arrays_of(found), times, strict=True)
            ]
            wait_for_all(writing, progress)
            writing = begun_writing
        wait_for_all(writing, progress)
    if cut:
        where = ", ".join(str(part_of(path, part())) for path in paths.values())
        raise DataError(f"{message_of(cut[0], SKIP)}; what was predicted before it is in {where}")
    tell_not_refined(matter, progress)
    progress.end(f"; wrote {', '.join(map(str, paths.values()))}")


if __name__ == "__main__":
    sys.exit(main())
