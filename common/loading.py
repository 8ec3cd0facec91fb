"""Says in a line that a package the program stands on is missing, or cannot be loaded."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from common.cli import command, size_said

ROOT = Path(__file__).parents[1]
NO_MEMORY_PHRASES = ("failed to map segment", "annot allocate memory")  # the dynamic linker's words


@contextlib.contextmanager
def loading(script: str) -> Iterator[None]:
    """Goes around a program's main function. An import of a package that fails, or for which memory
    is short, ends the program with one line and status 2. A module of ours that is missing is an
    error of ours."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        ours = not package or any(ROOT.glob(f"{package}*"))
        if ours and not any(sign in str(error) for sign in NO_MEMORY_PHRASES):
            raise
        told = _missing(package) if isinstance(error, ModuleNotFoundError) else _broken(error)
    except MemoryError:
        told = f"memory is too short to begin{memory_limit()}"
    else:
        return
    sys.stdout.flush()
    print(f"{script}: error: {told}", file=sys.stderr)
    sys.exit(2)


def _missing(package: str) -> str:
    requirements = os.path.relpath(ROOT / "requirements.txt")
    install = command("-m", "pip", "install", "-r", requirements)
    return (
        f"this Python ({sys.executable}) has no {package}; type the path of the one that has it, "
        f"such as .venv/bin/python, or: {install}"
    )


def _broken(error: ImportError) -> str:
    if any(sign in str(error) for sign in NO_MEMORY_PHRASES):
        return f"memory is too short to load a package ({error}){memory_limit()}"
    return f"{error.name} cannot be loaded ({error}); install it anew"


def memory_limit() -> str:
    """Says what limit of memory is set: " (ulimit -v allows 2.00 GB; raise it)". Empty where there
    is none."""
    with contextlib.suppress(ImportError):  # Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return f" (ulimit -v allows {size_said(limit)}; raise it)"
    return ""
