"""Transfer from the published DeepLabV3 files: what comes, what stays, what is refused."""

import json
from pathlib import Path

import pytest
import torch

from model import MattingBase
from model.sources import SOURCES
from model.transfer import TransferError, transfer
from model.weights_file import read_weights
from tests.support.published import SOURCE_OF, STATE_DICTS, published_file, published_state

VAINF = next(source for source in SOURCES if source.name == "DeepLabV3 (VainF)")
MATCHED = {"resnet50": (353, 374), "resnet101": (659, 680), "mobilenetv2": (341, 362)}


@pytest.mark.parametrize(
    "backbone", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow), "mobilenetv2"]
)
def test_what_matches_is_copied_and_nothing_else(tmp_path: Path, backbone: str) -> None:
    path = published_file(tmp_path / "deeplab.pth", f"vainf_deeplabv3_{SOURCE_OF[backbone]}")
    source = read_weights(path).state_dict
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

    came_from = {VAINF.rename(name): name for name in source}
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
    rename = VAINF.rename
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


def test_the_report_is_plain_data() -> None:
    report = transfer(MattingBase("mobilenetv2"), published_state("vainf_deeplabv3_mobilenet"))
    read_back = json.loads(json.dumps(report.as_dict()))
    assert len(read_back["matched"]) == 341
    assert read_back["mismatched"]["backbone.features.0.0.weight"] == {
        "file": [32, 3, 3, 3],
        "model": [32, 6, 3, 3],
    }
    assert (len(read_back["missing"]), len(read_back["unused"])) == (20, 8)
