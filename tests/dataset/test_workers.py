"""The processes that read pictures: how a batch leaves them, and machines with little room."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import check_data
from common.processes import WORKER_NICENESS
from dataset import hand_over, sample_loader, workers
from dataset.folders import data_folders, open_split
from dataset.hand_over import Parcel
from dataset.sample import MattingDataset, collate
from dataset.sample_loader import SampleLoader, batches, begin_worker
from dataset.sampler import BatchSampler
from tests.support import ROOT
from tests.support.drawn import make_data
from tests.support.running import error_of, has_little_shm, run, same, weights
from training import team as distributed

pytestmark = pytest.mark.usefixtures("tiny_network")


def loader(data: Path, count: int, **more: object) -> DataLoader:
    foregrounds, backgrounds = open_split(data_folders("", data, print), "train")
    sampler = BatchSampler(
        0, 4, range(1), 1, count=len(foregrounds), batch_size=2, seed=0, crop_size=(32, 64)
    )
    return DataLoader(
        MattingDataset(foregrounds, backgrounds),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=count,
        worker_init_fn=begin_worker,
        **more,
    )


def equal(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said once a program is said again."""
    monkeypatch.setattr(workers, "_said", set())


@pytest.mark.parametrize(
    "method",
    [
        method if method == "fork" else pytest.param(method, marks=pytest.mark.slow)
        for method in multiprocessing.get_all_start_methods()
    ],
)
def test_a_worker_s_batch_is_the_program_s_own(data: Path, method: str) -> None:
    own = list(batches(loader(data, 0)))
    handed = list(batches(loader(data, 2, multiprocessing_context=method)))
    assert len(own) == len(handed) == 4
    assert all(map(equal, own, handed))


def test_there_are_no_more_workers_than_batches(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch to validate on must not cost a fork for each core."""
    begun, fit = [], workers.workers_that_fit
    monkeypatch.setattr(
        sample_loader, "workers_that_fit", lambda n, say: begun.append(n) or fit(n, say)
    )
    run(data, "--max-steps", 2, "--num-workers", 5)
    assert begun == [1, 2, 1]  # validation, training, validation
    assert len(list(batches(loader(data, 9)))) == 4 and begun[3:] == [4]


class Niceness(torch.utils.data.Dataset):
    def __getitem__(self, _index: int) -> int:
        return os.nice(0)

    def __len__(self) -> int:
        return 1


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no niceness here")
def test_workers_come_behind_a_program_that_a_gpu_waits_for() -> None:
    own = os.nice(0)
    for on_gpu, more in ((True, WORKER_NICENESS), (False, 0)):
        begin = partial(begin_worker, on_gpu=on_gpu)
        read = DataLoader(Niceness(), num_workers=1, worker_init_fn=begin, collate_fn=list)
        assert [each for batch in read for each in batch] == [min(19, own + more)]
    assert os.nice(0) == own


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="torch's own way here")
@pytest.mark.parametrize("refused", [False, True])
def test_no_tensor_goes_through_dev_shm(
    data: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(1, "Operation not permitted")

    own = list(batches(loader(data, 0)))
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", fail)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", fail)
    if refused:  # as a sandbox may: then it is a file of the folder for temporary ones
        monkeypatch.setattr(os, "memfd_create", fail)
    assert all(map(equal, own, batches(loader(data, 1, timeout=20))))


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="torch's own way here")
def test_a_parcel_holds_any_nest_of_tensors() -> None:
    content = {
        "empty": torch.empty(0, 3),
        "one": torch.tensor(7),
        "nest": [{"bf16": torch.rand(3, 5).to(torch.bfloat16)}, torch.arange(6).view(2, 3).T],
        "bool": torch.tensor([True, False, True]),
        "words": ["a", 1, None],
    }
    function, arguments = Parcel(content).__reduce__()
    came = function(*arguments)
    assert came["words"] == content["words"] and came["nest"][0]["bf16"].dtype == torch.bfloat16
    for one, other in (
        *((content[name], came[name]) for name in ("empty", "one", "bool")),
        (content["nest"][0]["bf16"], came["nest"][0]["bf16"]),
        (content["nest"][1], came["nest"][1]),
    ):
        assert torch.equal(one, other) and one.shape == other.shape


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="torch's own way here")
def test_what_cannot_be_handed_over_is_a_line_and_nothing_is_waited_for(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hand_over, "_unnamed_file", full)
    run(data, "--max-steps", 1, "--num-workers", 2, status=2)
    error = error_of(capsys)
    assert "No space left on device: /dev/shm" in error
    assert "--shm-size" in error and "--num-workers 0" in error


@pytest.mark.parametrize(
    ("pages", "fit"), [(8 + 3 * 16, 16), (8 + 3 * 16 - 1, 15), (16, 2), (10, 0), (0, 0)]
)
def test_as_many_workers_as_semaphores_have_room_for(
    monkeypatch: pytest.MonkeyPatch, unsaid: None, pages: int, fit: int
) -> None:
    system = os.statvfs_result((4096, 4096, 1000, pages, pages, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: system)
    said: list[str] = []
    assert workers.workers_that_fit(16, said.append) == fit
    assert workers.workers_that_fit(16, said.append) == fit
    assert workers.workers_that_fit(0, said.append) == 0
    assert len(said) == (fit < 16)  # once
    assert all("/dev/shm" in line and "--shm-size" in line for line in said)


def test_as_many_workers_as_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, unsaid: None
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(os, "listdir", lambda _path: ["fd"] * 20)
    said: list[str] = []
    for limit, fit in ((256, 16), (64, 2), (20, 0)):
        monkeypatch.setattr(resource, "getrlimit", lambda _what, limit=limit: (limit, limit))
        assert workers.workers_that_fit(16, said.append) == fit
    assert "ulimit -n" in said[0] and "2 of 16 workers read" in said[0]


def test_more_workers_than_processors_are_said_once_and_not_by_torch(
    data: Path, monkeypatch: pytest.MonkeyPatch, unsaid: None, recwarn: pytest.WarningsRecorder
) -> None:
    pairs, backgrounds = open_split(data_folders("", data, print), "train")
    monkeypatch.setattr(workers, "usable_processors", lambda: 1)
    monkeypatch.setattr(torch._utils, "cpu_count", lambda: 1)  # where torch looks
    many = SampleLoader(MattingDataset(pairs, backgrounds), 3, False, sampler=range(6))
    said: list[str] = []
    for count in (1, 3, 3):
        workers.say_crowded(count, said.append)
    assert said == ["note: 3 workers share 1 processor"]
    many.check_worker_number_rationality()
    assert not [str(each.message) for each in recwarn if "worker" in str(each.message)]


def test_fewer_workers_give_the_same_batches(
    data: Path, monkeypatch: pytest.MonkeyPatch, unsaid: None, capsys: pytest.CaptureFixture
) -> None:
    own = list(batches(loader(data, 0)))
    for fit in (1, 0):
        monkeypatch.setattr(workers, "_room_for_files", lambda fit=fit: (fit, f"of {fit}"))
        asked = loader(data, 2)
        assert all(map(equal, own, batches(asked))) and asked.num_workers == 2
    told = capsys.readouterr().out
    assert "warning: 1 of 2 workers read the pictures, since of 1" in told
    assert "warning: the program itself reads the pictures, since of 0" in told


def test_workers_that_cannot_start_are_a_line(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_process: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
    run(data, "--max-steps", 1, "--num-workers", 2, status=2)
    assert (
        "processes that read pictures cannot start: Too many open files: type ulimit -n 1024"
        in (error_of(capsys))
    )


@pytest.mark.parametrize("error", [28, 24])
def test_without_room_for_a_pool_data_are_drawn_all_the_same_and_a_check_is_a_line(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    error: int,
) -> None:
    from dataset.demo import make_demo

    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    counts = {"train": 1, "valid": 1, "backgrounds_train": 1, "backgrounds_valid": 1}
    make_demo(tmp_path / "demo", counts=counts, workers=2)
    assert (tmp_path / "demo" / "demo.json").exists()
    monkeypatch.setattr("checking.look.PICTURES_PER_CHUNK", 1)
    monkeypatch.chdir(tmp_path)
    assert check_data.main(["--dataset-dir", str(data), "--num-workers", "2"]) == 2
    told = capsys.readouterr().err
    assert f"processes that read pictures cannot start: {os.strerror(error)}: " in told
    assert ("/dev/shm" in told) == (error == 28)


def test_who_waits_for_a_worker_is_told_what_it_does() -> None:
    said: list[str] = []
    told, asleep = (
        threading.Event(),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE),
    )

    def say(line: str) -> None:
        said.append(line)
        told.set()

    with workers.watched([asleep.pid], say, after=0.05) as waiting, waiting():
        assert told.wait(60)
    asleep.communicate(b"\n")
    assert "a batch of pictures has been waited for since" in said[0]
    assert f"process {asleep.pid}, which reads pictures, " in said[0]


def test_nothing_is_said_while_batches_come() -> None:
    said: list[str] = []
    with workers.watched([], said.append, after=3600) as waiting:
        for _ in range(3):
            with waiting():
                pass
    assert not said


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")
def test_a_picture_that_is_open_is_named(data: Path) -> None:
    path = next(data.glob("train/fgr/*/*.jpg"))
    with path.open("rb"):
        assert f"the program computes, with {path} open" in workers.doing(os.getpid())
    assert "cannot be looked at" in workers.doing(2**22 + 1)


def trained(tmp: Path, data: Path, prefix: str = "", count: int = 2, *more: str) -> str:
    return (
        f"cd {tmp} && {prefix} exec timeout -s KILL 150 {sys.executable} {ROOT}/train_base.py "
        f"--dataset-dir {data} --model-backbone mobilenetv2 --crop-size 32 64 --batch-size 4 "
        f"--num-workers {count} --max-steps 2 --device cpu --model-name run {' '.join(more)}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_run_is_the_same_however_workers_start(
    data: Path, packed: Path, here: Path, method: str
) -> None:
    """Windows and macOS spawn them; Linux forks them, with Python 3.14 from a server."""
    run(data, "--max-steps", 2, "--model-name", "own")
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        run(data, "--max-steps", 2, "--num-workers", 1)
        run(packed, "--max-steps", 2, "--num-workers", 2, "--model-name", "packed")
    finally:
        multiprocessing.set_start_method(before, force=True)
    own, *others = (weights(f"checkpoint/{name}/epoch-0.pth") for name in ("own", "run", "packed"))
    assert all(same(own, other) for other in others)


@pytest.mark.slow
@pytest.mark.published
@pytest.mark.parametrize("size", ["4k", "64k", "64m"])
def test_a_small_dev_shm_is_trained_with(data: Path, here: Path, size: str) -> None:
    done = has_little_shm(trained(here, data), size)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("warning: " in done.stdout and "/dev/shm is full" in done.stdout) == (size != "64m")
    run(data, "--max-steps", 2, "--model-name", "own")
    one, other = (weights(f"checkpoint/{name}/epoch-0.pth") for name in ("run", "own"))
    assert same(one, other)


@pytest.mark.slow
def test_sixteen_workers_need_no_more_than_256_open_files(data: Path, here: Path) -> None:
    command = trained(here, data, "ulimit -n 256;", 16)
    done = subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ulimit" not in done.stdout


def test_a_dev_shm_that_is_too_small_for_nccl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    lost = distributed.contact_lost(
        RuntimeError(
            "NCCL error in: NCCLUtils.cpp:77, unhandled system error\nLast error:\nError while "
            "creating shared memory segment /dev/shm/nccl-x (size 9637888)"
        ),
        0,
    )
    assert "exchange gradients in start-up: /dev/shm is too small" in str(lost)
    assert "--shm-size" in str(lost)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGKILL"])
def test_no_process_outlives_check_data(tmp_path: Path, name: str) -> None:
    own = make_data(tmp_path / "own")
    for number in range(10_000):  # more than it can look at in the time
        os.link(own / "backgrounds/train/0.jpg", own / f"backgrounds/train/{number}x.jpg")
    command = [sys.executable, ROOT / "check_data.py", "--dataset-dir", own, "--num-workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 3:  # two workers, and multiprocessing's tracker
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(getattr(signal, name))  # to it alone
    _, err = process.communicate(timeout=30)  # which waits for all that hold its output
    if name == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + getattr(signal, name)
        assert err.decode().strip() == "check_data.py: stopped"
