"""The networks for other programs, by torch.hub:

model = torch.hub.load(FOLDER, "mattingbase", backbone="resnet50", weights=FILE, source="local")
model = torch.hub.load(FOLDER, "mattingrefine", backbone="resnet50", weights=FILE, source="local")
"""

from pathlib import Path
from typing import Any

from model import MattingBase, MattingRefine
from model.load import load_matting, load_matting_base

dependencies = ["torch", "torchvision", "numpy", "safetensors"]


def mattingbase(backbone: str = "resnet50", weights: str | Path | None = None) -> MattingBase:
    """MattingBase with `backbone`, one of common.choices.BACKBONES.

    weights: a file of this program or of the published one, of MattingBase or MattingRefine, whose
    refiner is left out; the network is then in eval mode, on the CPU, in float32. None: random
    weights, in training mode. Its call takes src and bgr, (B, 3, H, W), RGB, 0..1, and gives pha,
    fgr, err and hid.
    Raises ValueError where there is no such backbone, the file cannot be read as weights of
    MattingBase, or is of another backbone.
    """
    if weights is None:
        return MattingBase(backbone)
    model = load_matting_base(weights)
    _check_backbone(model, backbone, weights)
    return model


def mattingrefine(
    backbone: str = "resnet50", weights: str | Path | None = None, **settings: Any
) -> MattingRefine:
    """MattingRefine with `backbone`, one of common.choices.BACKBONES.

    weights: as mattingbase takes them, of MattingRefine. settings: those of MattingRefine's
    constructor, such as backbone_scale, refine_mode and refine_sample_pixels; the kernel size is
    the file's. Its call takes src and bgr, (B, 3, H, W), RGB, 0..1, and gives pha, fgr, pha_sm,
    fgr_sm, err_sm and ref_sm.
    Raises ValueError where there is no such backbone or value of a setting, the file cannot be read
    as weights of MattingRefine, or is of another backbone or kernel size; TypeError where there is
    no such setting.
    """
    if weights is None:
        return MattingRefine(backbone, **settings)
    loaded = load_matting(weights)
    _check_backbone(loaded, backbone, weights)
    if not isinstance(loaded, MattingRefine):
        raise ValueError(f"{weights} is of MattingBase, without a refiner; ask for mattingbase")
    kernel_size = loaded.refiner.conv1.kernel_size[0]
    if settings.setdefault("refine_kernel_size", kernel_size) != kernel_size:
        raise ValueError(f"{weights} has a kernel size of {kernel_size}; leave the setting out")
    model = MattingRefine(backbone, **settings)
    model.load_state_dict(loaded.state_dict())
    return model.eval()


def _check_backbone(model: MattingBase, backbone: str, weights: str | Path) -> None:
    if model.backbone_name != backbone:
        raise ValueError(
            f"{weights} is of {model.backbone_name}, not of {backbone}; give backbone="
            f'"{model.backbone_name}"'
        )
