"""What reading from tar files costs, beside the same pictures as files of their own.

    python -m benchmarks.shards            # about 3 minutes
    python -m benchmarks.shards --quick    # under a minute: whether it runs, not what is true

Reading and decoding are measured on one core, in turns with the same pictures as files, all of it
in the system's memory: what is compared is the program, not a disk. Opening is measured with tars
that have names and places but no pictures, so that a million fit anywhere.
"""

import ctypes
import gc
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import arguments, draw_data, in_turns, machine, said_of, spread, table, write
from common.machine import keep_memory
from dataset import shard
from dataset.folders import data_folders, open_split
from dataset.names import Names
from dataset.pictures import find_pairs, open_picture
from dataset.sample import MattingDataset
from dataset.sampler import SampleKey
from dataset.tar import open_tars
from dataset.tar_index import BLOCK_BYTES, Index, scan, write_index

SIZE = (512, 512)
TARS = 100  # in which a million names lie
PARTS = {  # and the digits to show
    "read": ("reading the bytes of the three pictures", 2),
    "header": ("reading their headers alone", 2),
    "decode": ("reading and decoding them in full", 1),
    "worker": ("the worker's part: reading, decoding at the smallest scale, cutting", 1),
}


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "benchmarks/results/shards.json")
    options = parser.parse_args(argv)
    count, rounds, names = (4, 3, 2_000) if options.quick else (16, 15, 2_000_000)
    folder = draw_data(options.data, count)
    cores = sorted(os.sched_getaffinity(0))
    about = machine(torch.device("cpu"))
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="shards-", dir=folder.parent) as scratch:
        shard.pack(folder, Path(scratch, "packed"), 50_000_000)
        torch.set_num_threads(1)
        keep_memory()  # as train_base.py does
        os.sched_setaffinity(0, cores[:1])
        try:
            figures = one_core({"files": folder, "tars": Path(scratch, "packed")}, count, rounds)
        finally:
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(threads)
        # In a process of its own, whose memory is that of this alone.
        code = f"from benchmarks.shards import opening; opening({scratch!r}, {names})"
        done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
        keys = "names", "seconds", "mb_held", "us_to_find", "scanned_a_second"
        figures["opening"] = dict(zip(keys, map(float, done.stdout.split()), strict=True))
    print(report(figures))
    write(options.json, {"machine": about, "quick": options.quick, **figures})


def one_core(places: dict[str, Path], count: int, rounds: int) -> dict:
    """Milliseconds of processor time for a sample's three pictures, and how many times as long the
    tars take as the files."""
    datasets = {
        name: MattingDataset(*open_split(data_folders("", folder, print), "train"))
        for name, folder in places.items()
    }
    keys = [SampleKey(0, index, 0, SIZE) for index in range(count)]
    works = {}
    for name, dataset in datasets.items():
        parts = dataset.foregrounds, dataset.backgrounds
        triples = [(*parts[0].paths(i), parts[1].path(i)) for i in range(count)]
        pictures = [path for triple in triples for path in triple]
        works[f"read {name}"] = over(pictures, read)
        works[f"header {name}"] = over(pictures, header)
        works[f"decode {name}"] = over(pictures, decode_in_full)
        works[f"worker {name}"] = over(keys, dataset.__getitem__)
    seconds = in_turns(works, rounds, warm_up=1)
    ms = {name: [value * 1000 / count for value in values] for name, values in seconds.items()}
    ratios = {}
    for part in PARTS:
        turns = zip(ms[f"{part} files"], ms[f"{part} tars"], strict=True)
        ratios[part] = spread([tars / files for files, tars in turns])
    return {
        "ms": {name: spread(values) for name, values in ms.items()},
        "tars_over_files": ratios,
        "samples": count,
        "rounds": rounds,
    }


def over(items: list, work: Callable) -> Callable:
    return lambda: [work(item) for item in items]


def read(path: object) -> None:
    with path.open("rb") if isinstance(path, Path) else path.open() as file:
        while file.read(1 << 16):  # as much as Pillow takes at once
            pass


def header(path: object) -> None:
    open_picture(path).close()


def decode_in_full(path: object) -> None:
    with open_picture(path) as picture:
        picture.load()


def opening(scratch: str, names: int) -> None:
    """Prints the number of names, the seconds that opening and pairing them takes, the megabytes
    that stay taken, the microseconds in which a pair is found by its number, and the members a
    second at which a tar without index is looked through; all of processor time."""
    folder = Path(scratch, "many")
    folder.mkdir()
    step, each = 100 * BLOCK_BYTES, names // TARS // 2
    for number in range(TARS):
        stems = [f"clip{number:03}/some-name/{i:08}" for i in range(each)]
        members = [f"{kind}/{stem}" for stem in stems for kind in ("fgr", "pha")]
        offsets = BLOCK_BYTES + step * np.arange(len(members))
        path = folder / f"{number:05}.tar"
        path.touch()
        os.truncate(path, int(offsets[-1]) + step)  # a hole: all headers are zeros
        empty = np.full(len(members), zlib.crc32(bytes(BLOCK_BYTES)))
        names_there = Names(f"{name}.jpg" for name in members)
        write_index(path, Index(int(offsets[-1]) + step, names_there, offsets, offsets * 0, empty))
    del stems, members, names_there
    before = held()
    began = time.process_time()
    found = open_tars(folder, ("fgr", "pha", "rgba"), print)
    pairs = find_pairs(found["fgr"], found["pha"], check_headers=False)
    seconds = time.process_time() - began
    taken = held() - before
    chosen = range(0, len(pairs), max(1, len(pairs) // 10_000))
    began = time.process_time()
    for index in chosen:
        pairs.paths(index)
    found_us = (time.process_time() - began) * 1e6 / len(chosen)
    del found, pairs

    path = Path(scratch, "one.tar")
    with tarfile.open(path, "w") as archive:
        for number in range(max(100, names // 100)):
            info = tarfile.TarInfo(f"fgr/{number:08}.jpg")
            info.size = 5
            archive.addfile(info, io.BytesIO(b"bytes"))
    began = time.process_time()
    scanned = len(scan(path).names) / (time.process_time() - began)
    print(names, seconds, taken / 1e6, found_us, scanned)


def held() -> int:
    """Bytes of memory that this process has, without those that its C library keeps for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None or not Path("/proc/self/statm").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def report(figures: dict) -> str:
    head = ["of one sample, on one core", "ms from files", "ms from tars", "tars over files"]
    rows = []
    for part, (text, digits) in PARTS.items():
        places = [said_of(figures["ms"][f"{part} {place}"], digits) for place in ("files", "tars")]
        rows.append([text, *places, said_of(figures["tars_over_files"][part], 2)])
    opened = figures["opening"]
    return (
        f"{table(head, rows)}\n\n"
        f"{opened['names']:.0f} names in {TARS} tars: {opened['seconds']:.1f} s of processor to "
        f"open and pair, {opened['mb_held']:.0f} MB held, {opened['us_to_find']:.0f} microseconds "
        f"to find a pair; without an index, {opened['scanned_a_second']:.0f} members a second are "
        "looked through"
    )


if __name__ == "__main__":
    main()
