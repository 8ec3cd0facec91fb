"""What every script stands on. Imports nothing heavy. Refuses a Python that is too old: the script
and this file are all that such a one has to understand."""

import sys

OLDEST_PYTHON = (3, 10)

if sys.version_info < OLDEST_PYTHON:
    sys.stderr.write(
        "error: this is Python {} ({}), and the program needs {} or later; make its environment "
        "with one: python3.12 -m venv .venv\n".format(
            ".".join(map(str, sys.version_info[:3])),
            sys.executable,
            ".".join(map(str, OLDEST_PYTHON)),
        )
    )
    sys.exit(2)
