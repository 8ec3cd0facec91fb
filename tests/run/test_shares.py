"""What each process of several is given: its parts of the same batches, and of validation."""

import argparse
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from dataset.augmentation import augment
from dataset.folders import data_folders, open_split
from dataset.sample import MattingDataset, collate, validation_keys
from dataset.sample_loader import batches, begin_worker
from dataset.sampler import BatchSampler, places_of
from model.dropout import SampleDropout
from tests.support.drawn import make_data
from training import team as distributed
from training.team import Team


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("many"), train=12, valid=5)


def options(**values: object) -> argparse.Namespace:
    standard = {"batch_size": 8, "accumulate": 1, "sync_batchnorm": None, "num_workers": 0}
    return argparse.Namespace(**(standard | values))


def seen(data: Path, processes: int, accumulate: int, workers: int) -> list[tuple]:
    """The augmented global batches of three steps, put together from the parts."""
    dataset = MattingDataset(*open_split(data_folders("", data, print), "train"))
    count = processes * accumulate
    order = {"count": len(dataset), "batch_size": 8, "seed": 3, "crop_size": (32, 96)}
    steps = []
    for rank in range(processes):
        parts = range(rank * accumulate, (rank + 1) * accumulate)
        loader = DataLoader(
            dataset,
            batch_sampler=BatchSampler(4, 7, parts, count, **order),
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=begin_worker,
        )
        steps.append([augment(batch, torch.device("cpu")) for batch in batches(loader)])
    whole = []
    for step in range(3):
        parts = [each for of in steps for each in of[step * accumulate : (step + 1) * accumulate]]
        whole.append(tuple(torch.cat(values) for values in zip(*parts, strict=True)))
    return whole


@pytest.mark.parametrize(
    ("processes", "accumulate", "workers"),
    [(2, 1, 0), (4, 1, 1), (4, 2, 0), (1, 2, 3), pytest.param(2, 2, 3, marks=pytest.mark.slow)],
)
def test_a_global_batch_is_the_same_however_it_is_shared_out(
    many: Path, processes: int, accumulate: int, workers: int
) -> None:
    one = seen(many, 1, 1, 0)
    other = seen(many, processes, accumulate, workers)
    for expected, got in zip(one, other, strict=True):
        assert len(expected[0]) == 8
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_a_samples_dropout_does_not_depend_on_its_batch() -> None:
    dropout = SampleDropout(0.5).train()
    x = torch.randn(4, 64, 6, 6)
    dropout.seeds = [5, 6, 7, 8]
    whole = dropout(x)
    dropout.seeds = [7, 8]
    assert torch.equal(whole[2:], dropout(x[2:]))
    kept = whole != 0
    assert 0.4 < kept.float().mean() < 0.6 and not torch.equal(kept[0], kept[1])
    assert torch.equal(whole[kept], 2 * x[kept])
    assert torch.equal(dropout.eval()(x), x)


def test_the_parts_make_up_the_batch() -> None:
    assert [place for part in range(6) for place in places_of(part, 6, 18)] == list(range(18))


def test_validation_is_shared_out_without_repeats() -> None:
    keys = validation_keys(11, 3, 50, (32, 32))
    for size in (1, 2, 3, 4, 7, 64):
        shares = [Team(rank=rank, size=size).shard(keys) for rank in range(size)]
        assert [key for share in shares for key in share] == keys
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_first_process_shows_what_was_validated(count: int) -> None:
    """It alone writes pictures, of its own share: which is empty only where there is nothing."""
    for size in range(1, 9):
        shares = [Team(rank=rank, size=size).shard(list(range(count))) for rank in range(size)]
        assert shares[0] and [item for share in shares for item in share] == list(range(count))


@pytest.mark.parametrize("asked", [None, 10])
def test_what_is_lost_is_said_before_nccl_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, asked: int | None
) -> None:
    asked_for = {}
    monkeypatch.setattr(distributed, "_group", asked_for.setdefault)
    team = Team(size=2, host_group=object())
    for device in ("cuda:0", "cpu"):
        distributed.with_device(team, torch.device(device), options(dist_timeout=asked))
    longest = max(asked or each for each in distributed.DEFAULT_TIMEOUTS_S)
    assert asked_for["nccl"] > timedelta(seconds=longest)
    assert asked_for["gloo"] == timedelta(seconds=asked or distributed.DEFAULT_TIMEOUTS_S[1])
