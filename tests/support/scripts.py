"""What the tests of every script share: a call of its main, and the line that it ends with."""

from collections.abc import Callable

import pytest


def status_of(main: Callable[[list[str]], int], *words: object) -> int:
    """How a script ends, at these words of its command line."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:  # argparse's own way
        return stop.code


def error_line(capsys: pytest.CaptureFixture, *scripts: str) -> str:
    """The last error that one of these scripts has told."""
    heads = tuple(f"{script}.py: error: " for script in scripts)
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(heads)][-1]


def error_of(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture, *words: object
) -> str:
    """The one line, and the last, with which a script refuses these words: its status is 2."""
    assert status_of(main, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith(f"{main.__module__}.py: error: ")
    assert sum("error" in line for line in lines) == 1 and "Traceback" not in "".join(lines)
    return lines[-1]
