"""The order of samples: whole epochs, whole batches, and a function of seed and step alone."""

from collections import Counter

import pytest

from dataset.sampler import BatchSampler, batch_of_step, crop_of_step, seed_of, steps_per_epoch

ORDER = {"count": 21, "batch_size": 4, "seed": 5, "crop_size": (64, 200)}


def epoch(number: int, **order: object) -> list:
    steps = steps_per_epoch(order["count"], order["batch_size"])
    return [batch_of_step(number * steps + i, **order) for i in range(steps)]


@pytest.mark.parametrize("count", [21, 20, 4, 3, 1])
def test_an_epoch_holds_every_foreground_in_whole_batches(count: int) -> None:
    order = {**ORDER, "count": count}
    for number in (0, 7):
        batches = epoch(number, **order)
        assert {len(batch) for batch in batches} == {4}
        keys = [key for batch in batches for key in batch]
        assert sorted(key.index for key in keys[:count]) == list(range(count))
        assert all(key.epoch == number for key in keys)
        # What fills the last batch up is another draw: nowhere is one sample there twice.
        assert len({(key.index, key.draw) for key in keys}) == len(keys)


def test_every_epoch_has_an_order_of_its_own() -> None:
    orders = [tuple(k.index for batch in epoch(n, **ORDER) for k in batch) for n in range(5)]
    assert len(set(orders)) == 5
    assert epoch(0, **ORDER) != epoch(0, **{**ORDER, "seed": 6})


def test_a_later_start_gives_the_same_batches() -> None:
    assert list(BatchSampler(0, 14, **ORDER))[9:] == list(BatchSampler(9, 14, **ORDER))
    assert len(BatchSampler(9, 14, **ORDER)) == 5


def test_crops_are_new_for_every_batch_and_the_same_within_it() -> None:
    batches = list(BatchSampler(0, 500, **ORDER))
    for batch in batches:
        assert len({key.size for key in batch}) == 1
    sides = Counter(side for batch in batches for side in batch[0].size)
    assert sorted(sides) == [64, 128, 192]
    assert min(sides.values()) > 200  # of 333 expected each
    assert any(batch[0].size[0] != batch[0].size[1] for batch in batches)


@pytest.mark.parametrize(
    ("crop_size", "sides"),
    [
        ((256, 512), [256, 320, 384, 448, 512]),  # 25 shapes
        ((100, 300), [100, 164, 228, 292]),
        ((128, 256), [128, 192, 256]),
        ((128, 255), [128, 160, 192, 224]),  # with steps of 64 it would have two
        ((64, 96), [64, 96]),
        ((128, 128), [128]),
        ((33, 64), [33]),
    ],
)
def test_sides_are_few_and_begin_with_the_smallest(
    crop_size: tuple[int, int], sides: list[int]
) -> None:
    drawn = [crop_of_step(step, 3, crop_size) for step in range(300)]
    assert sorted({side for size in drawn for side in size}) == sides
    assert len(set(drawn)) == len(sides) ** 2


def test_sides_of_the_second_stage_are_multiples_of_64() -> None:
    """Of which a quarter, at which the base network runs, is one of 16."""
    drawn = {side for step in range(300) for side in crop_of_step(step, 3, (1024, 2048))}
    assert drawn == set(range(1024, 2049, 64))


def test_near_seeds_are_unrelated() -> None:
    seeds = [seed_of(1, 2, 3), seed_of(1, 23), seed_of(12, 3), seed_of(1, 3, 2), seed_of("1", 2, 3)]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
