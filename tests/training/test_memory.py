"""What is said where memory runs out: how much was in use, for what, and what to type."""

import argparse

import pytest
import torch

from common import memory
from training import resolve
from training.memory import memory_short
from training.options import parse_base_options, parse_refine_options
from training.team import Team

ENGINE = "GET was unable to find an engine to execute this computation"
SETTINGS = resolve.Settings(
    device=torch.device("cuda:0"),
    precision="fp16",
    num_workers=0,
    processes=1,
    sync_batchnorm=False,
    micro_batch_size=8,
)


@pytest.mark.parametrize(
    "said",
    [
        ENGINE,
        "FIND was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    ],
)
def test_a_library_that_finds_no_room_is_told_from_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    gpu = {
        "is_initialized": lambda: True,
        "memory_reserved": lambda: 7_000_000_000,
        "max_memory_allocated": lambda *_: 6_900_000_000,
        "get_device_properties": lambda _: argparse.Namespace(total_memory=8_000_000_000),
    }
    for name, value in gpu.items():
        monkeypatch.setattr(torch.cuda, name, value)
    options = parse_base_options([])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (200_000_000, 8_000_000_000))
    told = str(memory_short(RuntimeError(said), options, SETTINGS, None))
    assert f"cuda:0 is out of memory: the peak was 6.90 GB of 8.00 GB ({said})" in told
    assert "--accumulate 2" in told
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (900_000_000, 8_000_000_000))
    assert memory_short(RuntimeError(said), options, SETTINGS, None) is None

    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert memory_short(RuntimeError(said), options, SETTINGS, None) is None


def test_without_a_gpu_no_library_of_one_is_short_of_memory() -> None:
    assert not memory.ran_out(RuntimeError(ENGINE))
    assert memory.ran_out(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert memory.ran_out(RuntimeError("cuDNN: CUDNN_STATUS_INTERNAL_ERROR_ALLOCATION_FAILED"))


@pytest.mark.parametrize(
    ("words", "processes", "parts"),
    [("", 1, "2"), ("--accumulate 2", 1, "4"), ("--accumulate 4", 1, None)]
    + [("--batch-size 9", 1, "3"), ("--batch-size 2", 1, None), ("--batch-size 3", 1, None)]
    + [("--no-sync-batchnorm", 4, None), ("--sync-batchnorm", 4, "2")],
)
def test_accumulate_is_advised_where_it_can_be_typed(
    words: str, processes: int, parts: str | None
) -> None:
    options, team = parse_base_options(words.split()), Team(size=processes)
    settings = resolve.resolve_options(options, team)
    told = str(memory_short(MemoryError(), options, settings, None))
    assert (f" --accumulate {parts} " in told) if parts else ("--accumulate" not in told)
    if parts:
        given = parse_base_options([*words.split(), "--accumulate", parts])
        assert resolve.share_of_batch(given, team)


def test_what_makes_the_second_stage_smaller_is_advised() -> None:
    for words, ways in (
        ([], ["--batch-size", "--accumulate 2 ", "(now 2048)", "-sample-pixels (now 80000)"]),
        (["--model-refine-mode", "full"], ["--model-refine-mode sampling (now full)"]),
    ):
        options = parse_refine_options(words)
        told = str(memory_short(MemoryError(), options, SETTINGS, (1024, 2048)))
        assert all(way in told for way in ["at a crop of 1024x2048", *ways]), told
    told = str(memory_short(MemoryError(), parse_base_options([]), None, None))
    assert "--model-refine" not in told and "before the first batch" in told
