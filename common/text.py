"""Words of messages: counts, lists cut short, and names of files made safe to print and to write.

Imports nothing heavy.
"""

import re
from collections.abc import Sequence

# Control characters, escape codes among them; ends of lines; what turns the direction of writing;
# and what stands for bytes that are no UTF-8.
UNPRINTABLE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_NAMES_LISTED = 20  # of those that a message is about
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")


def printable(text: object) -> str:
    """Text with whatever would not show, or would act on a terminal, written as \\x1b, \\n or, of a
    byte that is no UTF-8, \\xff; all else as it is."""
    return UNPRINTABLE.sub(_escaped, str(text))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps such a byte
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape", "surrogatepass").decode()


def tell(line: object) -> None:
    """Prints a line at once, whatever the names in it."""
    print(printable(line), flush=True)


def plural(count: int, noun: str) -> str:
    """1 image, 1,200 images."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(items: Sequence[object], at_most: int = MAX_NAMES_LISTED, between: str = ",") -> str:
    """The first of many, and how many more there are."""
    more = len(items) - at_most
    some = f"{between} ".join(map(str, items[:at_most]))
    return f"{some}{between.strip(',')} and {more} more" if more > 0 else some


def csv_cell(name: str) -> str:
    """A name as a cell of a CSV file: where a spreadsheet would take it for a formula, with an
    apostrophe before it, as spreadsheets themselves mark text; a name that begins with an
    apostrophe gets another, so that none is taken for one of these."""
    return f"'{name}" if name.startswith(FORMULA_STARTS) else name
