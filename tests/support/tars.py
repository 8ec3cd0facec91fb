"""What the tests of tar files share: tars written by Python's tarfile, and ways to open them."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from dataset import tar
from dataset.folders import data_folders, open_split
from tests.support.drawn import backdrop
from tests.support.running import run


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    backdrop(60, 40, number).save(file, "JPEG")
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


def opened(folder: Path, split: str = "train", **more: object) -> tuple:
    return open_split(data_folders("", folder, print), split, **more)


def open_all(folder: Path, say: Callable[[str], None] = print) -> tar.TarFolder:
    return tar.open_tars(folder, ("",), say)[""]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def train(data: Path, *arguments: object, status: int = 0) -> None:
    run(data, "--batch-size", 2, *arguments, status=status)
