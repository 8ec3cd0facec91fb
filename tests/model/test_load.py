"""Finished weights load into the network, whosever they are; nothing else does."""

from pathlib import Path

import pytest
import torch

from model import MattingBase, MattingRefine
from model.load import load_matting, load_matting_base
from model.weights_file import WeightsFileError
from tests.support.published import published_file, published_state


@pytest.mark.parametrize(
    "backbone", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow), "mobilenetv2"]
)
def test_a_published_file_loads_entry_by_entry(tmp_path: Path, backbone: str) -> None:
    state = published_state(f"mattingbase_{backbone}")
    torch.save(state, tmp_path / "published.pth")
    model = load_matting_base(tmp_path / "published.pth")
    assert not model.training and model.backbone_name == backbone
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def refine_state(kernel_size: int = 3, backbone: str = "mobilenetv2") -> dict[str, torch.Tensor]:
    refiner = published_state(f"refiner_kernel{kernel_size}")
    return published_state(f"mattingbase_{backbone}") | refiner


@pytest.mark.parametrize(
    ("backbone", "kernel_size", "wrapped"),
    [
        ("mobilenetv2", 3, ""),
        ("mobilenetv2", 1, "module."),
        ("resnet50", 3, "model."),
        ("mobilenetv2", 1, "state_dict"),
        pytest.param("resnet101", 1, "state_dict", marks=pytest.mark.slow),
        ("mobilenetv2", 3, "a part"),
    ],
)
def test_a_file_of_the_pair_loads_as_the_pair(
    tmp_path: Path, backbone: str, kernel_size: int, wrapped: str
) -> None:
    state = refine_state(kernel_size, backbone)
    content: dict = {f"{wrapped}{name}" if "." in wrapped else name: v for name, v in state.items()}
    if wrapped == "state_dict":
        content = {"epoch": 3, "state_dict": content}
    elif wrapped == "a part":
        content = {n.replace("refiner.", "refiner._orig_mod."): v for n, v in content.items()}
    torch.save(content, tmp_path / "refine.pth")
    said: list[str] = []
    model = load_matting(tmp_path / "refine.pth", said.append)
    assert isinstance(model, MattingRefine) and not model.training and not said
    assert model.backbone_name == backbone
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_file_of_the_base_alone_loads_as_that(tmp_path: Path) -> None:
    torch.save(published_state("mattingbase_mobilenetv2"), tmp_path / "base.pth")
    assert type(load_matting(tmp_path / "base.pth")) is MattingBase


def test_the_base_of_a_pair_is_loaded_alone_and_that_is_said(tmp_path: Path) -> None:
    state = published_state("mattingbase_mobilenetv2")
    torch.save(refine_state(), tmp_path / "refine.pth")
    said: list[str] = []
    model = load_matting_base(tmp_path / "refine.pth", said.append)
    assert type(model) is MattingBase
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["decoder.conv4.bias"], state["decoder.conv4.bias"])
    assert len(said) == 1 and "refiner, 20 entries, is left out" in said[0]


@pytest.mark.parametrize(
    "name",
    ["refiner.conv1.weight", "refiner.bn3.running_var", "refiner.bn1.num_batches_tracked"],
)
def test_a_pair_without_a_part_of_its_refiner_is_refused(tmp_path: Path, name: str) -> None:
    state = refine_state()
    del state[name]
    torch.save(state, tmp_path / "lacking.pth")
    said: list[str] = []
    if name.endswith("num_batches_tracked"):  # which changes nothing
        load_matting(tmp_path / "lacking.pth", said.append)
        assert len(said) == 1 and "1 counters" in said[0]
        return
    with pytest.raises(WeightsFileError, match=f"MattingRefine.* 1 missing, such as {name}"):
        load_matting(tmp_path / "lacking.pth", said.append)
    assert isinstance(load_matting_base(tmp_path / "lacking.pth", said.append), MattingBase)


@pytest.mark.parametrize("name", ["refiner.conv1.weight", "refiner.conv4.weight"])
def test_a_refiner_of_other_shapes_is_refused(tmp_path: Path, name: str) -> None:
    state = refine_state()
    state[name] = torch.ones(*state[name].shape[:2], 5, 5)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsFileError, match=f"MattingRefine.* 1 of other shape, such as {name}"):
        load_matting(tmp_path / "other.pth")


def test_a_refiner_that_diverged_is_refused(tmp_path: Path) -> None:
    state = refine_state()
    state["refiner.bn3.bias"][0] = torch.nan
    torch.save(state, tmp_path / "diverged.pth")
    with pytest.raises(WeightsFileError, match=r"refiner\.bn3\.bias"):
        load_matting(tmp_path / "diverged.pth")


def test_whatever_is_left_out_is_said(tmp_path: Path) -> None:
    more = {"sigma": torch.tensor(0.5), "queue": torch.ones(3).to_sparse()}
    state = {f"net.{n}": v for n, v in published_state("mattingbase_mobilenetv2").items()}
    torch.save(state | more, tmp_path / "more.pth")
    said: list[str] = []
    load_matting(tmp_path / "more.pth", said.append)
    assert len(said) == 2 and "sparse, such as queue" in said[0] and "such as sigma" in said[1]


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
