"""data_path.py as people write it, and folders under other names: a line says what to write."""

import subprocess
import sys
from pathlib import Path

import pytest

import check_data
import data_path
import train_base
from dataset.demo import make_demo
from dataset.entries import EntryError, entries, entry_of
from dataset.folders import data_folders
from tests.support import ROOT
from tests.support.drawn import backdrop, make_data
from tests.support.running import error_of

PAIR = {"fgr": "a", "pha": "b"}
GOOD = {"train": PAIR, "valid": PAIR, "backgrounds": {"train": "c", "valid": "d"}}
# An entry of another shape, and what the line names of it.
WRONG: dict[str, tuple[object, str]] = {
    "a text for an entry": ("/x", "'adobe' is a text, '/x'"),
    "a list for an entry": (["/x", "/y"], "'adobe' is a list, ['/x', '/y']"),
    "a text for a split": ({**GOOD, "train": "/x"}, "'adobe', 'train' is a text, '/x'"),
    "a list for a split": ({**GOOD, "valid": ["/x"]}, "'adobe', 'valid' is a list"),
    "several folders": (
        {**GOOD, "train": {"fgr": ["a", "b"], "pha": ["c", "d"]}},
        "'adobe', 'train', 'fgr' is a list, ['a', 'b']: one folder is read",
    ),
    "a comma too many": ({**GOOD, "train": {"fgr": ("a",), "pha": "b"}}, "is a tuple, ('a',)"),
    "no folder": ({**GOOD, "train": {"fgr": None, "pha": "b"}}, "'fgr' is of type NoneType, None"),
    "an empty path": ({**GOOD, "train": {"fgr": "", "pha": "b"}}, "'fgr' is a text, ''"),
    "flat backgrounds": ({**GOOD, "backgrounds": "/x"}, "'backgrounds' is a text, '/x': write {"),
    "listed backgrounds": ({**GOOD, "backgrounds": {"train": ["c"]}}, "'train' is a list, ['c']"),
    "other names": ({"train": {"fg": "a", "alpha": "b"}}, "'adobe' has 'fg', 'alpha' there"),
    "one of two": ({"train": {"fgr": "a"}}, "no 'train' with 'fgr' and 'pha'"),
    "test for valid": ({"train": {"rgba": "data"}, "test": PAIR}, "call test is valid here"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_entry_of_another_shape_is_one_line(
    name: str, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, said = WRONG[name]
    (here / "data").mkdir()
    backdrop(9, 9, 0).convert("RGBA").save(here / "data/a.png")
    backgrounds = {"train": here / "data", "valid": here / "data"}
    monkeypatch.setitem(data_path.DATA_PATH, "adobe", entry)
    monkeypatch.setitem(data_path.DATA_PATH, "backgrounds", backgrounds)
    assert train_base.main(["--dataset-name", "adobe", "--device", "cpu"]) == 2
    assert said in error_of(capsys)


def test_a_path_may_be_a_path_and_splits_that_are_not_wanted_may_lack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = {"valid": {"fgr": Path("a"), "pha": "b"}, "backgrounds": {"valid": "c"}}
    monkeypatch.setitem(data_path.DATA_PATH, "adobe", entry)
    found = entry_of("adobe")
    assert found == {
        "valid": {"fgr": Path("a"), "pha": Path("b")},
        "backgrounds": {"valid": Path("c")},
    }


def test_the_published_file_works(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no demo, and names of folders that are to be replaced."""
    entry = {split: dict.fromkeys(PAIR, "PATH_TO_IMAGES_DIR") for split in ("train", "valid")}
    published = {"videomatte240k": entry, "backgrounds": dict.fromkeys(("train", "valid"), "a")}
    monkeypatch.setattr(data_path, "DATA_PATH", published)
    assert list(entries()) == ["demo", "demo-large", "videomatte240k", "backgrounds"]
    drawn = []
    monkeypatch.setattr("dataset.folders.make_demo", lambda *_, **how: drawn.append(how))
    for name in ("demo", "demo-large"):
        folder = Path("data") / name
        assert data_folders(name, None, print)["train"]["fgr"] == folder / "train/fgr"
    assert [how.get("scale", 1) for how in drawn] == [1, 2]
    assert make_demo  # which would have drawn there
    published.pop("backgrounds")
    with pytest.raises(EntryError, match="has no entry 'backgrounds'"):
        entry_of("videomatte240k")
    assert entry_of("demo")["backgrounds"]


BROKEN = {
    'DATA_PATH = {\n  "a": {"train" "/x"},\n  "b": {"train": 1 "x"},\n}\n': "line 3: ",
    'DATA_PATH = {"a": ROOT + "/x"}\n': "line 1: NameError: name 'ROOT' is not defined",
    "DATA = {}\n": "has no DATA_PATH: write DATA_PATH = {",
    'DATA_PATH = ["a"]\n': "has a DATA_PATH that is a list, ['a']",
    "import nowhere_at_all\nDATA_PATH = {}\n": "line 1: ModuleNotFoundError",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_cannot_be_read_is_one_line(
    text: str,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here / "data_path.py").write_text(text)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "data_path")
    assert train_base.main(["--device", "cpu"]) == 2
    error = error_of(capsys)
    assert BROKEN[text] in error and str(here / "data_path.py") in error
    monkeypatch.delitem(sys.modules, "data_path", raising=False)
    check_data.main(["--dataset-dir", str(make_data(here / "mine", 1, 1)), "--headers-only"])
    assert "data_path" not in capsys.readouterr().err  # which is not wanted there
    monkeypatch.delitem(sys.modules, "data_path", raising=False)


def test_help_of_every_script_answers_with_a_broken_file(here: Path) -> None:
    """In a process of its own, as a user meets it."""
    (here / "data_path.py").write_text("DATA_PATH = {'a': {'b' 'c': 1 2}}\n")
    code = (
        f"import sys; sys.path[1:1] = [{str(ROOT)!r}]; import train_base; train_base.main(['-h'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0 and "cannot be read now" in done.stdout


def test_folders_under_other_names(here: Path, capsys: pytest.CaptureFixture) -> None:
    def error(data: Path) -> str:
        assert train_base.main(["--dataset-dir", str(data), "--device", "cpu"]) == 2
        return error_of(capsys)

    data = make_data(here / "data", 2, 1)
    for ours, theirs in (
        ("valid", "test"),
        ("valid/pha", "valid/Alpha"),
        ("train/fgr", "train/images"),
        ("backgrounds", "bg"),
    ):
        (data / ours).rename(data / theirs)
        said = error(data)
        assert f"there is {data / theirs}: rename it to {Path(ours).name}, or type: ln -s" in said
        (data / theirs).rename(data / ours)
    (data / "valid").rename(data / "what")
    assert f"{data} holds backgrounds/, train/, what/" in error(data)
    (data / "what").rename(data / "valid")
    for path in sorted((data / "backgrounds").rglob("*.jpg")):
        path.rename(data / "backgrounds" / f"{path.parent.name}{path.name}")
    for split in ("train", "valid"):
        (data / "backgrounds" / split).rmdir()
    said = error(data)
    assert "backgrounds holds 3 pictures: make the folders train and valid in it" in said
