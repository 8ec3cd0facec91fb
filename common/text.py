"""Makes names of files safe to print and to write: a name may hold any byte but two.

Imports nothing heavy.
"""

import re

# Control characters, escape codes among them; ends of lines; what turns the direction of writing;
# and what stands for bytes that are no UTF-8.
UNPRINTABLE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
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


def csv_cell(name: str) -> str:
    """A name as a cell of a CSV file: where a spreadsheet would take it for a formula, with an
    apostrophe before it, as spreadsheets themselves mark text; a name that begins with an
    apostrophe gets another, so that none is taken for one of these."""
    return f"'{name}" if name.startswith(FORMULA_STARTS) else name
