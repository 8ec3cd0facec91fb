"""torchvision's own weights, through its own download and cache, for `torchvision` as a source.

It fetches nothing that is in the cache, and nothing from anywhere else.
"""

from http.client import HTTPException
from pathlib import Path

import torch
from torchvision.models import MobileNet_V2_Weights
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, DeepLabV3_ResNet101_Weights

from model.weights_file import WeightsFileError

WEIGHTS = {
    "resnet50": DeepLabV3_ResNet50_Weights.DEFAULT,
    "resnet101": DeepLabV3_ResNet101_Weights.DEFAULT,
    "mobilenetv2": MobileNet_V2_Weights.DEFAULT,  # torchvision has no DeepLabV3 with it
}


def torchvision_file(backbone: str) -> Path:
    """The cached file of torchvision's weights for a backbone, downloaded where it is not there.
    Raises WeightsFileError, saying what to download and where to put it, where that fails."""
    url = WEIGHTS[backbone].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.exists():
        checksum = path.stem.rsplit("-", 1)[1]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=checksum)
        except (OSError, RuntimeError, HTTPException) as error:  # RuntimeError: another checksum
            raise WeightsFileError(
                f"torchvision's weights could not be downloaded ({error}); download {url} "
                f"elsewhere and put it at {path}"
            ) from None
    return path
