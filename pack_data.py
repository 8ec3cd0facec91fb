"""Packs a data set of many small files into few large tar files, which train like the files.

    python pack_data.py SOURCE TARGET
    python train_base.py --dataset-dir TARGET

SOURCE is laid out as --dataset-dir wants it; TARGET is new, and gets SOURCE's folders with tar
files of pictures in them, the two of a pair side by side, an index beside each tar. SOURCE is
only read. What was written is looked through in the end: names, counts and sizes are SOURCE's.
"""

import argparse
import sys
from pathlib import Path

from common.cli import Formatter, Parser, integer
from common.script import run_script
from common.signals import StopRequest
from common.text import printable
from dataset.shard import pack

MEGABYTE = 1_000_000


def main(argv: list[str] | None = None) -> int:
    """Packs as the command line says. Returns the exit status: 0; 2 where something is wrong, with
    one line that says what; 128 + the signal's number where it was stopped."""
    return run_script(
        "pack_data.py",
        parse_options,
        lambda options: pack(options.source, options.target, options.shard_size * MEGABYTE),
        argv,
        when_stopped=lambda options: f"stopped: {printable(options.target)} is as it was before",
        when_memory_is_short=lambda _: (
            "out of memory; end other programs, or pack where there is more"
        ),
        stop=StopRequest(once=True),  # what was written is removed then
    )


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of `argv` (None: of the command line). Wrong ones end the program with status 2
    and one line that says which."""
    parser = Parser("pack_data.py", description=__doc__, formatter_class=Formatter)
    # fmt: off
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a data set")
    parser.add_argument("target", type=Path, metavar="TARGET", help="a folder, empty or new")
    parser.add_argument(
        "--shard-size", type=integer(1, 10**9 - 1), default=1000, metavar="MB",
        help="of a tar file, at most, unless a single pair is larger",
    )
    # fmt: on
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
