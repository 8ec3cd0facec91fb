"""Whether a continued run is the one that its checkpoint is of: what has changed between them."""

from typing import Any

from dataset.sampler import crop_grid
from training.options import OF_MODES

# A resume refuses another value of these: it would train on other batches, or another network.
SAME_RUN = ("model_backbone", "seed", "batch_size", "crop_size", "dataset_pairing")
SAME_REFINER = ("model_refine_kernel_size", "model_backbone_scale", "model_refine_mode")
OTHER_NETWORK = ("--model-backbone ", "--model-refine-kernel-size ")  # whose weights do not fit
GRID_WORDS = "in steps of"
UNRECORDED_CROP_GRID = 32  # of all crops in the versions that did not write "crop_grid" down
# A resume only notes another value of these, which one may well change on the way.
SAME_RECIPE = (
    "precision",
    "lr_backbone",
    "lr_aspp",
    "lr_decoder",
    "lr_refiner",
    "clip_grad_norm",
    "accumulate",
    "sync_batchnorm",
)


def differences(
    state: dict[str, Any], options: dict[str, Any], data: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """What makes a continued run another run than that of `state`, and what else has changed, each
    as "--seed was 0 and is 1". options: by name, as Run records them."""
    before, now = state["options"], options

    def changed(names: tuple[str, ...]) -> list[str]:
        return [
            f"--{name.replace('_', '-')} was {_said(before.get(name))} and is {_said(now[name])}"
            for name in names
            if name in now and before.get(name) != now[name]
        ]

    mode = OF_MODES.get(now.get("model_refine_mode", ""), "")
    return (
        changed((*SAME_RUN, *SAME_REFINER, mode))
        + _changed_grid(state, options)
        + _changed_data(state["data"], data, "train"),
        changed(SAME_RECIPE) + _changed_data(state["data"], data, "valid"),
    )


def _changed_grid(state: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """Says whether another version of this program has drawn the same --crop-size otherwise."""
    size = options["crop_size"]
    before, now = state.get("crop_grid", UNRECORDED_CROP_GRID), crop_grid(size)
    if before == now or state["options"].get("crop_size") != size:
        return []
    return [
        f"--crop-size {_said(size)} was {GRID_WORDS} {before}, as another version "
        f"of this program draws it, and is {GRID_WORDS} {now}"
    ]


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _changed_data(before: dict, now: dict, split: str) -> list[str]:
    were, are = (
        "{foregrounds} foregrounds and {backgrounds} backgrounds (fingerprint of their names "
        "{fingerprint})".format(**data[split])
        for data in (before, now)
    )
    return [] if were == are else [f"the data to {split} on were {were} and are {are}"]
