"""What the documents say can be typed, and what they point to is there."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from common.choices import SPLITS
from data_path import DATA_PATH
from tests.support import ROOT
from tests.support.clips import write_pair
from tests.support.drawn import backdrop, make_data
from tests.support.published import published_file

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ["docs", *(path.parent.name for path in ROOT.glob("*/__init__.py"))]
SOURCES = [*ROOT.glob("*.py"), *(path for each in FOLDERS for path in (ROOT / each).rglob("*.py"))]
ALONE = ["--num-workers", "0", "--device", "cpu"]
SMALL = {  # what is put behind a command, so that it takes seconds; the rest is as it is written
    "pack_data": ["--num-workers", "1"],
    "check_data": ["--crop-size", "32", "64", "--num-workers", "1"],
    "train_base": ["--crop-size", "32", "64", "--batch-size", "2", *ALONE, "--max-steps", "2"],
    "train_refine": ["--crop-size", "64", "64", "--batch-size", "2", *ALONE, "--max-steps", "1"],
    "evaluate": ["--size", "64", "--backgrounds", "1", *ALONE],
    "predict": ["--size", "64", "--device", "cpu"],
    "export": ["--size", "64", "64"],
}


def commands(document: Path) -> list[str]:
    """The lines of indented blocks that begin with `python NAME.py`."""
    text = document.read_text()
    found = re.findall(r"^    (python \w+\.py .*(?:\\\n.*)*)$", text, re.MULTILINE)
    return [re.sub(r"\\\n\s*", "", each) for each in found]


def test_the_recipe_is_there() -> None:
    scripts = [each.split()[1] for each in commands(ROOT / "docs/training.md")]
    assert scripts[0] == "check_data.py" and scripts[1:5] == 4 * ["train_base.py"]
    assert scripts[5] == "train_refine.py"
    assert scripts[6:10] == ["train_base.py", *3 * ["train_refine.py"]]  # the authors' four
    assert scripts[10:] == ["evaluate.py", "predict.py", "export.py"]


@pytest.mark.slow
def test_the_recipe_runs_from_nothing_to_a_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python"])
    data = make_data(tmp_path / "DIR")
    for split in ("valid", "backgrounds/valid"):  # which are train's: check_data.py would say so
        for path in (data / split).rglob("*.*g"):
            ImageOps.mirror(Image.open(path)).save(path)
    (data / "pictures").symlink_to(data / "valid/fgr/clip0")
    (data / "empty.jpg").symlink_to(next((data / "valid/fgr/clip0").iterdir()))
    entry = {part: {kind: data / part / kind for kind in ("fgr", "pha")} for part in SPLITS}
    for name in ("videomatte240k", "photomatte13k", "distinction"):
        monkeypatch.setitem(DATA_PATH, name, entry)
    backgrounds = {part: data / "backgrounds" / part for part in SPLITS}
    monkeypatch.setitem(DATA_PATH, "backgrounds", backgrounds)
    published_file(tmp_path / "best_deeplabv3_resnet50_voc_os16.pth", "vainf_deeplabv3_resnet50")
    for command in commands(ROOT / "docs/training.md"):
        _, script, *words = shlex.split(command)
        name = script.removesuffix(".py")
        small = SMALL[name]
        if name == "export":
            words.remove("--dynamic")
        if "auto" in words:  # it goes on
            small = [*small[:-1], "3"]
        status = importlib.import_module(name).main([*words, *small])
        told = capsys.readouterr()
        assert status == 0, (command, told.out, told.err)
    for name in ("first", "refined", "distinction"):
        assert Path(f"checkpoint/{name}/best.pth").exists()
    assert Path("checkpoint/first/epoch-0.pth").exists()
    assert Path("report.html").stat().st_size > 10_000
    assert Path("first.onnx").exists() and list(Path("mattes").rglob("*.png"))


@pytest.mark.slow
def test_clips_become_a_data_set_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python"])
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "CLIPS", name)
    write_pair(tmp_path / "OTHERS", "d")
    for number, split in enumerate(("train", "valid")):
        (tmp_path / "DIR/backgrounds" / split).mkdir(parents=True)
        backdrop(80, 60, number).save(tmp_path / "DIR/backgrounds" / split / "a.jpg")
    for command in commands(ROOT / "docs/data.md"):
        _, script, *words = shlex.split(command)
        name = script.removesuffix(".py")
        status = importlib.import_module(name).main([*words, *SMALL[name]])
        told = capsys.readouterr()
        # These clips are three times the same.
        assert status == (name == "check_data"), (command, told.out, told.err)
    assert Path("checkpoint/clips/best.pth").exists()
    assert list(Path("SET/train").glob("*.tar")) and list(Path("SET/valid").glob("*.tar"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    missing = [
        target
        for target in targets
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert not missing


HISTORY = {"CHANGELOG.md", "log.md"}  # which speak of files as they were called
NOT_WRITTEN_YET = {"benchmarks/results/gpu.json"}  # a user's, from a GPU


def named_files(text: str) -> set[str]:
    """Those that a text names in a folder of the program, such as `training/loss.py`; and modules
    without one, such as `loss.py`. A name in capitals, `model/NAME.py`, stands for others."""
    found = re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w/.-]*\w/?", text)
    return {each for each in found if "." in each and each.islower()} | set(
        re.findall(r"(?<![\w/.*-])[a-z][a-z_0-9]*\.py\b", text)
    )


def missing_files(text: str) -> set[str]:
    modules = {path.name for path in SOURCES}
    return {
        name
        for name in named_files(text) - NOT_WRITTEN_YET
        if name not in modules and not (ROOT / name).exists()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_are_there(document: Path) -> None:
    if document.name not in HISTORY:
        assert not missing_files(document.read_text())


def test_files_that_a_source_names_are_there() -> None:
    """In docstrings and comments: a file that moved is named by its new place."""
    missing = {
        path.name: missing_files(path.read_text())
        for path in SOURCES
        if "tests" not in path.relative_to(ROOT).parts
    }  # whose texts make files up
    assert not {name: files for name, files in missing.items() if files}


def test_each_folder_and_script_is_in_the_table_of_the_readme() -> None:
    table = (ROOT / "README.md").read_text().partition("## Where things are")[2]
    folders = {f"{path.name}/" for path in ROOT.glob("*/") if list(path.glob("*.py"))}
    for name in folders | {path.name for path in ROOT.glob("*.py")}:
        assert f"`{name}`" in table, name


def test_names_in_the_table_of_what_to_touch_are_in_the_code() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| to add | touch |")[2]
    ours = [path for path in SOURCES if "tests" not in path.relative_to(ROOT).parts]
    code = "\n".join(path.read_text() for path in ours)
    names = {*re.findall(r"`([A-Za-z_]+)`", table)} - {"CASES"}  # of a test
    assert len(names) > 20
    assert not {name for name in names if not re.search(rf"\b{name}\b *[:=(]", code)}


def test_each_benchmark_writes_where_its_figures_lie() -> None:
    defaults = {
        name
        for path in (ROOT / "benchmarks").glob("*.py")
        for name in re.findall(r'arguments\(__doc__, "(.+?)"\)', path.read_text())
    }
    assert len(defaults) == 8 and all((ROOT / name).exists() for name in defaults)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_that_are_named_exist(document: Path) -> None:
    """Each --option in code is one of a script or of a program that is not ours."""
    sources = [*ROOT.glob("*.py"), *ROOT.glob("*/*.py"), *ROOT.glob("dataset/*/*.py")]
    known = "\n".join(path.read_text() for path in sources)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]", document.read_text()))
    unknown = {
        each
        for each in named - set(OTHERS.split())
        if f'"{each}"' not in known and f'"--{each.removeprefix("--no-")}"' not in known
    }
    assert not unknown


OTHERS = """
--logdir --nproc-per-node --nnodes --max-restarts --rdzv-backend --rdzv-id --rdzv-endpoint
--signals-to-handle --shutdown-timeout --nodes --ntasks-per-node --gpus-per-node --cpus-per-task
--time --requeue --open-mode --signal --help --cov
"""  # of torchrun, SLURM, TensorBoard, pip and so on
