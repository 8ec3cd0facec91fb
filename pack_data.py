"""Packs a data set of many small files into few large tar files, which train like the files.

    python pack_data.py SOURCE TARGET
    python train_base.py --dataset-dir TARGET

SOURCE is laid out as --dataset-dir wants it; TARGET is new, and gets SOURCE's folders with tar
files of pictures in them, the two of a pair side by side, an index beside each tar. SOURCE is
only read. What was written is looked through in the end: names, counts and sizes are SOURCE's.

Or makes a data set out of clips, foregrounds in one folder and their alphas in another:

    python pack_data.py --from-clips FGR_DIR PHA_DIR OUT

A clip meets the alpha of the same name; both have the same size, rate and number of frames. OUT
gets train and valid, each clip in one of them. If it is stopped, the same command goes on.
"""

import argparse
import sys
from pathlib import Path

from common.cli import MAX_PIXELS, MAX_WORKERS, Formatter, Parser, fraction, integer, said
from common.script import run_script
from common.signals import StopRequest
from common.text import printable
from dataset.shard import UNFINISHED, pack

MEGABYTE = 1_000_000
# Options of clips alone, and what they are where they are not given.
OF_CLIPS = {
    "every": 1,
    "scale": 0,
    "folders": False,
    "format": "jpg",
    "valid_clips": None,
    "valid_share": 0.1,
    "on_bad_clip": "stop",
    "num_workers": None,
}


def main(argv: list[str] | None = None) -> int:
    """Packs as the command line says. Returns the exit status: 0; 2 where something is wrong, with
    one line that says what; 128 + the signal's number where it was stopped."""
    return run_script(
        "pack_data.py",
        parse_options,
        work,
        argv,
        when_stopped=stopped_line,
        when_memory_is_short=lambda _: (
            "out of memory; end other programs, or pack where there is more"
        ),
        stop=StopRequest(once=True),  # what was written is removed then, or left in order
    )


def work(options: argparse.Namespace) -> None:
    shard_bytes = options.shard_size * MEGABYTE
    if not options.from_clips:
        pack(options.source, options.target, shard_bytes)
        return
    from dataset.clips import Settings, pack_clips

    fgr_dir, pha_dir, out = options.from_clips
    pack_clips(
        fgr_dir,
        pha_dir,
        out,
        Settings(
            every=options.every,
            height=options.scale,
            png=options.format == "png",
            folders=options.folders,
            shard_bytes=shard_bytes,
        ),
        valid_clips=options.valid_clips,
        valid_share=options.valid_share,
        skip=options.on_bad_clip == "skip",
        workers=options.num_workers,
    )


def stopped_line(options: argparse.Namespace) -> str:
    if not options.from_clips:
        return f"stopped: {printable(options.target)} is as it was before"
    place = printable(options.from_clips[2] / UNFINISHED)
    return f"stopped: clips that are done stay in {place}; to go on, type the same command"


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of `argv` (None: of the command line). Wrong ones end the program with status 2
    and one line that says which."""
    parser = Parser("pack_data.py", description=__doc__, formatter_class=Formatter)
    # fmt: off
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE", help="a data set")
    parser.add_argument(
        "target", type=Path, nargs="?", metavar="TARGET", help="a folder, empty or new"
    )
    parser.add_argument(
        "--shard-size", type=integer(1, 10**9 - 1), default=1000, metavar="MB",
        help="of a tar file, at most, unless a single pair is larger",
    )
    clips = parser.add_argument_group("clips")
    clips.add_argument(
        "--from-clips", type=Path, nargs=3, metavar=("FGR_DIR", "PHA_DIR", "OUT"),
        help="in place of SOURCE and TARGET: folders of clips, of which OUT becomes a data set",
    )
    clips.add_argument(
        "--every", type=integer(1), metavar="N", help="take every Nth frame (default: 1, all)"
    )
    clips.add_argument(
        "--scale", type=integer(16, MAX_PIXELS), metavar="HEIGHT",
        help="of the pictures in pixels, such as 1080; what is lower stays (default: the clip's)",
    )
    clips.add_argument(
        "--folders", action="store_true", default=None,
        help="write each picture as a file of its own, not into tars",
    )
    clips.add_argument(
        "--format", choices=["jpg", "png"],
        help="of foregrounds: JPEG of quality 95, or PNG, larger and without loss; alphas "
        "are PNG always (default: jpg)",
    )
    split = clips.add_mutually_exclusive_group()
    split.add_argument(
        "--valid-clips", nargs="+", metavar="NAME", help="clips to validate on, as a whole"
    )
    split.add_argument(
        "--valid-share", type=fraction, metavar="SHARE",
        help="of the clips, evenly spaced by name, to validate on: from 0, none, to 1, all "
        "(default: 0.1)",
    )
    clips.add_argument(
        "--on-bad-clip", choices=["stop", "skip"],
        help="that has no partner, is damaged or does not fit its alpha: stop in the end and name "
        "it, or leave it out and name it (default: stop)",
    )
    clips.add_argument(
        "--num-workers", type=integer(1, MAX_WORKERS), metavar="N",
        help="processes, each with a clip at a time (default: one a processor)",
    )
    # fmt: on
    options = parser.parse_args(argv)
    if options.from_clips and options.source:
        parser.error(f"--from-clips takes three folders; nothing takes {said(str(options.source))}")
    if not options.from_clips and not options.target:
        parser.error("type SOURCE and TARGET, or --from-clips FGR_DIR PHA_DIR OUT")
    for name, default in OF_CLIPS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif not options.from_clips:
            parser.error(f"--{name.replace('_', '-')} is of --from-clips, which is not given")
    return options


if __name__ == "__main__":
    sys.exit(main())
