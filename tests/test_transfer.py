"""Transfer from the published DeepLabV3 files: what comes, what stays, what is refused."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SOURCE_OF, STATE_DICTS, published_file, published_state

from model import MattingBase
from model.matting_base import BACKBONES
from model.transfer import SOURCES, TransferError, transfer
from model.weights_file import WeightsFileError, read_file, read_state_dict

MATCHED = {"resnet50": (353, 374), "resnet101": (659, 680), "mobilenetv2": (341, 362)}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_what_matches_is_copied_and_nothing_else(tmp_path: Path, backbone: str) -> None:
    path = published_file(tmp_path / "deeplab.pth", f"vainf_deeplabv3_{SOURCE_OF[backbone]}")
    source = read_state_dict(path)
    model = MattingBase(backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = transfer(model, source)
    after = model.state_dict()

    assert (len(report.matched), len(after)) == MATCHED[backbone]
    assert len(report.missing) == 20
    assert all(name.startswith("decoder.") for name in report.missing)
    assert len(report.unused) == 8
    assert all(name.startswith("classifier.classifier.") for name in report.unused)
    first = "backbone.features.0.0.weight" if "mobile" in backbone else "backbone.conv1.weight"
    ours = STATE_DICTS[f"mattingbase_{backbone}"][first]
    assert report.mismatched == {first: ([ours[0], 3, *ours[2:]], ours)}

    came_from = {SOURCES[0].rename(name): name for name in source}
    for name in report.matched:
        assert torch.equal(after[name], source[came_from[name]]), name
    for name in [*report.missing, *report.mismatched]:
        assert torch.equal(after[name], before[name]), name
    accounted = [*report.matched, *report.missing, *report.mismatched]
    assert sorted(accounted) == sorted(after)


def test_the_published_call() -> None:
    model = MattingBase("mobilenetv2")
    state = published_state("vainf_deeplabv3_mobilenet")
    model.load_pretrained_deeplabv3_state_dict(state, print_stats=False)
    name = "aspp.project.0.weight"
    assert torch.equal(model.state_dict()[name], state["classifier.classifier.0.project.0.weight"])


def test_renaming_is_a_function_of_the_name() -> None:
    rename = SOURCES[0].rename
    assert rename("backbone.layer4.2.bn3.weight") == "backbone.layer4.2.bn3.weight"
    assert rename("backbone.low_level_features.0.0.weight") == "backbone.features.0.0.weight"
    assert (
        rename("backbone.high_level_features.17.conv.3.bias") == "backbone.features.17.conv.3.bias"
    )
    assert rename("classifier.classifier.0.convs.4.1.weight") == "aspp.convs.4.1.weight"
    assert rename("classifier.classifier.4.bias") == "classifier.classifier.4.bias"


def test_the_table_counts_entries_and_parameters() -> None:
    model = MattingBase("resnet50")
    lines = transfer(model, published_state("vainf_deeplabv3_resnet50")).table().splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:6]}
    elements = {
        module: sum(p.numel() for p in getattr(model, module).parameters()) / 1e6
        for module in ("backbone", "aspp", "decoder")
    }
    stem = model.backbone.conv1.weight.numel() / 1e6
    assert rows["backbone"][:2] == [
        "317/318",
        f"{elements['backbone'] - stem:.2f}M/{elements['backbone']:.2f}M",
    ]
    assert rows["aspp"] == ["36/36", f"{elements['aspp']:.2f}M/{elements['aspp']:.2f}M", "none"]
    assert rows["decoder"][:2] == ["0/20", f"0.00M/{elements['decoder']:.2f}M"]
    assert " ".join(rows["decoder"][2:]) == "20 not in the file"
    assert rows["total"][0] == "353/374"


@pytest.mark.parametrize(
    ("listing", "backbone", "advice"),
    [
        ("vainf_deeplabv3_resnet101", "resnet50", "--model-backbone resnet101"),
        ("vainf_deeplabv3_resnet50", "resnet101", "--model-backbone resnet50"),
        ("vainf_deeplabv3_resnet50", "mobilenetv2", "--model-backbone resnet50"),
        ("vainf_deeplabv3_mobilenet", "resnet50", "--model-backbone mobilenetv2"),
    ],
)
def test_another_backbone_is_refused_with_what_to_type(
    listing: str, backbone: str, advice: str
) -> None:
    model = MattingBase(backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TransferError, match=advice):
        transfer(model, published_state(listing))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_of_which_nothing_fits_is_refused() -> None:
    with pytest.raises(TransferError, match=r"nothing of the backbone .*2 entries \(head.weight"):
        transfer(
            MattingBase("mobilenetv2"), {"head.weight": torch.ones(2), "head.bias": torch.ones(2)}
        )
    resnet18 = {"backbone.layer1.0.conv1.weight": torch.ones(2)} | {
        "classifier.classifier.0.convs.0.0.weight": torch.ones(2)
    }
    with pytest.raises(TransferError, match="none of resnet50, resnet101, mobilenetv2"):
        transfer(MattingBase("mobilenetv2"), resnet18)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_of_both_numpys_are_read(tmp_path: Path, module: str) -> None:
    path = tmp_path / "file.pth"
    torch.save({"model_state": {"a": torch.ones(1)}, "best_score": np.float64(0.5)}, path)
    # The name that this numpy wrote, replaced by the one that is asked for (GLOBAL's argument).
    written = type(np.float64(0)).__reduce__(np.float64(0.5))[0].__module__
    repacked = tmp_path / "repacked.pth"
    script = (
        "import sys, zipfile\n"
        "source, target, old, new = sys.argv[1:]\n"
        "with zipfile.ZipFile(source) as a, zipfile.ZipFile(target, 'w') as b:\n"
        "    for entry in a.namelist():\n"
        "        content = a.read(entry)\n"
        "        if entry.endswith('data.pkl'):\n"
        "            assert old.encode() in content\n"
        "            content = content.replace(f'c{old}\\n'.encode(), f'c{new}\\n'.encode())\n"
        "        b.writestr(entry, content)\n"
    )
    subprocess.run([sys.executable, "-c", script, path, repacked, written, module], check=True)
    content = read_file(repacked)
    assert content["best_score"] == 0.5
    assert list(read_state_dict(repacked)) == ["a"]


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "was-run",))

    path = tmp_path / "payload.pth"
    torch.save({"model_state": Payload()}, path)
    with pytest.raises(WeightsFileError, match="not loaded because reading it could run code"):
        read_file(path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(WeightsFileError):
        read_file(path)
    assert not (tmp_path / "was-run").exists()


def test_files_that_cannot_be_read_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    with pytest.raises(WeightsFileError, match="there is no file"):
        read_file(path)
    with pytest.raises(WeightsFileError, match="is a folder"):
        read_file(tmp_path)
    path.touch()
    with pytest.raises(WeightsFileError, match="is empty"):
        read_file(path)
    path.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(WeightsFileError, match="web page"):
        read_file(path)
    path.write_bytes(b"\x00\x01 not a checkpoint" * 100)
    with pytest.raises(WeightsFileError, match="cannot be read as a PyTorch file"):
        read_file(path)
    torch.save({"a": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsFileError, match="cannot be read as a PyTorch file"):
            read_file(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsFileError, match="the keys epoch and no weights"):
        read_state_dict(path)


def test_the_report_is_plain_data() -> None:
    report = transfer(MattingBase("mobilenetv2"), published_state("vainf_deeplabv3_mobilenet"))
    read_back = json.loads(json.dumps(report.as_dict()))
    assert len(read_back["matched"]) == 341
    assert read_back["mismatched"]["backbone.features.0.0.weight"] == {
        "file": [32, 3, 3, 3],
        "model": [32, 6, 3, 3],
    }
    assert (len(read_back["missing"]), len(read_back["unused"])) == (20, 8)
