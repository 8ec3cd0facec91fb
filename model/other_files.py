"""Files that are no weights: what they are by their first bytes, and what to do about it."""

import json
import re
from pathlib import Path

HEAD_BYTES = 512  # bytes of a file that are looked at

# (first bytes, what it is and what to do). Regular expressions, matched at the file's beginning.
KINDS_BY_BEGINNING: tuple[tuple[bytes, str], ...] = (
    (
        rb"(\xef\xbb\xbf)?\s*<(!|html|head|body|script|\?xml|error)",
        "is a web page, not a weights file; download the file behind its link",
    ),
    (
        rb"version https://git-lfs",
        "is a Git LFS pointer, not the file itself; fetch it with git lfs pull",
    ),
    (rb"\x1f\x8b", "is packed with gzip; unpack it: gunzip FILE, or tar xzf FILE"),
    (rb"BZh[1-9]", "is packed with bzip2; unpack it: bunzip2 FILE, or tar xjf FILE"),
    (rb"\xfd7zXZ\0", "is packed with xz; unpack it: unxz FILE, or tar xJf FILE"),
    (rb"\x28\xb5\x2f\xfd", "is packed with zstd; unpack it: unzstd FILE"),
    (rb"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it and give the weights file in it"),
    (rb"Rar!\x1a", "is a rar archive; unpack it and give the weights file in it"),
    (rb"(?s).{257}ustar", "is a tar archive; unpack it and give the weights file in it"),
    (
        rb"\x89HDF\r\n",
        "is an HDF5 file, as Keras and TensorFlow write; its weights are laid out otherwise: give "
        "a PyTorch file of the network",
    ),
    (rb"(?s).{4}TFL3", "is a TensorFlow Lite model; give the PyTorch file that it was made from"),
    (rb"GGUF", "is a GGUF file of quantised weights; give the PyTorch file it was made from"),
    (rb"\x93NUMPY", "is one NumPy array; give a PyTorch file, with an entry for each weight"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP", "is a picture; give a weights file"),
    (rb"%PDF", "is a PDF; give a weights file"),
)
ONNX_BEGINNING = rb"(?s)\x08[\x01-\x20](\x12.[\x20-\x7e]|\x1a.[\x20-\x7e]|\x22|\x28|\x32|\x3a)"
PICKLE = (
    rb"\x80[\x02-\x05]"  # with its protocol; torch.save's old format is several, first a number:
)
OLD_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
TENSORFLOW_INDEX = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the last bytes of its tables

# Entries of zip archives that say what they are.
KINDS_BY_ENTRY: tuple[tuple[str, str], ...] = (
    (
        r"(.*/)?constants\.pkl",
        "is a TorchScript archive, which holds code; save its weights alone: "
        "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)",
    ),
    (
        r".*serialized_exported_program\.json|(.*/)?archive_format|(.*/)?models/.*\.json",
        "is an exported program (torch.export); save its weights alone: "
        "torch.save(torch.export.load(FILE).state_dict, NEW_FILE)",
    ),
    (
        r"(.*/)?model\.weights\.h5",
        "is a Keras model; its weights are laid out otherwise: give a PyTorch file of the network",
    ),
    (
        r"[^/]*\.npy",
        "is an archive of NumPy arrays (.npz); save them as a PyTorch file: torch.save({n: "
        "torch.from_numpy(a) for n, a in numpy.load(FILE).items()}, NEW_FILE)",
    ),
)


def other_kind(path: Path, head: bytes, size: int) -> str | None:
    """What a file that begins with `head`, its first HEAD_BYTES or all, is instead of weights;
    None where it may be such. Zip archives are looked into elsewhere."""
    for beginning, what in KINDS_BY_BEGINNING:
        if re.match(beginning, head, re.IGNORECASE):
            return what
    if head.lstrip().startswith((b"{", b"[")) and _is_text(head):
        return _json(path, size)
    if re.match(ONNX_BEGINNING, head):
        return (
            "is an ONNX model, which holds weights without their names here; give the PyTorch file "
            "that it was made from"
        )
    if re.search(r"\.data-\d{5}-of-\d{5}$", path.name) or _tail(path) == TENSORFLOW_INDEX:
        return (
            "is a part of a TensorFlow checkpoint; its weights are laid out otherwise: give a "
            "PyTorch file of the network"
        )
    return None


def text_kind(head: bytes) -> str | None:
    """What a file is that could not be read and is text."""
    if not _is_text(head) or len(head.strip()) < 3:
        return None
    line = head.decode(errors="replace").strip().splitlines()[0]
    return f"is a text, not a weights file; it begins {line[:60]!r}"


def pickle_kind(head: bytes) -> str | None:
    """What a file is that could not be read and is a pickle, but none of torch.save's."""
    if not re.match(PICKLE, head) or OLD_TORCH in head[:32] or len(head) < 32:
        return None
    return (
        "is a plain pickle, as detectron2 and Caffe2 write, which is not loaded because reading it "
        "could run code; give the PyTorch file that it was converted from, or, where you trust it, "
        "make one: torch.save({n: torch.as_tensor(a) for n, a in numpy.load(FILE, "
        "allow_pickle=True)['model'].items()}, NEW_FILE)"
    )


def archive_kind(names: list[str]) -> str | None:
    """What a zip archive with these entries is, where it is not one of torch.save's."""
    for pattern, what in KINDS_BY_ENTRY:
        if any(re.fullmatch(pattern, name) for name in names):
            return what
    if any(re.fullmatch(r"([^/]*/)?data\.pkl", name) for name in names):
        return None
    inside = [n for n in names if re.search(r"\.(pth|pt|ckpt|bin|safetensors|tar)$", n)]
    which = f"give {inside[0]!r}, which is in it" if inside else "give the weights file in it"
    return f"is a zip archive, but not one of torch.save's; unpack it and {which}"


def folder_kind(path: Path) -> str:
    """What to say of a folder in place of a file."""
    names = sorted(each.name for each in path.iterdir())
    if "saved_model.pb" in names:
        return "is a folder of a TensorFlow model; give a PyTorch file of the network"
    if "data.pkl" in names:
        return (
            "is a PyTorch file that was unpacked to a folder; download it again, or pack it: "
            f"zip -0 -r NEW_FILE.pth {path.name}"
        )
    if any(name.endswith(".distcp") for name in names):
        return (
            "is a folder of a distributed checkpoint; make a file of it: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path.name} NEW_FILE.pth"
        )
    endings = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")
    inside = [name for name in names if name.endswith(endings) and ".state." not in name]
    return f"is a folder; give a file in it, such as {inside[-1] if inside else 'epoch-0.pth'}"


def _json(path: Path, size: int) -> str:
    """What a JSON file is: an index of weights in several files, for instance."""
    try:
        content = json.loads(path.read_bytes()) if size < 50_000_000 else {}
        files = sorted(set(content["weight_map"].values()))
        if len(files) == 1:
            return f"is an index, not the weights; give {path.parent / files[0]}"
        listed = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "is a JSON file, not a weights file; give the file of the weights"
    return (
        f"is an index of weights in {len(files)} files ({listed}); load each, join their dicts, "
        "and save them as one file with torch.save"
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # Else only the last letter was cut.
        if len(head) < HEAD_BYTES or error.start < HEAD_BYTES - 3:
            return False
        text = head[: error.start].decode()
    return all(letter.isprintable() or letter in "\t\r\n" for letter in text)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 8))
        return file.read()
