"""Samples and batches of a data set, as tests of augmentation want them."""

from pathlib import Path

from dataset.folders import data_folders, open_split
from dataset.sample import MattingDataset, collate
from dataset.sample_loader import batches
from dataset.sampler import SampleKey


def samples(folder: Path, **options: object) -> MattingDataset:
    return MattingDataset(*open_split(data_folders("", folder, print), "train"), **options)


def batch_of(dataset: MattingDataset, count: int = 8, side: int = 64, epoch: int = 0) -> dict:
    keys = [
        SampleKey(epoch, i % len(dataset), i // len(dataset), (side, side)) for i in range(count)
    ]
    return next(batches([collate([dataset[key] for key in keys])]))
