"""How every script begins and ends: its last line and its exit status. Imports nothing heavy."""

import argparse
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

from common.errors import UserError
from common.loading import loading
from common.signals import Stopped, StopRequest
from common.streams import lasting_streams
from common.text import printable

Options = TypeVar("Options", bound=argparse.Namespace)


def run_script(
    script: str,
    parse_options: Callable[[list[str] | None], Options],
    work: Callable[[Options], int | None],
    argv: list[str] | None = None,
    *,
    when_stopped: Callable[[Options], str | None] | None = None,
    after_error: Callable[[Options], str | None] = lambda _options: None,
    when_memory_is_short: Callable[[Options], str] | None = None,
    skip: str = "",
    stop: StopRequest | None = None,
) -> int:
    """Runs `work` with the options of `argv` (None: of the command line). Returns the exit status:
    what `work` returns, None being 0; 2 where an error that the user can mend, of the system, or a
    shortage of memory ended it, with one line that says what; 128 + the signal's number where it
    was asked to stop. Other errors are raised: they are faults of the program.

    script: its name in these lines. parse_options: ends the program where options are wrong.
    when_stopped: the last line where it was asked to stop (default: that it was); None: no line.
    after_error: a line behind the one that says the error, if any.
    when_memory_is_short: the line where memory ran out, with what to type; without it, such an
    error is raised.
    skip: what to type so that a skippable error is passed over, in a script that can.
    stop: the request to stop, for a `work` that looks at it.
    """
    with lasting_streams(), loading(script):
        options = parse_options(argv)
        stop = stop or StopRequest()
        last = when_stopped or (lambda _options: f"{script}: stopped")
        try:
            with stop:
                try:
                    return work(options) or 0
                except (UserError, OSError) as error:
                    said = message_of(error, skip)
                except (MemoryError, RuntimeError) as error:
                    if not (when_memory_is_short and _ran_out(error)):
                        raise
                    said = when_memory_is_short(options)
                sys.stdout.flush()  # where both go to one file, the last line is to be the last
                print(f"{script}: error: {printable(said)}", file=sys.stderr)
                status, last = 2, after_error
        except Stopped as stopped:
            status = 128 + stopped.number
        except KeyboardInterrupt:
            stop.at_once = True
            status = 128 + signal.SIGINT
        if line := last(options):
            sys.stdout.flush()
            print(line, file=sys.stderr)
        return status


def message_of(error: Exception, skip: str) -> str:
    """What is said of an error. skip: what to type so that it is passed over, if it may be."""
    if skip and getattr(error, "skippable", False):
        return f"{error}, or type {skip}"
    return str(error)


def _ran_out(error: Exception) -> bool:
    if isinstance(error, MemoryError):  # torch may not be there, and would find no room now
        return True
    from common.memory import ran_out

    return ran_out(error)
