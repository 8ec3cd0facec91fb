"""The network for other programs, by torch.hub:

model = torch.hub.load(FOLDER, "mattingbase", backbone="resnet50", weights=FILE, source="local")
"""

from pathlib import Path

from model import MattingBase
from model.load import load_matting_base

dependencies = ["torch", "torchvision", "numpy", "safetensors"]


def mattingbase(backbone: str = "resnet50", weights: str | Path | None = None) -> MattingBase:
    """MattingBase with `backbone`: resnet50, resnet101 or mobilenetv2.

    weights: a file of this program or of the published one; the network is then in eval mode, on
    the CPU, in float32. None: random weights, in training mode. Its call takes src and bgr,
    (B, 3, H, W), RGB, 0..1, and gives pha, fgr, err and hid.
    Raises ValueError where there is no such backbone, the file cannot be read as weights of
    MattingBase, or is of another backbone.
    """
    if weights is None:
        return MattingBase(backbone)
    model = load_matting_base(weights)
    if model.backbone_name != backbone:
        raise ValueError(
            f"{weights} is of {model.backbone_name}, not of {backbone}; give backbone="
            f'"{model.backbone_name}"'
        )
    return model
