"""What all command lines share: how a mistake is said, and how a command to type is written.

Imports nothing heavy.
"""

import argparse
import difflib
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from common.text import printable

DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"  # what editors and web pages make of a hyphen
# The largest numbers that mean something: beyond them, a slip of the finger would take all memory
# or never begin. Larger than any that is of use.
MAX_STEPS, MAX_EPOCHS, MAX_BATCH, MAX_WORKERS, MAX_PIXELS = 10**12, 10**6, 1 << 16, 512, 1 << 14


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage; a mistyped option comes
    before everything else that is wrong, with the option that it is most like."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})
        self._reading = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        args = sys.argv[1:] if args is None else list(args)
        self._reading = True
        for word in args:
            if word == "--":
                break
            if self._is_unknown(word):
                self.error(f"there is no option {said(word.split('=')[0])}{self._near(word)}")
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"nothing takes the word {said(rest[0])}{self._near(rest[0])}")
        self._reading = False
        return found, rest

    def error(self, message: str) -> NoReturn:
        if self._reading:  # what is said of options that do not go together says what to type
            message += f"{'' if message.endswith('?') else ';'} --help lists the options"
        self.exit(2, f"{self.prog}: error: {printable(message)}\n")

    def _is_unknown(self, word: str) -> bool:
        """Whether argparse would take it for an option, and has none of the name."""
        name, known = word.split("=")[0], self._option_string_actions
        if not word.startswith("-"):
            return word.startswith(tuple(DASHES)) and f"--{name.strip(DASHES)}" in known
        number = re.fullmatch(r"-\.?\d.*", word)
        return not number and word != "-" and " " not in word and name not in known

    def _near(self, word: str) -> str:
        """ "; did you mean --batch-size?" where there is an option like it."""
        bare = word.split("=")[0].strip(DASHES).replace("_", "-").lower()
        options = [name for name in self._option_string_actions if name.startswith("--")]
        near = difflib.get_close_matches(f"--{bare}", options, 1, 0.7)
        if not near and len(bare) > 2:
            near = [name for name in options if name[2:].startswith(bare)][:1]
        return f"; did you mean {near[0]}?" if near else ""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Adds each option's default to its help, where it has one and the help does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default in (None, False, argparse.SUPPRESS) or "(default" in text:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        return f"{text} (default: {shown})"


def said(text: str, most: int = 60) -> str:
    """A word of the command line as one may print it: quoted where it needs it, cut where long."""
    shown = text if len(text) <= most else f"{text[:most]}..."
    return shown if shown.isprintable() and shown else repr(shown)


def size_said(size: float) -> str:
    """A number of bytes with three digits or more that say something: "0 bytes", "1.23 GB"."""
    if size != size:  # where the system does not tell
        return "unknown"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.{2 if size < 100 * unit else 0}f} {name}"
    return f"{size:.0f} bytes"


def interpreter() -> str:
    """What to type for the Python that runs: `python` where that is the one, else its path."""
    own = sys.executable
    if not own:
        return "python"
    for name in ("python", "python3"):
        if _same(shutil.which(name), own):
            return name
    return _short(own)


def tool(name: str, module: str) -> str:
    """What to type for a tool, such as torchrun, of the Python that runs: its name, where the
    shell would find this one, else its module."""
    found = shutil.which(name)
    if found and os.path.dirname(os.path.abspath(found)) == os.path.dirname(sys.executable):
        return name
    return command("-m", module)


def command(*words: str) -> str:
    """A line to type that runs Python with these words."""
    return quoted([interpreter(), *words])


def script(name: str) -> str:
    """What to type for a script of this program: its path, relative to the current folder where it
    lies below it."""
    path = Path(__file__).resolve().parents[1] / name
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def quoted(words: Sequence[str]) -> str:
    """Words as the shell takes them: POSIX's, on Windows cmd's."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _same(path: str | None, other: str) -> bool:
    """Whether both are one program in one folder. That they lead to one file is not enough: so do
    the Pythons of all virtual environments."""
    if not path:
        return False
    here, there = (os.path.normcase(os.path.abspath(each)) for each in (path, other))
    same_folder = os.path.dirname(here) == os.path.dirname(there)
    return same_folder and os.path.realpath(here) == os.path.realpath(there)


def _short(path: str) -> str:
    """Relative to the current folder where it lies below it."""
    try:
        below = Path(os.path.abspath(path)).relative_to(Path.cwd())
    except (ValueError, OSError):
        return path
    return str(below) if len(below.parts) > 1 else os.path.join(".", below)


def integer(at_least: int, at_most: int = MAX_STEPS) -> Callable[[str], int]:
    """An argparse type: a whole number from `at_least` to `at_most`."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{said(text)!r} is no whole number") from None
        if value < at_least:
            raise argparse.ArgumentTypeError(f"{said(text)} is below {at_least}")
        if value > at_most:
            raise argparse.ArgumentTypeError(f"{said(text)} is above {at_most}, the most allowed")
        return value

    return whole_number


def seed(text: str) -> int:
    """An argparse type: a whole number of 63 bits."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{said(text)!r} is no whole number") from None
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{said(text)} is not between 0 and 2^63 - 1")
    return value


def positive(most: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a number above 0, finite, and not above `most`."""

    def positive_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{said(text)} is no positive number")
        if value > most:
            raise argparse.ArgumentTypeError(f"{said(text)} is above {most:g}, the most allowed")
        return value

    return positive_number


def part(text: str) -> float:
    """An argparse type: a part of a side, above 0 and at most 1/2, as 0.25 or 1/4."""
    part_of, _, parts = text.partition("/")
    try:
        value = float(part_of) / float(parts or 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{said(text)} is no part of 0 to 1/2; type 1/4, say")
    return value


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{said(text)} is no number from 0 to 1")
    return value
