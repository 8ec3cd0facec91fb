"""What only a CUDA device can show; skipped without one. Run with: pytest -m cuda"""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import train_base
from dataset.augmentation import NUMBERS, augment
from dataset.folders import data_folders, open_split
from dataset.sample import MattingDataset, collate
from dataset.sampler import SampleKey
from model.batch_norm import count_batch
from tests.support import ROOT
from training import checkpoint
from training.batch_norm import GlobalBatchNorm2d, GlobalPatchNorm
from training.checkpoint_folder import CheckpointFolder

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

# What the null GPU (tests/cuda/test_null_cuda.py) cannot run: it computes nothing.
numbers = pytest.mark.numbers


def run(data: Path, *arguments: object) -> None:
    argv = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "run"]
    argv += ["--crop-size", 64, 128, "--batch-size", 4, "--num-workers", 2, "--device", "cuda"]
    assert train_base.main([str(word) for word in [*argv, *arguments]]) == 0


@numbers
def test_fp16_is_the_default_and_scales_the_loss(data: Path, here: Path) -> None:
    run(data, "--max-steps", 4)
    state = checkpoint.load_state(Path("checkpoint/run/epoch-1.pth"))
    assert state["scaler"]["scale"] > 1
    weights = torch.load("checkpoint/run/epoch-1.pth", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_bf16_needs_no_scaling(data: Path, here: Path) -> None:
    run(data, "--max-steps", 4, "--precision", "bf16")
    assert checkpoint.load_state(Path("checkpoint/run/epoch-1.pth"))["scaler"] == {}


@numbers
def test_a_resumed_run_goes_on_with_optimizer_and_scale(data: Path, here: Path) -> None:
    run(data, "--max-steps", 2)
    path = Path("checkpoint/run/epoch-0.state.pth")
    state = checkpoint.read_file(path)
    # So low that no gradient overflows, and unlike what a fresh scaler begins with.
    state["scaler"] |= {"scale": 128.0, "_growth_tracker": 5}
    before = {int(moments["step"]) for moments in state["optimizer"]["state"].values()}
    torch.save(state, path)
    run(data, "--max-steps", 4, "--model-last-checkpoint", "auto")
    after = checkpoint.load_state(Path("checkpoint/run/epoch-1.pth"))
    assert (after["step"], after["scaler"]["scale"]) == (4, 128.0)
    assert after["scaler"]["_growth_tracker"] == 7
    assert {int(m["step"]) for m in after["optimizer"]["state"].values()} == {max(before) + 2}


def test_one_process_under_torchrun_uses_nccl(data: Path, here: Path) -> None:
    """With NCCL, DistributedDataParallel and batch norm's group, as several would."""
    words = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "run"]
    words += ["--crop-size", 64, 128, "--batch-size", 4, "--num-workers", 2, "--max-steps", 4]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
    command += [str(ROOT / "train_base.py"), *map(str, words), "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    state = checkpoint.load_state(Path("checkpoint/run/epoch-1.pth"))
    assert state["step"] == 4 and state["options"]["device"].startswith("cuda")
    run(data, "--max-steps", 6, "--model-last-checkpoint", "auto")


def test_a_checkpoint_of_the_cpu_continues_on_the_device(data: Path, here: Path) -> None:
    run(data, "--max-steps", 2, "--device", "cpu")
    run(data, "--max-steps", 4, "--model-last-checkpoint", "auto")
    groups = checkpoint.load_state(Path("checkpoint/run/epoch-1.pth"))["optimizer"]["param_groups"]
    assert all(group["fused"] for group in groups)


@numbers
def test_a_continued_run_equals_one_that_was_never_stopped(data: Path, here: Path) -> None:
    """In processes of their own, since --deterministic is for all of a process."""
    words = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--crop-size", 64, 128]
    words += ["--batch-size", 4, "--num-workers", 2, "--device", "cuda", "--deterministic"]
    auto = ["--model-last-checkpoint", "auto"]
    for arguments in (
        ["--max-steps", 4, "--model-name", "whole"],
        ["--max-steps", 3, "--model-name", "run"],
        ["--max-steps", 4, "--model-name", "run", *auto],
    ):
        command = [sys.executable, ROOT / "train_base.py", *words, *arguments]
        subprocess.run([str(word) for word in command], check=True)
    one, other = (
        checkpoint.read_checkpoint(Path(f"checkpoint/{name}/epoch-1.pth"))
        for name in ("whole", "run")
    )
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert one.state["scaler"] == other.state["scaler"]


@numbers
def test_a_bad_number_stops_the_run_though_nothing_waits_for_it(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.guarded_optimizer import GuardedOptimizer

    backward, calls = GuardedOptimizer.backward, []

    def spoilt(self: GuardedOptimizer, *arguments: object) -> None:
        backward(self, *arguments)
        calls.append(1)
        if len(calls) == 3:
            self.parameters[0].grad.fill_(float("nan"))

    monkeypatch.setattr(GuardedOptimizer, "backward", spoilt)
    argv = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "run"]
    argv += ["--crop-size", 64, 64, "--batch-size", 4, "--num-workers", 2, "--device", "cuda"]
    argv += ["--precision", "fp32", "--log-train-loss-interval", 1000, "--epoch-end", 100]
    argv += ["--checkpoint-interval", 1000]
    assert train_base.main([str(word) for word in argv]) == 2
    assert "step 3: the gradient's norm is not finite" in capsys.readouterr().err
    for path in CheckpointFolder(Path("checkpoint/run")).checkpoints():
        weights = checkpoint.read_checkpoint(path).weights
        assert all(value.isfinite().all() for value in weights.values())


@numbers
def test_the_device_augments_as_the_cpu_does(data: Path) -> None:
    samples = MattingDataset(*open_split(data_folders("", data, print), "train"))
    batch = collate([samples[SampleKey(0, i, 0, (64, 96))] for i in range(6)])
    # The devices' generators differ, so noise is left out.
    for name in ("src_noise", "bgr_noise"):
        batch["numbers"][:, NUMBERS.index(name)] = 0
    on_cpu = augment(batch, torch.device("cpu"))
    on_cuda = augment(batch, torch.device("cuda"), torch.channels_last)
    for one, other in zip(on_cpu, on_cuda, strict=True):
        assert other.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one, other.cpu(), atol=2e-3, rtol=0)


def test_augmenting_waits_for_nothing(data: Path) -> None:
    samples = MattingDataset(*open_split(data_folders("", data, print), "train"))
    batch = collate([samples[SampleKey(0, i, 0, (64, 96))] for i in range(6)])
    batch = {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    augment(batch, torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(batch, torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("kind", [GlobalBatchNorm2d, GlobalPatchNorm])
def test_batch_norm_over_processes_is_batch_norm(
    kind: type[GlobalBatchNorm2d], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    """By the operations that a CPU does not have, with one process."""
    torch.manual_seed(0)
    x = 3 * torch.randn(4, 16, 33, 20, device="cuda") + 5
    x, grad = (each.to(dtype).to(memory_format=layout) for each in (x, torch.randn_like(x)))
    plain = nn.BatchNorm2d(16).cuda()
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        other = kind(copy.deepcopy(plain), dist.group.WORLD)
        found = []
        for norm in (plain, other):
            given = x.clone().requires_grad_()
            y = norm(given)
            count_batch(norm)  # torch's own counts by itself
            y.backward(grad)
            assert y.dtype == dtype and y.is_contiguous(memory_format=layout)
            found.append([y, given.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    finally:
        dist.destroy_process_group()
    tolerance = {"rtol": 2e-3, "atol": 4e-3} if dtype == torch.float16 else {}
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, **tolerance)
