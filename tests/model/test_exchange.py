"""Weights go both ways between this program and the published one, and by torch.hub into any."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import export
from model import MattingBase
from model.load import load_matting_base
from tests.support import ROOT
from tests.support.published import STATE_DICTS, published_state
from training.saving import write_checkpoint

STATE = {
    "format": 2,
    "step": 1234,
    "steps_per_epoch": 300,
    "optimizer": {},
    "scaler": {},
    "data": {},
    "options": {"dataset_dir": None, "dataset_name": "demo"},
}

# What MattingRefine adds to MattingBase's entries: its refiner's, for kernels of 3x3.
REFINER = {
    "refiner.conv1.weight": [24, 42, 3, 3],
    "refiner.conv2.weight": [16, 24, 3, 3],
    "refiner.conv3.weight": [12, 22, 3, 3],
    "refiner.conv4.weight": [4, 12, 3, 3],
    "refiner.conv4.bias": [4],
} | {
    f"refiner.bn{number}.{entry}": [] if entry == "num_batches_tracked" else [channels]
    for number, channels in ((1, 24), (2, 16), (3, 12))
    for entry in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}


class Listed(nn.Module):
    """A module with exactly the entries of a listing, for load_state_dict to be strict about."""

    def __init__(self, listing: dict[str, list[int]]) -> None:
        super().__init__()
        for full, shape in listing.items():
            module: nn.Module = self
            *path, name = full.split(".")
            for step in path:
                if step not in module._modules:
                    module.add_module(step, nn.Module())
                module = module._modules[step]
            whole = name == "num_batches_tracked"
            module.register_buffer(name, torch.zeros(shape, dtype=torch.long if whole else None))


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [
        ("checkpoint", "resnet50"),
        pytest.param("checkpoint", "resnet101", marks=pytest.mark.slow),
        ("checkpoint", "mobilenetv2"),
        ("weights", "mobilenetv2"),
        ("safetensors", "mobilenetv2"),
    ],
)
def test_ours_load_into_the_published_networks(tmp_path: Path, kind: str, backbone: str) -> None:
    path = tmp_path / "epoch-3.pth"
    write_checkpoint(path, MattingBase(backbone).state_dict(), STATE)
    if kind != "checkpoint":
        words = ["--model-checkpoint", str(path), "--format", kind]
        path = tmp_path / "out"
        assert export.main([*words, "--output", str(path)]) == 0
    state = load_file(path) if kind == "safetensors" else torch.load(path, weights_only=True)
    listing = STATE_DICTS[f"mattingbase_{backbone}"]
    base = Listed(listing)
    base.load_state_dict(state, strict=True)
    assert all(torch.equal(value, state[name]) for name, value in base.state_dict().items())
    refine = Listed(listing | REFINER).load_state_dict(state, strict=False)
    assert set(refine.missing_keys) == set(REFINER) and not refine.unexpected_keys


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_published_files_load_into_ours(tmp_path: Path, ending: str) -> None:
    refiner = {name: torch.zeros(shape) for name, shape in REFINER.items()}
    state = published_state("mattingbase_mobilenetv2")
    path = tmp_path / f"refine.{ending}"
    (torch.save if ending == "pth" else save_file)(state | refiner, path)
    read = load_matting_base(path).state_dict()
    assert list(read) == list(state)
    assert all(torch.equal(read[name], value) for name, value in state.items())


def test_torch_hub(tmp_path: Path) -> None:
    trained = tmp_path / "trained.pth"
    torch.save(published_state("mattingbase_mobilenetv2"), trained)
    arguments = {"repo_or_dir": str(ROOT), "model": "mattingbase", "source": "local"}
    model = torch.hub.load(**arguments, backbone="mobilenetv2", weights=str(trained))
    assert not model.training
    read, state = model.state_dict(), published_state("mattingbase_mobilenetv2")
    assert all(torch.equal(read[name], value) for name, value in state.items())
    assert torch.hub.load(**arguments, backbone="mobilenetv2").training
    with pytest.raises(ValueError, match='is of mobilenetv2, not of resnet50; give backbone="mob'):
        torch.hub.load(**arguments, weights=str(trained))
    with pytest.raises(ValueError, match="choose one of"):
        torch.hub.load(**arguments, backbone="resnet18")


def test_torch_hub_gives_the_pair(tmp_path: Path) -> None:
    state = published_state("mattingbase_mobilenetv2") | published_state("refiner_kernel1")
    torch.save(state, tmp_path / "pair.pth")
    torch.save(published_state("mattingbase_mobilenetv2"), tmp_path / "base.pth")
    named = {"repo_or_dir": str(ROOT), "model": "mattingrefine", "source": "local"}
    arguments = {**named, "backbone": "mobilenetv2"}
    model = torch.hub.load(**arguments, weights=tmp_path / "pair.pth", backbone_scale=0.5)
    assert not model.training and model.backbone_scale == 0.5
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert torch.hub.load(**arguments, refine_mode="full").training
    for weights, more, word in (
        ("base.pth", {}, "mattingbase"),
        ("pair.pth", {"refine_kernel_size": 3}, "kernel size of 1"),
        ("pair.pth", {"backbone": "resnet50"}, "mobilenetv2"),
    ):
        with pytest.raises(ValueError, match=word):
            torch.hub.load(**{**arguments, **more}, weights=tmp_path / weights)
