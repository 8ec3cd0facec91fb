"""What the documents say can be typed, and what they point to is there."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import make_data, published_file
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SMALL = {  # what is put behind a command, so that it takes seconds; the rest is as it is written
    "check_data": ["--crop-size", "32", "64", "--num-workers", "1"],
    "train_base": [
        "--crop-size", "32", "64", "--batch-size", "2", "--num-workers", "0", "--device", "cpu",
        "--max-steps", "2",
    ],
    "evaluate": ["--size", "64", "--backgrounds", "1", "--num-workers", "0", "--device", "cpu"],
    "predict": ["--size", "64", "--device", "cpu"],
    "export": ["--size", "64", "64"],
}  # fmt: skip


def commands(document: Path) -> list[str]:
    """The lines of indented blocks that begin with `python NAME.py`."""
    text = document.read_text()
    found = re.findall(r"^    (python \w+\.py .*(?:\\\n.*)*)$", text, re.MULTILINE)
    return [re.sub(r"\\\n\s*", "", each) for each in found]


def test_the_recipe_is_there() -> None:
    scripts = [each.split()[1] for each in commands(ROOT / "docs/training.md")]
    assert scripts == ["check_data.py"] + 4 * ["train_base.py"] + [
        "evaluate.py", "predict.py", "export.py",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_recipe_runs_from_nothing_to_a_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python"])
    data = make_data(tmp_path / "DIR")
    for half in ("valid", "backgrounds/valid"):  # which are train's: check_data.py would say so
        for path in (data / half).rglob("*.*g"):
            ImageOps.mirror(Image.open(path)).save(path)
    (data / "pictures").symlink_to(data / "valid/fgr/clip0")
    (data / "empty.jpg").symlink_to(next((data / "valid/fgr/clip0").iterdir()))
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
    names = {path.name for path in Path("checkpoint/first").iterdir()}
    assert {"best.pth", "epoch-0.pth"} <= names
    assert Path("report.html").stat().st_size > 10_000
    assert Path("first.onnx").exists() and list(Path("mattes").rglob("*.png"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    missing = [
        target
        for target in targets
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_that_are_named_exist(document: Path) -> None:
    """Each --option in code is one of a script or of a program that is not ours."""
    sources = [*ROOT.glob("*.py"), *ROOT.glob("*/*.py"), *ROOT.glob("dataset/*/*.py")]
    known = "\n".join(path.read_text() for path in sources)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]", document.read_text()))
    unknown = {
        each
        for each in named - OTHERS
        if f'"{each}"' not in known and f'"--{each.removeprefix("--no-")}"' not in known
    }
    assert not unknown


OTHERS = {  # of torchrun, SLURM, TensorBoard, pip and so on
    "--logdir", "--nproc-per-node", "--nnodes", "--max-restarts", "--rdzv-backend", "--rdzv-id",
    "--rdzv-endpoint", "--signals-to-handle", "--shutdown-timeout", "--nodes", "--ntasks-per-node",
    "--gpus-per-node", "--cpus-per-task", "--time", "--requeue", "--open-mode", "--signal",
    "--help", "--cov",
}  # fmt: skip
