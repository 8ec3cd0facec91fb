"""Whether two versions of the program train the same weights, to the last bit, on a CPU.

python tests/same_bits.py DIR COMMIT [DATA_SET]

DIR: the sources of one version, such as this folder. COMMIT: the other version, taken from the
repository in DIR. DATA_SET: a folder as --dataset-dir reads it; by default one is drawn. Runs both
from scratch, from a transfer, continued, with --accumulate 2, with 2 workers and in two processes,
and compares every tensor of weights and states. Status 1 where one differs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

RUN = (
    "--model-backbone mobilenetv2 --crop-size 64 64 --batch-size 4 --device cpu "
    "--log-valid-interval 2 --max-steps 4"
)
RUNS = {
    "scratch": "--num-workers 0",
    "transfer": "--num-workers 0 --model-pretrain-initialization {start}",
    "accumulate": "--num-workers 0 --accumulate 2",
    "workers": "--num-workers 2",
    "processes": "--num-workers 0",
    "half": "--num-workers 0 --max-steps 2",
    "continued": "--num-workers 0 --model-last-checkpoint {half}",
}


def tensors(value: object, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    if not isinstance(value, (dict, list)):
        return {}
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, each in inner for k, v in tensors(each, f"{name}/{key}").items()}


def train(sources: Path, folder: Path, data: str, start: Path) -> None:
    for name, arguments in RUNS.items():
        half = folder / "checkpoint/half/epoch-0-iter-2.pth"
        half = half if half.exists() else folder / "checkpoint/half/epoch-0.pth"
        words = f"{RUN} --model-name {name} {arguments.format(start=start, half=half)}".split()
        python = [sys.executable]
        if name == "processes":
            python += ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command = [*python, str(sources / "train_base.py"), *words, *data.split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{sources}: {' '.join(words)}:\n{done.stderr}")


def main(directory: str, commit: str, data_set: str | None = None) -> int:
    sources = Path(directory).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        here, there, other = (Path(temporary) / name for name in ("new", "old", "sources"))
        git = ["git", "-C", str(sources), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", other, commit], check=True)
        try:
            data = f"--dataset-dir {Path(data_set).resolve()}" if data_set else ""
            sys.path.insert(0, str(sources))
            from model import MattingBase

            start = Path(temporary) / "start.pth"
            torch.save(MattingBase("mobilenetv2").state_dict(), start)
            for place, folder in ((sources, here), (other, there)):
                folder.mkdir()
                train(place, folder, data, start)
        finally:
            subprocess.run([*git, "remove", "--force", other], check=True)
        unlike = 0
        files = sorted(path.relative_to(here) for path in here.glob("checkpoint/*/*.pth"))
        assert files == sorted(path.relative_to(there) for path in there.glob("checkpoint/*/*.pth"))
        for path in files:
            one, two = (tensors(torch.load(each / path)) for each in (here, there))
            bad = [name for name in one if name not in two or not torch.equal(one[name], two[name])]
            bad += [name for name in two if name not in one]
            unlike += bool(bad)
            print(f"{path}: {len(one)} tensors, {len(bad)} unlike {bad[:3] or ''}")
    print("the same bits" if not unlike else f"{unlike} files differ")
    return int(unlike > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
