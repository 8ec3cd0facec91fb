"""What the host does beside the steps of a GPU, on a null one: copies, waits, threads, memory."""

from pathlib import Path

from null_gpu import needs_null_gpu, run_code

pytestmark = needs_null_gpu


AUGMENTED = """
import json
from pathlib import Path
import torch
from torch.utils.data import DataLoader
from dataset.augmentation import augment
from dataset.folders import data_folders, open_half
from dataset.matting import MattingDataset, batches, collate
from dataset.sampler import BatchSampler
from tests.null_cuda import counts

torch.cuda.set_device(0)
samples = MattingDataset(*open_half(data_folders("", Path({data!r}), print), "train"))
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
    found.append([counted["pageable_h2d"], counts.waits(counted), counted["copies_h2d"]])
print(json.dumps(found[1:]))
"""


def test_a_batch_goes_to_the_device_from_pinned_memory(data: Path) -> None:
    """Of micro-batches, too, and from a worker: one copy of each of its tensors, and none else."""
    found = run_code(AUGMENTED.format(data=str(data)))
    assert len(found) == 15
    assert all(each == [0, 0, 13] for each in found), found


NORMALISED = """
import argparse, json, os
import torch
from torch import nn
from model import MattingBase
from tests.null_cuda import counts
from training import distributed
from training.batch_norm import GlobalBatchNorm2d, over_all_processes

device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.cuda.set_device(device)
options = argparse.Namespace(dist_timeout=60)
team = distributed.with_device(distributed.join(options), device, options)
model = MattingBase("mobilenetv2").to(device, memory_format=torch.channels_last).train()
names, parameters = list(model.state_dict()), list(model.parameters())
norms = {each for each in model.modules() if isinstance(each, nn.BatchNorm2d)}
over_all_processes(model, team.tensors)
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
print(json.dumps({
    "converted": converted, "waits": counts.waits(counted), "pageable": counted["pageable_h2d"],
    "exchanges": counted["nccl"], "norms": len(norms), "kept": sorted(seen),
}))
"""


def test_batch_norm_over_all_processes_waits_for_nothing() -> None:
    found = run_code(NORMALISED, processes=2, devices=2)
    assert found["converted"] and found["norms"] == 60
    assert (found["waits"], found["pageable"]) == (0, 0)
    assert found["exchanges"] == 2 * found["norms"]
    assert found["kept"] == [[True, True]]  # dtype and layout of what went in
