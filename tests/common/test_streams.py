"""What a program says is lost where nobody can read it, and nothing else is."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.streams import lasting_streams
from tests.support import ROOT
from tests.support.running import run

SAYS = """
import os, sys
from common.streams import lasting_streams

@lasting_streams()
def main():
    for number in range(5000):
        print("a line", number, "caf\\u00e9", "\\udcff")
    sys.stdout.flush()
    with open("made", "w") as file:  # must not be taken for stdout
        print("another line", flush=True)
        os.write(2, b"told\\n")
        file.write("kept")
    return 3

sys.exit(main())
"""


@pytest.mark.parametrize(
    "how", ["> out", ">&-", "2>&-", ">&- 2>&- <&-", "| head -n 1 > out", "> /dev/full"]
)
def test_a_program_ends_as_it_would(tmp_path: Path, how: str) -> None:
    if "/dev/full" in how and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = subprocess.run(
        ["sh", "-c", f"{{ '{sys.executable}' -c \"$SAYS\"; echo $? > status; }} {how}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SAYS": SAYS, "PYTHONIOENCODING": "ascii"},
    )
    assert (tmp_path / "made").read_text() == "kept"
    assert done.stderr == ("" if "2>&-" in how else "told\n")
    assert (tmp_path / "status").read_text() == "3\n"
    if how == "> out":
        assert (tmp_path / "out").read_text().splitlines()[7] == "a line 7 caf\\xe9 \\udcff"


class Broken(io.StringIO):
    """A stream that fails from its third line on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        if self.getvalue().count("\n") > 2:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ENOSPC])
def test_a_run_that_nobody_can_read_is_finished(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Broken(number))
    broken = sys.stdout
    run(data, "--max-steps", 1)
    assert sys.stdout is broken and broken.getvalue().count("\n") == 3
    assert Path("checkpoint/run/epoch-0-iter-1.pth").exists()


def test_streams_are_put_back() -> None:
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    before = sys.stdout, sys.stderr
    try:
        sys.stdout, sys.stderr = text, None
        with pytest.raises(KeyError), lasting_streams():
            print("caf\u00e9")
            print("nowhere", file=sys.stderr)
            raise KeyError
        assert sys.stdout is text and sys.stderr is None and text.errors == "strict"
    finally:
        sys.stdout, sys.stderr = before
    assert text.buffer.getvalue() == b"caf\\xe9\n"


@pytest.mark.parametrize(
    "script", ["train_base", "evaluate", "check_data", "predict", "export", "pack_data"]
)
def test_every_script_has_them(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main = __import__(script, fromlist=["main"]).main
    monkeypatch.setattr(sys, "stdout", Broken(errno.EIO))
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
