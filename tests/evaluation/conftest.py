from pathlib import Path

import pytest
import torch

from tests.support.published import STATE_DICTS, reference_entry


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with which every sample has a prediction of its own."""
    path = tmp_path_factory.mktemp("run") / "epoch-0.pth"
    shapes = STATE_DICTS["mattingbase_mobilenetv2"]
    torch.save({name: reference_entry(name, shape) for name, shape in shapes.items()}, path)
    return path
