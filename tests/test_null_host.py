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
