"""Loads finished weights of MattingBase into the network: this program's, or the published one's.

Nothing is renamed or left out but a refiner; what does not fit is an error. To begin training from
another network's weights is transfer.py's business.
"""

from pathlib import Path

from torch import Tensor, nn

from model.matting_base import MattingBase
from model.sources import MATTING, backbone_of, canonical, recognise
from model.weights_file import WeightsFileError, read_weights


def load_matting_base(path: str | Path) -> MattingBase:
    """The network of a weights file, on the CPU in eval mode, in float32; its backbone is read off
    the entries' names.

    path: a flat state dict or one in a wrapper, .pth or .safetensors; of MattingBase or of
    MattingRefine, whose refiner is left out; or a state file of a checkpoint, whose weights are
    taken from beside it. Raises WeightsFileError where it cannot be read, or is something else.
    """
    path = Path(path)
    if path.name.endswith(".state.pth"):
        path = path.with_name(path.name.removesuffix(".state.pth") + ".pth")
    content = read_weights(path).state_dict
    short = canonical(content)
    source, backbone = recognise(short.values()), backbone_of(short.values())
    if source is not MATTING:
        what = (
            f"looks like {source.name}, to be trained first" if source else "is none that we know"
        )
        raise WeightsFileError(
            f"{path} holds no weights of MattingBase: it {what}; give a file that train_base.py "
            "has saved, such as checkpoint/NAME/epoch-0.pth"
        )
    if backbone is None:
        raise WeightsFileError(
            f"{path} is a MattingBase of a backbone that is not known here; known are resnet50, "
            "resnet101 and mobilenetv2"
        )
    model = MattingBase(backbone)
    weights = {
        name: content[full] for full, name in short.items() if not name.startswith("refiner.")
    }
    if found := misfit(model, weights):
        raise WeightsFileError(f"{path} does not fit MattingBase with {backbone}: {found}")
    model.load_state_dict(weights)
    return model.eval()


def misfit(model: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """How entries differ from what `model` takes: "entries 2 missing, such as a; ..."; None where
    names and shapes are the same."""
    target = model.state_dict()
    missing = [name for name in target if name not in weights]
    foreign = [name for name in weights if name not in target]
    unlike = [n for n in target if n in weights and weights[n].shape != target[n].shape]
    kinds = (("missing", missing), ("foreign", foreign), ("of other shape", unlike))
    said = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds if names]
    return f"entries {'; '.join(said)}" if said else None
