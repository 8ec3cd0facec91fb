"""A sample is the same to the last bit, whichever process or thread makes it, and with whom."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dataset import augmentation
from dataset.augmentation import augment
from dataset.sample import MattingDataset, collate
from dataset.sample_loader import batches
from dataset.sampler import BatchSampler, SampleKey
from dataset.threads import map_in_threads
from tests.support.running import torch_threads
from tests.support.samples import batch_of, samples

CPU = torch.device("cpu")


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_bits_for_any_number_of_workers(data: Path, workers: int) -> None:
    def run(workers: int) -> list[Tensor]:
        order = {"count": 6, "batch_size": 4, "seed": 3, "crop_size": (64, 96)}
        loader = DataLoader(
            samples(data, seed=3),
            batch_sampler=BatchSampler(2, 6, **order),
            num_workers=workers,
            collate_fn=collate,
        )
        return [tensor for batch in batches(loader) for tensor in augment(batch, CPU)]

    torch.manual_seed(workers)  # the global generator must not matter
    for one, other in zip(run(0), run(workers), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("places", [(4, 8), (3, 8), (1, 2, 3, 4, 5, 6, 7, 8)])
def test_a_sample_is_the_same_to_the_last_bit_in_every_batch(
    data: Path, places: tuple[int, ...]
) -> None:
    """Which others are in it, how many, and how large their pictures are: as where several
    processes share a global batch."""
    dataset = samples(data, seed=5)
    keys = [SampleKey(2, i % 6, i // 6, (96, 128)) for i in range(8)]
    every = [dataset[key] for key in keys]
    assert len({sample["bgr"].shape for sample in every}) > 4
    whole = augment(collate(every), CPU)
    starts = (0, *places[:-1])
    parts = [augment(collate(every[a:b]), CPU) for a, b in zip(starts, places, strict=True)]
    for output, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(output, torch.cat(pieces))


def test_a_sample_is_the_same_to_the_last_bit_with_any_number_of_threads(data: Path) -> None:
    """Processes that share a machine have fewer of them: torchrun gives each one."""
    batch, results = batch_of(samples(data, seed=6), count=12, side=160), []
    for count in (1, 2, 3):
        with torch_threads(count):
            results.append(augment(batch, CPU))
    for outputs in zip(*results, strict=True):
        assert all(torch.equal(outputs[0], each) for each in outputs)


def test_the_layout_is_the_one_asked_for_and_changes_no_bit(data: Path) -> None:
    batch = batch_of(samples(data, seed=6))
    for plain, output in zip(
        augment(batch, CPU), augment(batch, CPU, torch.channels_last), strict=True
    ):
        assert plain.is_contiguous() and output.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(plain, output)


@pytest.mark.parametrize("source", ["data", "packed"])
def test_without_workers_as_many_threads_as_torch_has_decode_the_same_batch(
    source: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = samples(request.getfixturevalue(source))
    keys = [SampleKey(0, index % 6, index // 6, (64, 64)) for index in (2, 0, 5, 1, 11, 6, 3, 8)]
    alone = collate([dataset[key] for key in keys])
    one, together, seen = MattingDataset.__getitem__, threading.Barrier(2, timeout=10), set()

    def meet(self: MattingDataset, key: SampleKey) -> object:
        seen.add(threading.get_ident())
        together.wait()  # for another sample's thread
        return one(self, key)

    monkeypatch.setattr(MattingDataset, "__getitem__", meet)
    with torch_threads(2):
        loader = DataLoader(dataset, batch_sampler=[keys], num_workers=0, collate_fn=collate)
        (batch,) = batches(loader)
    assert len(seen) == 2 and threading.get_ident() not in seen
    assert list(batch) == list(alone)
    for name, value in alone.items():
        same = torch.equal(batch[name], value) if torch.is_tensor(value) else batch[name] == value
        assert same, name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_makes_threads_of_its_own(data: Path) -> None:
    dataset, keys = samples(data), [SampleKey(0, index, 0, (32, 32)) for index in range(4)]
    with torch_threads(2):
        dataset.__getitems__(keys)
        child = multiprocessing.get_context("fork").Process(
            target=dataset.__getitems__, args=[keys]
        )
        child.start()
        child.join(30)
    code = child.exitcode
    child.kill()
    assert code == 0


def test_threads_take_part_in_inference_and_pass_errors_on() -> None:
    seen = {}

    def note(place: int) -> None:
        seen[place] = torch.get_num_threads(), torch.is_inference_mode_enabled()
        if place == 2:
            raise MemoryError("of the third")

    with torch_threads(2):
        with torch.inference_mode(), pytest.raises(MemoryError, match="of the third"):
            map_in_threads(note, [(0,), (1,), (2,)])
        map_in_threads(note, [(0,), (1,)])
    with torch_threads(6):
        map_in_threads(note, [(3,), (4,)])
        assert torch.get_num_threads() == 6
    assert seen == {0: (1, False), 1: (1, False), 2: (1, True), 3: (3, False), 4: (3, False)}


def test_all_at_once_gives_what_one_by_one_gives(data: Path) -> None:
    """The way of a GPU, tried on the CPU."""
    batch = batch_of(samples(data, seed=1), count=12, side=96)
    at_once = augmentation.augment_batch(batch, CPU)
    for one, other in zip(augment(batch, CPU), at_once, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
