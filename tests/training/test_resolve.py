"""What the machine and the processes make of the options that were left open."""

import argparse
from pathlib import Path

import pytest
import torch

from common import processes
from common.errors import OptionError
from training.resolve import choose_sync_batchnorm, own_device, share_of_batch
from training.team import Team


def options(**values: object) -> argparse.Namespace:
    standard = {"batch_size": 8, "accumulate": 1, "sync_batchnorm": None, "num_workers": 0}
    return argparse.Namespace(**(standard | values))


def test_a_batch_is_shared_out_equally_or_refused() -> None:
    assert share_of_batch(options(batch_size=24, accumulate=3), Team(size=4)) == 2
    with pytest.raises(OptionError, match=r"4 process\(es\) .* make 4 parts; type --batch-size 12"):
        share_of_batch(options(batch_size=11), Team(size=4))
    with pytest.raises(OptionError, match=r"--batch-size 8$"):
        share_of_batch(options(batch_size=2), Team(size=8))
    with pytest.raises(OptionError, match="batch norm needs"):
        share_of_batch(options(batch_size=4, accumulate=4), Team())
    with pytest.raises(OptionError, match="batch norm needs"):
        share_of_batch(options(batch_size=4, sync_batchnorm=False), Team(size=4))
    assert share_of_batch(options(batch_size=4), Team(size=4)) == 1  # over all processes


@pytest.mark.parametrize(
    ("batch", "size", "asked", "synced"),
    [
        (8, 1, None, False),
        (8, 2, None, True),
        (16, 2, None, False),
        (16, 2, True, True),
        (8, 2, False, False),
        (8, 1, True, False),
    ],
)
def test_batch_norm_is_over_all_where_a_process_has_few(
    batch: int, size: int, asked: bool | None, synced: bool
) -> None:
    given = options(batch_size=batch, sync_batchnorm=asked)
    assert choose_sync_batchnorm(given, Team(size=size)) is synced


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(OptionError, match=r"process 2 has no GPU of its own: 3 processes .* 2;"):
        own_device("cuda", Team(rank=2, size=3, local_rank=2, local_size=3))
    with pytest.raises(OptionError, match="one GPU for 2 processes; type cuda"):
        own_device("cuda:1", Team(rank=1, size=2, local_rank=1, local_size=2))


@pytest.mark.parametrize(
    ("share", "usable"), [("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("?", 8)]
)
def test_a_container_s_share_of_processors_is_all_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: str, usable: int
) -> None:
    (tmp_path / "cpu.max").write_text(share + "\n")
    monkeypatch.setattr(processes, "CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _process: range(8))
    assert processes.usable_processors() == usable
