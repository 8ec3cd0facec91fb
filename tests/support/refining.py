"""MattingRefine with the weights and inputs of its reference outputs (tests/data/refine)."""

from functools import cache

import torch

from model import MattingRefine
from tests.support.published import STATE_DICTS, reference_entry, reference_image


@cache
def reference_weights(backbone: str, kernel_size: int) -> dict[str, torch.Tensor]:
    """Those of the reference, in which few of the outputs are clamped."""
    listing = STATE_DICTS[f"mattingbase_{backbone}"] | STATE_DICTS[f"refiner_kernel{kernel_size}"]
    weights = {name: reference_entry(name, shape) for name, shape in listing.items()}
    weights["decoder.conv4.weight"][:5] *= 0.15
    weights["decoder.conv4.bias"][0] += 0.45
    weights["decoder.conv4.bias"][4] += 0.10
    weights["refiner.conv4.weight"] *= 0.15
    weights["refiner.conv4.bias"][0] += 0.45
    return weights


def network(kernel_size: int = 3, backbone: str = "mobilenetv2", **settings) -> MattingRefine:
    """In eval mode, with the reference's weights."""
    model = MattingRefine(backbone, refine_kernel_size=kernel_size, **settings).eval()
    model.load_state_dict(reference_weights(backbone, kernel_size))
    return model


def inputs(batch: int = 1, height: int = 160, width: int = 224) -> list[torch.Tensor]:
    phases = ((0.3, 1.1), (2.3, 3.6))
    return [
        torch.cat([reference_image(3, height, width, phase) for phase in of[:batch]])
        for of in phases
    ]
