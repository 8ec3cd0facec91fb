"""Finished weights load into the network, whosever they are; nothing else does."""

from pathlib import Path

import pytest
import torch
from conftest import published_file, published_state

from model import MattingBase
from model.load import load_matting_base
from model.weights_file import WeightsFileError


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "mobilenetv2"])
def test_a_published_file_loads_entry_by_entry(tmp_path: Path, backbone: str) -> None:
    state = published_state(f"mattingbase_{backbone}")
    torch.save(state, tmp_path / "published.pth")
    model = load_matting_base(tmp_path / "published.pth")
    assert not model.training and model.backbone_name == backbone
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_refiner_is_left_out(tmp_path: Path) -> None:
    state = published_state("mattingbase_mobilenetv2")
    torch.save(state | {"refiner.conv1.weight": torch.ones(24, 42, 3, 3)}, tmp_path / "refine.pth")
    loaded = load_matting_base(tmp_path / "refine.pth").state_dict()
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["decoder.conv4.bias"], state["decoder.conv4.bias"])


def test_prefixes_of_wrapped_networks_are_taken_off(tmp_path: Path) -> None:
    state = published_state("mattingbase_mobilenetv2")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "a.pth")
    loaded = load_matting_base(tmp_path / "a.pth").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@pytest.mark.parametrize("lacking", ["all", "one"])
def test_counters_of_batches_that_are_missing_are_taken_as_0(tmp_path: Path, lacking: str) -> None:
    state = published_state("mattingbase_mobilenetv2")
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    gone = counters if lacking == "all" else counters[-1:]
    torch.save({n: v for n, v in state.items() if n not in gone}, tmp_path / "a.pth")
    said: list[str] = []
    loaded = load_matting_base(tmp_path / "a.pth", said.append).state_dict()
    assert loaded.keys() == state.keys() and all(loaded[name] == 0 for name in gone)
    assert all(torch.equal(loaded[name], state[name]) for name in state if name not in gone)
    assert [f"{len(gone)} counters of batches are missing" in line for line in said] == [True]


def test_a_state_file_stands_for_the_weights_beside_it(tmp_path: Path) -> None:
    torch.save(MattingBase("mobilenetv2").state_dict(), tmp_path / "epoch-0.pth")
    torch.save({"step": 3}, tmp_path / "epoch-0.state.pth")
    assert load_matting_base(tmp_path / "epoch-0.state.pth").backbone_name == "mobilenetv2"


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match=r"deeplab\.pth.*DeepLabV3 \(VainF\).*trained first"):
        load_matting_base(published_file(tmp_path / "deeplab.pth", "vainf_deeplabv3_mobilenet"))
    state = published_state("mattingbase_mobilenetv2")
    del state["aspp.convs.0.0.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(WeightsFileError, match=r"1 missing, such as aspp\.convs\.0\.0\.weight"):
        load_matting_base(tmp_path / "lacking.pth")
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsFileError, match="none that we know"):
        load_matting_base(tmp_path / "other.pth")
