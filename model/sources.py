"""The kinds of checkpoint that our networks can be initialised from: one table, one row a kind.

Everything here is a function of entry names alone. To add a source, add a row.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation, RGB of 0..1


@dataclass(frozen=True)
class Source:
    """How to recognise a kind of checkpoint, how its entries are called in MattingBase, and which
    of MattingBase's entries it should fill. All patterns are regular expressions, matched from the
    name's beginning."""

    name: str
    signature: tuple[str, ...]  # a file of this kind has an entry for each
    renames: tuple[tuple[str, str], ...]  # (pattern, replacement), applied in order
    fills: tuple[str, ...]  # entries of MattingBase that come from it ...
    leaves: tuple[str, ...] = ()  # ... but for these
    ignores: tuple[str, ...] = ()  # what it has more in the modules that it fills, renamed
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET  # of its input

    def recognises(self, names: Iterable[str]) -> bool:
        names = list(names)
        return all(any(re.match(pattern, name) for name in names) for pattern in self.signature)

    def rename(self, name: str) -> str:
        """The entry's name in MattingBase, where it has one there; a function of the name alone."""
        for pattern, replacement in self.renames:
            name = re.sub("^" + pattern, replacement, name)
        return name

    def is_foreign(self, renamed: str) -> bool:
        """Whether an entry that MattingBase has no place for means another network: a layer more
        within a module that comes from here."""
        within = any(re.match(pattern, renamed) for pattern in self.fills)
        return within and not any(re.match(pattern, renamed) for pattern in self.ignores)

    def should_fill(self, target: str) -> bool:
        """Whether an entry of MattingBase is expected from it. Counters of batches are not: files
        of before PyTorch 0.4.1, such as old ImageNet ones, have none, and they change nothing."""
        if target.endswith("num_batches_tracked"):
            return False
        left = any(re.match(pattern, target) for pattern in self.leaves)
        return any(re.match(pattern, target) for pattern in self.fills) and not left


STEM = r"backbone\.(conv1|features\.0\.0)\.weight"  # takes 6 channels here, 3 everywhere else
DILATED = r"aspp\.convs\.[123]\.0\.weight"  # where they are separable, nothing fits
INPUTS = r"aspp\.convs\.(0\.0|1\.0|2\.0|3\.0|4\.1)\.weight"  # all that see the backbone's features
SEPARABLE = r"aspp\.convs\.[123]\.0\."  # its two convolutions in place of one
LAST = r"backbone\.features\.18\."  # MobileNetV2's last convolution, which comes after our features
BACKBONE, ASPP, DECODER, REFINER = r"backbone\.", r"aspp\.", r"decoder\.", r"refiner\."
VAINF_MOBILENET = (r"backbone\.(low|high)_level_features\.", "backbone.features.")

# https://github.com/PeterL1n/BackgroundMattingV2, and what this program saves.
MATTING = Source(
    name="MattingBase",
    signature=(r"backbone\.", r"aspp\.convs\.", r"decoder\.conv4\."),
    renames=(),
    fills=(BACKBONE, ASPP, DECODER),
)
MATTING_REFINE = Source(
    name="MattingRefine",
    signature=(*MATTING.signature, r"refiner\.conv1\."),
    renames=(),
    fills=(*MATTING.fills, REFINER),
    ignores=(REFINER,),  # where a MattingBase is filled
)
SOURCES = (
    MATTING_REFINE,
    MATTING,
    # https://github.com/VainF/DeepLabV3Plus-Pytorch: MobileNetV2's features in two runs that keep
    # their numbers, the ASPP as the first module of the classifier.
    Source(
        name="DeepLabV3 (VainF), separable convolutions",
        signature=(r"backbone\.", r"classifier\.classifier\.0\.convs\.1\.0\.body\."),
        renames=(VAINF_MOBILENET, (r"classifier\.classifier\.0\.", "aspp.")),
        fills=(BACKBONE, ASPP),
        leaves=(STEM, DILATED),
        ignores=(SEPARABLE,),
    ),
    Source(
        name="DeepLabV3 (VainF)",
        signature=(r"backbone\.", r"classifier\.classifier\.0\.convs\."),
        renames=(VAINF_MOBILENET, (r"classifier\.classifier\.0\.", "aspp.")),
        fills=(BACKBONE, ASPP),
        leaves=(STEM,),
    ),
    Source(
        name="DeepLabV3+ (VainF), separable convolutions",
        signature=(r"backbone\.", r"classifier\.aspp\.convs\.1\.0\.body\."),
        renames=(VAINF_MOBILENET, (r"classifier\.aspp\.", "aspp.")),
        fills=(BACKBONE, ASPP),
        leaves=(STEM, DILATED),
        ignores=(SEPARABLE,),
    ),
    Source(
        name="DeepLabV3+ (VainF)",
        signature=(r"backbone\.", r"classifier\.aspp\.convs\."),
        renames=(VAINF_MOBILENET, (r"classifier\.aspp\.", "aspp.")),
        fills=(BACKBONE, ASPP),
        leaves=(STEM,),
    ),
    Source(
        name="DeepLabV3 (torchvision)",
        signature=(r"backbone\.", r"classifier\.0\.convs\."),
        renames=((r"classifier\.0\.", "aspp."),),
        fills=(BACKBONE, ASPP),
        leaves=(STEM,),
    ),
    # https://github.com/qubvel-org/segmentation_models.pytorch: with MobileNetV2 its ASPP sees
    # 1280 channels, behind one convolution more than ours; before 0.4 it was decoder.0.
    Source(
        name="DeepLabV3+ with MobileNetV2 (segmentation_models_pytorch)",
        signature=(r"encoder\.features\.", r"decoder\.aspp\.0\.convs\."),
        renames=((r"encoder\.", "backbone."), (r"decoder\.aspp\.0\.", "aspp.")),
        fills=(BACKBONE, ASPP),
        leaves=(STEM, INPUTS),
        ignores=(SEPARABLE, LAST),
    ),
    Source(
        name="DeepLabV3+ (segmentation_models_pytorch)",
        signature=(r"encoder\.", r"decoder\.aspp\.0\.convs\."),
        renames=((r"encoder\.", "backbone."), (r"decoder\.aspp\.0\.", "aspp.")),
        fills=(BACKBONE, ASPP),
        leaves=(STEM, DILATED),
        ignores=(SEPARABLE,),
    ),
    Source(
        name="DeepLabV3 with MobileNetV2 (segmentation_models_pytorch)",
        signature=(r"encoder\.features\.", r"decoder\.(aspp|0)\.convs\."),
        renames=((r"encoder\.", "backbone."), (r"decoder\.(aspp|0)\.", "aspp.")),
        fills=(BACKBONE, ASPP),
        leaves=(STEM, INPUTS),
        ignores=(LAST,),
    ),
    Source(
        name="DeepLabV3 (segmentation_models_pytorch)",
        signature=(r"encoder\.", r"decoder\.(aspp|0)\.convs\."),
        renames=((r"encoder\.", "backbone."), (r"decoder\.(aspp|0)\.", "aspp.")),
        fills=(BACKBONE, ASPP),
        leaves=(STEM,),
    ),
    Source(
        name="ImageNet ResNet (torchvision, timm)",
        signature=(r"layer1\.0\.conv1\.", r"layer4\."),
        renames=((r"(conv1|bn1|layer\d)\.", r"backbone.\1."),),
        fills=(BACKBONE,),
        leaves=(STEM,),
    ),
    Source(
        name="ImageNet MobileNetV2 (torchvision)",
        signature=(r"features\.1\.conv\.0\.0\.", r"features\.17\."),
        renames=((r"features\.", "backbone.features."),),
        fills=(BACKBONE,),
        leaves=(STEM,),
        ignores=(LAST,),
    ),
)


def recognise(names: Iterable[str]) -> Source | None:
    """The first kind that has these entries, named as `canonical` names them."""
    names = list(names)
    return next((source for source in SOURCES if source.recognises(names)), None)


# What DataParallel, DistributedDataParallel, AveragedModel, torch.compile and FSDP put into names,
# before the whole network's or a part's.
WRAPPED = re.compile(
    r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# Entries that are no weights: AveragedModel's counter, and what thop's profile() leaves.
COUNTERS = re.compile(r"(.*\.)?(n_averaged|total_ops|total_params)")
# Names that a network gives to a part of it: a classifier's layout behind one is the classifier
# only where there is hardly anything beside it.
PARTS = re.compile(r"(.*\.)?(backbone|encoder|body|features)\.")


def prefixes(names: Iterable[str]) -> list[str]:
    """The prefixes, without what WRAPPED takes off, behind each of which the entries of a known
    layout lie: [""] where the names themselves are such; several where a file holds several
    networks side by side; none where there is no known layout."""
    short = list(unwrapped(names).values())
    if recognise(short):
        return [""]
    counts: Counter[str] = Counter()
    for name in short:
        counts.update(name[: dot.end()] for dot in re.finditer(r"\.", name))
    found: dict[str, bool] = {}  # prefix → whether of a whole network
    for prefix in sorted(counts, key=lambda each: each.count(".")):
        if counts[prefix] * 20 < len(short) or prefix.startswith(tuple(found)):
            continue
        source = recognise(each.removeprefix(prefix) for each in short if each.startswith(prefix))
        if source:
            found[prefix] = source.fills != (BACKBONE,)
    if any(found.values()):
        return [prefix for prefix, whole in found.items() if whole]
    beside = 1 - sum(counts[prefix] for prefix in found) / max(1, len(short))
    return [each for each in found if beside < (0.05 if PARTS.fullmatch(each) else 0.5)]


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Name in the file → name without what WRAPPED takes off, where that keeps them apart."""
    names = list(names)
    short = {name: WRAPPED.sub("", name) for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def canonical(names: Iterable[str]) -> dict[str, str]:
    """Name in the file → name without what wrapping the network, or its backbone alone, has put
    before it, and with MobileNet's `high_level_features` numbered on from 4 where a file numbers
    them from 0. What lies beside the network keeps its name."""
    names = list(names)
    inside = network_of(names)
    short = _with_backbone_in_place({name: inside.get(name, name) for name in names})
    if any(now.startswith("backbone.high_level_features.0.") for now in short.values()):
        pattern = re.compile(r"^backbone\.high_level_features\.(\d+)\.")
        short = {
            name: pattern.sub(lambda m: f"backbone.high_level_features.{int(m[1]) + 4}.", now)
            for name, now in short.items()
        }
    return short


def _with_backbone_in_place(short: dict[str, str]) -> dict[str, str]:
    """The values with a backbone that lies behind a prefix of its own (model.backbone.,
    backbone.body.) behind that of a known layout; as they are where no such layout comes of it, or
    they are of one already."""
    names = list(short.values())
    source = recognise(names)
    if source and backbone_of(map(source.rename, names)):
        return short
    counts = Counter(name[: dot.end()] for name in names for dot in re.finditer(r"\.", name))
    for prefix in (prefix for prefix, count in counts.items() if count > len(names) / 2):
        for usual in ("backbone.", "encoder."):
            moved = {
                name: usual + now.removeprefix(prefix) if now.startswith(prefix) else now
                for name, now in short.items()
            }
            source = recognise(moved.values())
            part = [moved[name] for name, now in short.items() if now.startswith(prefix)]
            if source and source.fills != (BACKBONE,) and backbone_of(map(source.rename, part)):
                return moved
    return short


def network_of(names: Iterable[str]) -> dict[str, str]:
    """The names of the network's own entries, and what they are without their prefix: no loss, no
    counter beside it. All, where no layout is known."""
    short = unwrapped(names)
    prefix = next(iter(prefixes(short)), "")
    inside = {name: now for name, now in short.items() if now.startswith(prefix)}
    wrapped = {name: now for name, now in inside.items() if WRAPPED.match(name)}
    if len(wrapped) > len(inside) / 2:  # as a whole
        inside = wrapped
    return {
        name: now.removeprefix(prefix)
        for name, now in inside.items()
        if not COUNTERS.fullmatch(now)
    }


def backbone_of(names: Iterable[str]) -> str | None:
    """Which backbone entries named as in MattingBase belong to; None where it is none of ours."""
    names = set(names)
    if "backbone.features.1.conv.0.0.weight" in names:
        return "mobilenetv2"
    if "backbone.layer1.0.conv3.weight" not in names:  # ResNet18 and 34 have two convolutions
        return None
    blocks = (re.match(r"backbone\.layer3\.(\d+)\.", name) for name in names)
    last = max((int(block[1]) for block in blocks if block), default=0)
    if last > 22:
        return None
    return "resnet101" if last > 5 else "resnet50"
