"""What a file that is neither JPEG nor PNG is, by its first bytes, whatever its name says."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset.tar import Member

HEAD_BYTES = 64  # bytes of a file that are looked at

# (first bytes, what it is). Regular expressions, matched at the file's beginning.
KINDS_BY_BEGINNING: tuple[tuple[bytes, str], ...] = (
    (rb"(?s)RIFF.{4}WEBP", "is a WebP; convert it to PNG"),
    (rb"GIF8[79]a", "is a GIF; convert it to PNG"),
    (rb"BM", "is a BMP; convert it to PNG"),
    (rb"II[*+]\0|MM\0[*+]", "is a TIFF; convert it to PNG"),
    (rb"(?s).{4}ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)", "is a HEIC; convert it to PNG"),
    (rb"(?s).{4}ftypavi[fs]", "is an AVIF; convert it to PNG"),
    (rb"(?s).{4}ftyp", "is a video; take the frames out of it first"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "is a JPEG 2000; convert it to PNG"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "is a JPEG XL; convert it to PNG"),
    (rb"8BPS", "is a Photoshop file; export it as PNG"),
    (rb"\x76\x2f\x31\x01", "is an OpenEXR; convert it to PNG"),
    (rb"P[1-7]\s", "is a PNM; convert it to PNG"),
    (rb"(?i)\s*<(\?xml|svg)", "is a drawing or another XML file; export it as PNG"),
    (rb"(?i)\s*<(!doctype|html|head|body)", "is a web page; download the file behind its link"),
    (rb"version https://git-lfs", "is a Git LFS pointer; fetch the file with git lfs pull"),
    (rb"\0\x05\x16[\0\x07]", "is what macOS keeps beside a file; remove it"),
)


def what_it_is(path: "Path | Member") -> str:
    """Says what kind of file it is, and what to do. Empty where that is not known, or the file
    cannot be read."""
    if isinstance(path, Path) and not path.is_file():  # a pipe would be waited for
        return ""
    try:
        with path.open("rb") if isinstance(path, Path) else path.open() as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return ""
    return next((what for beginning, what in KINDS_BY_BEGINNING if re.match(beginning, head)), "")
