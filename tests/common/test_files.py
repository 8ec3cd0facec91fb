"""Files get free names, and are written as a whole or not at all."""

from pathlib import Path

from common.files import next_free, rename_aside


def test_the_next_free_name(tmp_path: Path) -> None:
    def free(*also: str) -> str:
        return next_free(lambda number: tmp_path / f"a{number}.json", also).name

    assert free() == "a.json"
    (tmp_path / "a.csv").touch()
    assert free() == "a.json" and free(".csv") == "a-2.json"
    (tmp_path / "a.json").touch()
    (tmp_path / "a-2.json").touch()
    (tmp_path / "a-4.json").touch()
    assert free() == free(".csv") == "a-3.json"


def test_what_is_renamed_replaces_nothing(tmp_path: Path) -> None:
    for content in (b"1", b"2", b"3"):
        (tmp_path / "a.pth").write_bytes(content)
        rename_aside(tmp_path / "a.pth")
    rename_aside(tmp_path / "a.pth")  # which is not there
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {
        "a.pth.set-aside": b"1",
        "a.pth.set-aside-2": b"2",
        "a.pth.set-aside-3": b"3",
    }
