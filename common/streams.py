"""Lets a program speak to whoever is there: a closed terminal, a pipe without a reader, a full disk
and a narrow encoding change nothing of what it does. Imports nothing heavy."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

# Nobody will read this stream again.
READER_GONE_ERRORS = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Goes around a program, or decorates its main function: no write to stdout or stderr fails in
    it. What cannot be written is lost; a character that the encoding lacks is written as its
    number."""
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as exit_stack:
        for name, stream in zip(("stdout", "stderr"), before, strict=True):
            if stream is None:  # closed by who started the program
                stream = exit_stack.enter_context(open(os.devnull, "w"))
            if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
                exit_stack.callback(stream.reconfigure, errors="strict")
            setattr(sys, name, lasting := _Lasting(stream))
            exit_stack.callback(lasting.end)  # before the two others
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


class _Lasting:
    """A text stream whose writes do not fail."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lost(error)

    def end(self) -> None:
        """Flushes; what cannot be written is dropped, so that Python does not try it again."""
        try:
            self._stream.flush()
        except OSError:
            self._divert()

    def _lost(self, error: OSError) -> None:
        if error.errno in READER_GONE_ERRORS:
            self._divert()

    def _divert(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()  # what is still held goes there, too


def _fill_closed_descriptors() -> None:
    """Without this, the first file that is opened would be taken for stdout."""
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
