"""The format of weight files: finds the state dict in those of others, and writes our own.

It never executes what a file holds: everything is read with weights_only=True.
"""

import hashlib
import os
import re
import stat
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from common.errors import UserError
from model.other_files import (
    HEAD_BYTES,
    archive_kind,
    folder_kind,
    other_kind,
    pickle_kind,
    text_kind,
)
from model.sources import network_of
from model.unpickling import ForeignObjectError, left_out, load_plain
from model.wrapping import WRAPPERS, AmbiguousError, find_weights, is_plain, kind_of


class WeightsFileError(UserError, ValueError):
    """A file that cannot be read as weights; the message names it and says what to do."""


# Our own files end with this and the SHA-256 of all before it, as the archive's comment: it finds
# any change, in what tensors do not cover as well.
SEAL = b"sha256:"
SEAL_SIZE = len(SEAL) + 64


@dataclass(frozen=True)
class Weights:
    """A state dict, and where it came from."""

    state_dict: dict[str, Tensor]
    path: Path
    wrapper: str  # the keys under which it was found, such as "model_state"; "" for a bare one
    notes: tuple[str, ...] = ()  # what was decided in finding it

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return sha256_of(file, self.path.stat().st_size)


def sha256_of(file: BinaryIO, length: int) -> str:
    """The SHA-256 of a file's first `length` bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


def write_sealed(content: Any, file: BinaryIO) -> None:
    """torch.save, and behind it, as the comment of the archive, the SHA-256 of all before."""
    torch.save(content, file)
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", SEAL_SIZE))
    digest = sha256_of(file, file.tell())
    file.write(SEAL + digest.encode())


def is_sealed(path: Path) -> bool:
    """Whether a file ends as ours do; whether its seal is right, reading it says."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SEAL_SIZE))
        return re.fullmatch(SEAL + rb"[0-9a-f]{64}", file.read()) is not None


def weights_of_state(path: Path) -> Path:
    """The weights that a checkpoint's state file lies beside; any other path as it is."""
    if not path.name.endswith(".state.pth"):
        return path
    return path.with_name(path.name.removesuffix(".state.pth") + ".pth")


def read_weights(path: str | Path) -> Weights:
    """The state dict in a file of torch.save or of safetensors: the file's own dict, or one in it,
    as model.wrapping.find_weights finds it. Values that are no tensors are left out. Raises
    WeightsFileError, also where several are equally good, or hold no plain numbers."""
    path = Path(path)
    content = read_file(path)
    try:
        found, others = find_weights(content)
    except AmbiguousError as error:
        raise WeightsFileError(f"{path} holds {error}") from None
    state_dict = {n: v for n, v in found.entries.items() if is_plain(v)} if found else {}
    if found and found.layout and (unfit := set(network_of(found.entries)) - state_dict.keys()):
        name = min(unfit)
        raise WeightsFileError(
            f"{path} holds {len(unfit)} entries that are {kind_of(found.entries[name])}, such as "
            f"{name}; give the file that it was made from, of plain numbers"
        )
    if not found or not state_dict:
        if foreign := left_out(content):
            raise WeightsFileError(_not_loaded(path, foreign))
        if isinstance(content, dict):
            what = f"a dict with the keys {', '.join(map(str, list(content)[:8])) or '(none)'}"
        else:
            what = f"a {type(content).__name__}"
        raise WeightsFileError(
            f"{path} holds {what} and no weights; expected a state dict, bare or under a key such "
            f"as {', '.join(WRAPPERS)}"
        )
    notes = []
    if others:
        left = ", ".join(each.place for each in others)
        notes.append(
            f"{path} holds {1 + len(others)} sets of weights: {found.place} is taken, {left} left"
        )
    if odd := [name for name in found.entries if name not in state_dict]:
        notes.append(
            f"{path} holds {len(odd)} entries beside the network that are "
            f"{kind_of(found.entries[odd[0]])}, such as {odd[0]}: they are left out"
        )
    return Weights(state_dict, path, found.wrapper, tuple(notes))


def read_file(path: str | Path) -> Any:
    """What torch.save or safetensors wrote into `path`, its tensors on the CPU.

    Raises WeightsFileError where there is no such file, it is of another kind, it is cut short or
    packed, or it holds objects other than tensors, plain Python values and what can be left out.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise WeightsFileError(f"{path} {folder_kind(path)}")
        if not stat.S_ISREG(mode):  # which could be waited for for ever
            raise WeightsFileError(
                f"{path} is no file but a pipe or a device; write what comes out of it into a file "
                "and give that"
            )
        size = path.stat().st_size
        if size == 0:
            raise WeightsFileError(f"{path} is empty; download or copy it again")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if kind := other_kind(path, head, size):
            raise WeightsFileError(f"{path} {kind}")
    except FileNotFoundError:
        raise WeightsFileError(f"there is no file {path}; check the path") from None
    except OSError as error:
        raise WeightsFileError(f"{path} cannot be opened ({error.strerror})") from None

    if head.startswith(b"PK"):
        try:
            _check_archive(path, size)
        except OSError as error:  # a bad sector, say
            raise WeightsFileError(f"{path} cannot be read ({error.strerror})") from None
    elif head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 100_000_000:
        return _read_safetensors(path)
    return _read_torch(path, size, head)


def _check_archive(path: Path, size: int) -> None:
    """torch.save's archives are zips of stored entries; others are not unpacked to find out."""
    sealed = is_sealed(path)
    if sealed and not _seal_holds(path, size):
        raise WeightsFileError(
            f"{path} is damaged: its content is not what its checksum (SHA-256) says; take another "
            "copy of it, or another checkpoint"
        )
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            entries = archive.infolist()
            one_directory = archive.start_dir == _directory_offset(file, sealed)
            methods = {entry.compress_type for entry in entries}
            for entry in entries:  # each entry says its method twice
                file.seek(entry.header_offset + 8)
                methods.add(int.from_bytes(file.read(2), "little"))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        raise WeightsFileError(
            f"{path} is cut short or damaged: it begins as a PyTorch file does, but its end is not "
            f"there ({size:,} bytes); download or copy it again"
        ) from None
    if kind := archive_kind([entry.filename for entry in entries]):
        raise WeightsFileError(f"{path} {kind}")
    unpacked = sum(entry.file_size for entry in entries)
    if methods != {zipfile.ZIP_STORED} or unpacked > size:
        raise WeightsFileError(
            f"{path} is compressed ({size:,} bytes, {unpacked:,} unpacked), which torch.save's "
            "files never are; it is not unpacked: give the original file"
        )
    try:
        if not one_directory:  # Python would look into another one than PyTorch
            raise zipfile.BadZipFile
        rotten = None
        if not sealed:
            with zipfile.ZipFile(path) as archive:
                rotten = archive.testzip()  # torch.load compares none of the checksums
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        rotten = "its directory"
    if rotten:
        raise WeightsFileError(
            f"{path} is damaged: the checksum of {rotten} is not right; download or copy it again "
            "(or, where it was saved without checksums, save it again with them)"
        )


def _seal_holds(path: Path, size: int) -> bool:
    with path.open("rb") as file:
        digest = sha256_of(file, size - SEAL_SIZE)
        return file.read() == SEAL + digest.encode()


def _directory_offset(file: BinaryIO, sealed: bool) -> int:
    """Where an archive says that its directory is, which must be where it is found."""
    comment = SEAL_SIZE if sealed else 0
    end = file.seek(-22 - comment, 2)
    signature, offset, length = struct.unpack("<4s12xIH", file.read(22))
    if signature != b"PK\x05\x06" or length != comment:
        raise ValueError("there is something behind the archive, or its end is not there")
    if offset != 0xFFFFFFFF:
        return offset
    file.seek(end - 20)
    signature, record = struct.unpack("<4s4xQ4x", file.read(20))  # the 64-bit record's place
    file.seek(record)
    return struct.unpack("<4s44xQ", file.read(56))[1]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsFileError(
            f"{path} cannot be read as safetensors ({error}); download or copy it again"
        ) from None


def _not_loaded(path: Path, name: str) -> str:
    return (
        f"{path} holds an object of type {name}, which is not loaded because reading it could run "
        "code; save only the state dict, in the program that made it: "
        "torch.save(model.state_dict(), FILE)"
    )


def _read_torch(path: Path, size: int, head: bytes) -> Any:
    try:
        return load_plain(path)
    except MemoryError:
        raise
    except ForeignObjectError as error:
        raise WeightsFileError(_not_loaded(path, error.name)) from None
    except Exception:  # what a damaged file leads to depends on where the damage lies
        kind = text_kind(head) or pickle_kind(head)
    raise WeightsFileError(
        f"{path} {kind}"
        if kind
        else f"{path} ({size:,} bytes) cannot be read as a PyTorch file: it is damaged, cut short, "
        "of another program, or of another pickle protocol than torch.save's own; download or copy "
        "it again, or save it again with torch.save"
    )
