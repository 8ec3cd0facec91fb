"""Writes a finished network in another format: ONNX, TorchScript, safetensors, plain weights.

A file gets its name only after it has been read back and compared with the network in PyTorch; one
that differs is removed, and what bore the name before stays. It never changes the network.
"""

import contextlib
import copy
import io
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.choices import OUTPUTS, REFINED_OUTPUTS
from common.errors import UserError
from common.files import write_atomically
from exporting.inference import Inference, RefineInference
from model.matting_base import MattingBase
from model.matting_refine import MattingRefine, Refined, resize
from model.weights_file import read_weights
from training.checkpoint import load_state
from training.saving import size_of, write_sealed

OPSET = 18  # the lowest that the exporter writes without converting: what most runtimes read
UNKNOWN = "unknown"
NO_LICENCE = "not stated; weights carry the licence of the data they were trained on"

# What is compared: batch, height, width. One size is odd, which is rounded up at every halving,
# and neither is the size of the example that the exporters see.
SHAPES = ((1, 128, 160), (2, 97, 131))
EXAMPLE = (2, 64, 96)
WIDE = 3840  # of one that a refiner is compared at: beyond it no screen goes, and fp16 no index
COARSE_AT_LEAST = 32  # pixels a side

# The largest and the mean difference that is let pass, of outputs in 0..1 (hid: relative to its
# largest value, where that is above 1). In float32 the order of summation alone makes some 1e-4.
# fp16 keeps 11 bits: each layer rounds by up to 2^-11 = 5e-4 of a value, and some 60 roundings that
# are independent add up to 60^0.5 times that, 4e-3, one grey level of a picture of 8 bits: no more
# on average. Single pixels may differ by a dozen; a trained mobilenetv2 differed by 6e-3 at most.
LIMITS = {"fp32": (1e-3, 1e-3), "fp16": (5e-2, 1 / 255)}


class ExportError(UserError, ValueError):
    """A network that cannot be exported so, or a file that does not do what the network does; the
    message says what was found."""


def describe(path: Path, model: MattingBase, licence: str | None) -> dict[str, str]:
    """What the files say about themselves: backbone, step, data set, licence. Step and data set
    are of the state file beside `path`, or of what a safetensors file of ours says; else unknown.
    Raises CheckpointError and WeightsFileError where that state file is damaged or of others."""
    name = path.name.removesuffix(".state.pth")
    path = path if name == path.name else path.with_name(f"{name}.pth")
    about = {"step": UNKNOWN, "dataset": UNKNOWN, "licence": NO_LICENCE} | _said_in(path)
    state = load_state(path, model.state_dict())
    if state:
        options = state["options"]
        folder = options.get("dataset_dir")
        about["step"] = str(state["step"])
        about["dataset"] = Path(folder).name if folder else str(options.get("dataset_name"))
    if licence:
        about["licence"] = licence
    return {"network": type(model).__name__, "backbone": model.backbone_name, **about}


def _said_in(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
        said = file.metadata() or {}
        if said.get("network") in ("MattingBase", "MattingRefine"):
            return {key: said[key] for key in ("step", "dataset", "licence") if key in said}
    return {}


# ---- The four formats ---------------------------------------------------------------------------


def export_weights(
    model: MattingBase, path: Path, precision: str, about: dict[str, str] | None
) -> dict[str, float]:
    """Writes all entries under the network's names: safetensors with `about` as its metadata, or,
    without it, torch.save's flat dict as checkpoints are. Returns the largest difference of each
    output that fp16 makes; in fp32 there is none: every entry is read back equal.
    Raises ExportError, and OSError where there is no room."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    if precision == "fp16":
        weights = halved(weights)

    def fill(file: Any) -> dict[str, float]:
        if about is None:
            write_sealed(weights, file)
        else:
            from safetensors.torch import save

            file.write(save(weights, {"format": "pt", **about}))
        back = read_weights(file.raw.name).state_dict
        other = [name for name in weights if not _same(back.get(name), weights[name])]
        if other or back.keys() != weights.keys():
            raise ExportError(
                f"{path} is not written: it is read back differently, {', '.join(other[:3])}"
            )
        if precision == "fp32":
            return {}
        read = copy.deepcopy(model)
        read.load_state_dict(back)
        run = lambda src, bgr: read(src.float(), bgr.float())  # noqa: E731
        return compare(model, run, outputs_of(model), shapes_of(model), precision, path)

    return _write(path, fill, size_of(weights))


def export_torchscript(
    model: MattingBase,
    path: Path,
    precision: str,
    outputs: tuple[str, ...],
    about: dict[str, str],
) -> dict[str, float]:
    """Writes a TorchScript archive of the network for any size and batch, with `about` as JSON in
    its extra file metadata.json. Returns the largest difference of each output from PyTorch.

    MattingBase is traced: nothing in it depends on what is in a picture, and sizes are kept as
    what they are computed from. MattingRefine is scripted, and its settings may be changed on the
    loaded module by their names. Raises ExportError and OSError."""
    with torch.no_grad(), _quiet():
        if isinstance(model, MattingRefine):
            network = _in_precision(copy.deepcopy(model).requires_grad_(False), precision)
            written = torch.jit.script(network)
        else:
            network = _network(model, precision, outputs)
            written = torch.jit.trace(network, _pictures(EXAMPLE, precision), check_trace=False)

    def fill(file: Any) -> dict[str, float]:
        content = io.BytesIO()
        with _quiet():
            torch.jit.save(written, content, _extra_files={"metadata.json": json.dumps(about)})
            file.write(content.getbuffer())
            back = torch.jit.load(file.raw.name, map_location="cpu")
        return compare(model, back, outputs, shapes_of(model), precision, path)

    return _write(path, fill, size_of(network.state_dict()))


def export_onnx(
    model: MattingBase,
    path: Path,
    precision: str,
    outputs: tuple[str, ...],
    about: dict[str, str],
    size: tuple[int, int] | None,
) -> dict[str, float]:
    """Writes one ONNX file of OPSET, its weights within: inputs src and bgr, outputs by their
    names, `about` in metadata_props. size: height and width, with a batch of one; None: any size
    and batch. Returns the largest difference of each output between onnxruntime and PyTorch.
    Raises ExportError and OSError."""
    network = _network(model, precision, outputs)
    if isinstance(network, RefineInference) and (side := network.inexact_side()):
        raise ExportError(
            f"{path} is not written: {side} pixels times a backbone scale of "
            f"{network.backbone_scale:g} would be rounded otherwise in ONNX than in PyTorch; type "
            f"a simpler part, such as --backbone-scale 0.25"
        )
    content = _onnx_model(network, precision, size, about).SerializeToString()
    shapes = shapes_of(model) if size is None else ((1, *size), (1, *size))

    def fill(file: Any) -> dict[str, float]:
        file.write(content)
        run = onnx_runner(Path(file.raw.name))
        return compare(model, run, outputs, shapes, precision, path)

    return _write(path, fill, len(content))


def _onnx_model(
    network: Inference | RefineInference,
    precision: str,
    size: tuple[int, int] | None,
    about: dict[str, str],
) -> Any:
    """The onnx.ModelProto of the network, without the machine's paths, checked."""
    import onnx

    example = (1, *size) if size else EXAMPLE
    if isinstance(network, RefineInference) and not size:
        example = shapes_of(network)[1]
    dynamic = {0: "batch", 2: "height", 3: "width"}
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                network,
                _pictures(example, precision),
                dynamo=True,
                opset_version=OPSET,
                input_names=["src", "bgr"],
                output_names=list(network.outputs),
                dynamic_shapes=None if size else (dynamic, dynamic),
                external_data=False,  # one file: the largest network has a ninth of the 2 GB
                verbose=False,
            )
            assert program is not None  # with dynamo
            exported = program.model_proto
        # The exporter notes on every node which line of which file it comes from, with paths of
        # the machine it ran on.
        graph = exported.graph
        for part in (exported, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
            del part.metadata_props[:]
        for part in (*graph.initializer, *exported.functions):
            del part.metadata_props[:]
        for each in graph.output:  # full sizes by the names that the inputs have
            if each.name in OUTPUTS and not size:
                for dim, name in dynamic.items():
                    each.type.tensor_type.shape.dim[dim].dim_param = name
        onnx.helper.set_model_props(exported, about)
        onnx.checker.check_model(exported, full_check=True)
    except Exception as error:  # of whatever kind, the exporter's own
        first = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"torch {torch.__version__} could not write this network as ONNX "
            f"({type(error).__name__}: {first})"
        ) from error
    return exported


def onnx_runner(path: Path, threads: int = 0) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """The network of an ONNX file in onnxruntime on the CPU, called as in PyTorch. threads: 0 for
    as many as there are cores. Raises ExportError where onnxruntime cannot run it."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's have no base of their own
        raise ExportError(f"onnxruntime cannot run the file: {error}") from error

    def run(src: Tensor, bgr: Tensor) -> list[Tensor]:
        given = session.run(None, {"src": src.numpy(), "bgr": bgr.numpy()})
        return [torch.from_numpy(np.ascontiguousarray(each)) for each in given]

    return run


# ---- What they share ----------------------------------------------------------------------------


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point entries as fp16. Raises ExportError where one is too large for it."""
    half = {
        name: value.half() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    bad = [name for name, value in half.items() if not value.isfinite().all()]
    if bad:
        raise ExportError(
            f"{len(bad)} entries hold values beyond fp16's 65504, such as {bad[0]}; export this "
            "network with --precision fp32"
        )
    return half


def compare(
    model: MattingBase,
    run: Callable[[Tensor, Tensor], Iterable[Tensor]],
    outputs: tuple[str, ...],
    shapes: Iterable[tuple[int, int, int]],
    precision: str,
    path: Path,
) -> dict[str, float]:
    """The largest difference of each of `outputs`, as `run` gives them, from those of `model` in
    fp32. run: takes src and bgr in `precision`. shapes: batch, height and width of each comparison.
    The network refines what `run` has refined; of ref_sm it is said how far the expected error of a
    patch that is chosen otherwise lies from where the choice ends, for among equals it is open.
    path: what is compared, for the message. Raises ExportError where a difference is above LIMITS,
    or a shape is another."""
    largest = dict.fromkeys(outputs, 0.0)
    most, most_on_average = LIMITS[precision]
    for number, shape in enumerate(shapes):
        src, bgr = _pictures(shape, precision, seed=number)
        with torch.no_grad(), _quiet():
            found = model(src.float(), bgr.float())
            expected = dict(zip(outputs_of(model), found, strict=True))
            given = list(run(src, bgr))
        sizes = [tuple(value.shape) for value in given]
        if sizes != [tuple(expected[name].shape) for name in outputs]:
            raise ExportError(
                f"{path} is not written: for pictures of {shape[2]}x{shape[1]} it would give "
                f"outputs of {sizes}"
            )
        if isinstance(model, MattingRefine):
            expected, given[-1] = _with_the_choice(model, src, bgr, found, given[-1])
        for name, value in zip(outputs, given, strict=True):
            scale = max(1.0, expected[name].abs().max().item())
            difference = (value.float() - expected[name]).abs() / scale
            worst, mean = difference.max().item(), difference.mean().item()
            if not (worst <= most and mean <= most_on_average):  # so that NaN is refused
                advice = "; this network needs --precision fp32" if precision == "fp16" else ""
                raise ExportError(
                    f"{path} is not written: its {name} would differ from PyTorch's by "
                    f"{worst:.2g}, {mean:.2g} on average, on pictures of {shape[2]}x{shape[1]}; "
                    f"at most {most:.2g} and {most_on_average:.2g} are let pass{advice}"
                )
            largest[name] = max(largest[name], worst)
    return largest


def _with_the_choice(
    model: MattingRefine, src: Tensor, bgr: Tensor, own: Refined, ref: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """What `model` gives where it refines the patches of `ref`, with zeros for ref_sm; and how far
    from the end of its own choice those patches lie that `ref` has and it has not, or inversely."""
    err, chosen, ours = resize(own.err_sm, (ref.shape[2], ref.shape[3])), ref > 0, own.ref_sm > 0
    if model.refine_mode == "thresholding":
        end = torch.full_like(err, model.refine_threshold)
    elif model.refine_mode == "sampling":
        least = err.where(ours, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
        end = least.nan_to_num(posinf=0.0).expand_as(err)
    else:
        end = torch.full_like(err, torch.inf)
    with torch.no_grad():
        again = model(src.float(), bgr.float(), chosen)
    expected = dict(zip(REFINED_OUTPUTS, again, strict=True))
    expected["ref_sm"] = torch.zeros_like(err)
    return expected, (err - end).abs().where(chosen != ours, 0.0)


def outputs_of(model: MattingBase) -> tuple[str, ...]:
    """The names of all that the network gives."""
    return REFINED_OUTPUTS if isinstance(model, MattingRefine) else OUTPUTS


def shapes_of(model: MattingBase) -> tuple[tuple[int, int, int], ...]:
    """What is compared. With a refiner: a wide one, of more pixels than are sampled by default, and
    two small ones whose sides are no multiple of 4."""
    if not isinstance(model, MattingRefine):
        return SHAPES
    side = math.ceil(COARSE_AT_LEAST / model.backbone_scale / 4) * 4
    return ((1, side, WIDE), (2, side + 1, side + 34))


def _network(
    model: MattingBase, precision: str, outputs: tuple[str, ...]
) -> Inference | RefineInference:
    if isinstance(model, MattingRefine):
        return _in_precision(RefineInference(model), precision)
    return _in_precision(Inference(model, outputs), precision)


def _in_precision(network: Any, precision: str) -> Any:
    if precision == "fp16":
        halved(network.state_dict())
        network.half()
    return network


def _pictures(shape: tuple[int, int, int], precision: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """src and bgr of noise, (B, 3, H, W) in 0..1, the same for a seed."""
    batch, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    both = torch.rand(2, batch, 3, height, width, generator=generator)
    src, bgr = both.half() if precision == "fp16" else both
    return src, bgr


def _write(path: Path, fill: Callable[[Any], dict[str, float]], size: int) -> dict[str, float]:
    """What `fill` returns, which writes the file under a temporary name and compares it; only
    then does it become `path`."""
    found: dict[str, float] = {}
    write_atomically(path, lambda file: found.update(fill(file)), size)
    return found


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.dtype == other.dtype and torch.equal(one, other)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that say nothing about the network: of names of axes that src and bgr
    share, and that TorchScript is to be replaced some day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
