"""What the host does beside the steps of a GPU, on a null one: copies, waits, threads, memory."""

from pathlib import Path

from tests.null_gpu import needs_null_gpu, run_code

pytestmark = needs_null_gpu


AUGMENTED = """
import json
from pathlib import Path
import torch
from torch.utils.data import DataLoader
from dataset.augmentation import augment
from dataset.folders import data_folders, open_split
from dataset.sample import MattingDataset, collate
from dataset.sample_loader import batches
from dataset.sampler import BatchSampler
from tests.null_cuda import counts

torch.cuda.set_device(0)
samples = MattingDataset(*open_split(data_folders("", Path({data!r}), print), "train"))
order = {{"count": len(samples), "batch_size": 8, "seed": 1, "crop_size": (64, 64)}}
loader = DataLoader(
    samples, batch_sampler=BatchSampler(0, 8, range(2), 2, **order), num_workers=1,
    collate_fn=collate, pin_memory=True,
)
found = []
for batch in batches(loader):
    before = counts.snap()
    torch.cuda.set_sync_debug_mode("error" if found else "default")
    augment(batch, torch.device("cuda", 0), torch.channels_last)
    torch.cuda.set_sync_debug_mode("default")
    counted = counts.diff(before, counts.snap())
    found.append([counted["pageable_h2d"], counts.waits(counted), counted["copies_h2d"],
        counted["event_waits"], counted["event_records"]])
print(json.dumps(found[1:]))
"""


def test_a_batch_goes_to_the_device_from_pinned_memory(data: Path) -> None:
    """Of micro-batches, too, and from a worker: one copy of each of its tensors, and none else.
    The stream that computes waits once for the one that copies; an event for each tensor tells when
    the first is done with memory that is the other's."""
    found = run_code(AUGMENTED.format(data=str(data)))
    assert len(found) == 15
    assert all(each == [0, 0, 13, 1, 1 + 13] for each in found), found


NORMALISED = """
import argparse, json, os
import torch
from torch import nn
from model import MattingBase
from model.refiner import Refiner
from tests.null_cuda import counts
from tests.support.operations import Operations
from training import team as distributed
from training.batch_norm import GlobalBatchNorm2d, over_all_processes

device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.cuda.set_device(device)
options = argparse.Namespace(dist_timeout=60)
team = distributed.with_device(distributed.join(options), device, options)
model = MattingBase("mobilenetv2").to(device, memory_format=torch.channels_last).train()
names, parameters = list(model.state_dict()), list(model.parameters())
norms = {each for each in model.modules() if isinstance(each, nn.BatchNorm2d)}
over_all_processes(model, team.device_group)
now = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
converted = (
    len(now) == len(norms)
    and all(type(each) is GlobalBatchNorm2d for each in now)
    and list(model.state_dict()) == names
    and all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
)
seen = set()
for each in now:
    if each.training:
        each.register_forward_hook(lambda module, x, y: seen.add((x[0].dtype == y.dtype,
            y.is_contiguous(memory_format=torch.channels_last))))
x = torch.zeros(2, 3, 64, 64, device=device).to(memory_format=torch.channels_last)
for step in range(2):
    model.seed_dropout([1, 2])
    before = counts.snap()
    torch.cuda.set_sync_debug_mode("error" if step else "default")
    with torch.autocast("cuda", dtype=torch.float16):
        outputs = model(x, x)
    sum(each.float().mean() for each in outputs).backward()
    torch.cuda.set_sync_debug_mode("default")
    counted = counts.diff(before, counts.snap())
with Operations() as operations:
    model(x, x)
counting = [of.name for of in operations.seen if any(x[1] == torch.int64 for x in of.inputs)]
# Of patches, the second process has none.
refiner = torch.nn.Sequential(Refiner())
over_all_processes(refiner, team.device_group)
refiner = refiner.to(device, memory_format=torch.channels_last).train()[0]
half, full = torch.zeros(2, 42, 16, 16, device=device), torch.zeros(2, 6, 32, 32, device=device)
chosen = torch.zeros(0 if team.rank else 5, 3, dtype=torch.int64, device=device)
for step in range(2):
    refiner.zero_grad()
    before = counts.snap()
    torch.cuda.set_sync_debug_mode("error" if step else "default")
    with torch.autocast("cuda", dtype=torch.float16):
        refined = refiner.patches([half], [full], chosen)
    refined.sum().backward()
    torch.cuda.set_sync_debug_mode("default")
    unequal = counts.diff(before, counts.snap())
patches = {
    "kinds": [type(each).__name__ for each in (refiner.bn1, refiner.bn2, refiner.bn3)],
    "waits": counts.waits(unequal), "pageable": unequal["pageable_h2d"],
    "exchanges": unequal["nccl"], "dtype": str(refined.dtype), "count": len(refined),
    "without gradient": [n for n, each in refiner.named_parameters() if each.grad is None],
}
every = [None, None]
torch.distributed.all_gather_object(every, patches, group=team.host_group)
print(json.dumps({
    "converted": converted, "waits": counts.waits(counted), "pageable": counted["pageable_h2d"],
    "exchanges": counted["nccl"], "norms": len(norms), "kept": sorted(seen),
    "counting": counting, "patches": every,
}))
"""


def test_batch_norm_over_all_processes_waits_for_nothing() -> None:
    found = run_code(NORMALISED, processes=2, devices=2)
    assert found["converted"] and found["norms"] == 60
    assert (found["waits"], found["pageable"]) == (0, 0)
    assert found["exchanges"] == 2 * found["norms"]
    assert found["kept"] == [[True, True]]  # dtype and layout of what went in
    assert found["counting"] == ["_foreach_add_"]  # of all layers at once
    for each, count in zip(found["patches"], (5, 0), strict=True):
        assert each == {
            "kinds": ["GlobalPatchNorm"] * 3,
            "waits": 0,
            "pageable": 0,
            "exchanges": 6,
            "dtype": "torch.float16",
            "count": count,
            "without gradient": [],
        }


SAVED = """
import json
from pathlib import Path
import torch
from tests.null_cuda import counts
from training import saving

device = torch.device("cuda", 1)
torch.cuda.set_device(device)
generator = torch.Generator().manual_seed(0)

def tensors():
    # Small: what is larger has no contents on the null GPU.
    of = [torch.randn(8, 6, 3, 3, generator=generator), torch.randn(5, generator=generator)]
    of += [torch.tensor(7), torch.zeros(0, 3), torch.randn(3, 4, generator=generator).half()]
    of[0] = of[0].to(memory_format=torch.channels_last)
    return {str(n): each.to(device) for n, each in enumerate(of)}

found, where = [], []
with saving.Saver(device) as saver:
    for number in range(3):
        weights, state = tensors(), {"optimizer": {"state": {0: tensors()}}, "list": [tensors()]}
        plain = [torch.utils._pytree.tree_map(
            lambda each: each.to("cpu") if torch.is_tensor(each) else each, value
        ) for value in (weights, state)]
        saving.write_checkpoint(Path("plain.pth"), *plain)
        before = counts.snap()
        saver.save(Path("saved.pth"), weights, state,
                   lambda: where.append(torch.cuda.current_device()), best=Path("best.pth"))
        weights["0"].zero_()  # the training goes on
        saver.wait()
        counted = counts.diff(before, counts.snap())
        same = all(
            Path(f"saved{end}").read_bytes() == Path(f"plain{end}").read_bytes()
            for end in (".pth", ".state.pth")
        )
        found.append([same] + [counted[name] for name in
            ("host_mallocs", "pageable_d2h", "event_syncs")])
print(json.dumps({"saves": found, "devices": where}))
"""


def test_a_save_is_of_one_pinned_block_and_the_same_file(tmp_path: Path) -> None:
    """Bit for bit, as from plain copies; the block serves later saves; the thread's GPU is the
    run's, and it waits until the copies have arrived."""
    found = run_code(SAVED, cwd=tmp_path, devices=2)
    assert found["saves"] == [[True, 1, 0, 1], [True, 0, 0, 1], [True, 0, 0, 1]], found
    assert found["devices"] == [1, 1, 1]


SHOWN = """
import json
from pathlib import Path
import torch
from torch.utils.tensorboard import SummaryWriter
from tests.null_cuda import counts
from training import journal

device = torch.device("cuda", 1)
torch.cuda.set_device(device)
where = set()
add_image = SummaryWriter.add_image
SummaryWriter.add_image = lambda *each: (where.add(torch.cuda.current_device()), add_image(*each))
names = ("src", "bgr", "true_pha", "pred_pha", "true_fgr", "pred_fgr", "composite", "pred_err")
shown = {name: torch.ones(8, 1 if "pha" in name else 3, 64, 64, device=device) for name in names}
found = []
with journal.Journal(Path("log"), 0, 10, 8, device=device) as log:
    for step in range(3):
        before = counts.snap()
        torch.cuda.set_sync_debug_mode("error")
        log.train_pictures(step, shown)
        torch.cuda.set_sync_debug_mode("default")
        log._beside.wait()
        counted = counts.diff(before, counts.snap())
        found.append([counted[name] for name in
            ("pageable_d2h", "bytes_d2h", "stream_syncs", "event_syncs")])
print(json.dumps({"found": found, "devices": list(where)}))
"""


def test_pictures_leave_the_device_without_a_wait(tmp_path: Path) -> None:
    """Five samples of each, as bytes, into pinned memory; the thread's GPU is the run's, and it
    waits until they have arrived."""
    found = run_code(SHOWN, cwd=tmp_path, devices=2)
    assert found["found"] == [[0, 5 * (2 * 1 + 6 * 3) * 64 * 64, 0, 1]] * 3, found
    assert found["devices"] == [1]


READING = """
import json, os, sys
from pathlib import Path
import evaluate, train_base
from dataset.sample import MattingDataset

read = MattingDataset.__getitems__

def noted(self, keys):
    with Path("niceness").open("a") as file:
        file.write(f"{{os.nice(0)}}\\n")
    return read(self, keys)

MattingDataset.__getitems__ = noted
data = ["--dataset-dir", {data!r}, "--num-workers", "1", "--device", "cuda"]
run = ["--model-backbone", "mobilenetv2", "--crop-size", "64", "64", "--batch-size", "4"]
statuses = [train_base.main([*data, *run, "--max-steps", "1", "--model-name", "run"])]
checkpoint = "checkpoint/run/epoch-0-iter-1.pth"
statuses.append(evaluate.main([*data, "--model-checkpoint", checkpoint, "--size", "64"]))
found = sorted(set(Path("niceness").read_text().split()))
print(json.dumps({{"own": os.nice(0), "statuses": statuses, "workers": found}}))
"""


def test_readers_come_behind_what_a_gpu_waits_for(data: Path, tmp_path: Path) -> None:
    found = run_code(READING.format(data=str(data)), cwd=tmp_path)
    assert found["statuses"] == [0, 0], found
    assert found["workers"] == [str(min(19, found["own"] + 5))]
