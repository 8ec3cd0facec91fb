"""Names of files that become others. Imports nothing heavy."""

import hashlib
import os
from pathlib import Path

NAME_AT_MOST = 255  # bytes, of nearly every file system


def beside(path: Path, ending: str) -> Path:
    """A file in the same folder with that ending after its name. Where this would be too long a
    name, it begins as the file's does and goes on with a hash of it."""
    name = os.fsencode(path.name)
    room = NAME_AT_MOST - len(os.fsencode(ending))
    if len(name) > room:
        digest = hashlib.sha256(name).hexdigest()[:16]
        name = name[: room - len(digest)].decode("utf-8", "ignore").encode() + digest.encode()
    return path.with_name(os.fsdecode(name) + ending)
