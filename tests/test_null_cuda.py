"""Scripts on a null GPU: what the host does for CUDA, on any machine. Numbers mean nothing here."""

from pathlib import Path

import pytest
from null_gpu import needs_null_gpu, run_code, run_script

pytestmark = needs_null_gpu


def train(data: Path, folder: Path, *arguments: object, devices: int = 1, status: int = 0, **named):
    argv = ["train_base.py", "--dataset-dir", data, "--model-name", "run", "--max-steps", 2]
    argv += ["--model-backbone", "mobilenetv2", "--crop-size", 64, 64, "--batch-size", 4]
    argv += ["--num-workers", 0, *arguments]
    done = run_script([str(word) for word in argv], folder, devices=devices, **named)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("asked", "device"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_each_way_to_ask_for_a_gpu_trains_on_it(
    data: Path, tmp_path: Path, asked: str, device: str
) -> None:
    done = train(data, tmp_path, "--device", asked, devices=2)
    assert done.stdout.startswith(f"run: mobilenetv2, fp16 on {device}\n")
    assert list((tmp_path / "checkpoint/run").glob("epoch-*.state.pth"))


def test_a_gpu_that_is_not_there_is_refused_in_a_line(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path, "--device", "cuda:7", devices=2, status=2)
    assert done.stderr == (
        "train_base.py: error: --device cuda:7 cannot be used here (CUDA error: invalid device "
        "ordinal); try cuda:0 to cuda:1, or cpu\n"
    )


def test_what_is_done_is_counted(tmp_path: Path) -> None:
    counted = run_code(
        """
import json, torch
from tests.null_cuda import counts
torch.ones(3, device="cuda")
pinned, pageable = torch.zeros(3).pin_memory(), torch.zeros(3)
before = counts.snap()
pinned.to("cuda", non_blocking=True)
on = pageable.to("cuda")
(on + 1)[0].item()
print(json.dumps(counts.diff(before, counts.snap())))
""",
        tmp_path,
    )
    assert (counted["copies_h2d"], counted["pageable_h2d"], counted["copies_d2h"]) == (2, 1, 1)
    assert (counted["launches"], counted["stream_syncs"]) == (1, 2)
