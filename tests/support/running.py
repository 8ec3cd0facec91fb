"""What the tests of a run share: train_base.py's command line in this process, and what it says."""

from pathlib import Path

import pytest
import torch

import train_base

ROOT = Path(train_base.__file__).parent
AUTO = ["--model-last-checkpoint", "auto"]


def run(data: Path, *arguments: object, backbone: str = "mobilenetv2", status: int = 0) -> None:
    argv = ["--dataset-dir", data, "--model-backbone", backbone, "--model-name", "run"]
    argv += ["--crop-size", 32, 64, "--batch-size", 4, "--num-workers", 0, "--device", "cpu"]
    assert train_base.main([str(word) for word in [*argv, *arguments]]) == status


def error_of(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("train_base.py: error: ")][-1]


def weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(name, weights_only=True)


def same(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
