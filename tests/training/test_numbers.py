"""Numbers that go bad: found before they move a weight, named, and kept to be looked at."""

from pathlib import Path

import pytest
import torch

from common.machine import ADAM_ARGUMENTS
from dataset.augmentation import augment
from tests.support.running import run, weights
from training.checkpoint_folder import CheckpointFolder
from training.guarded_optimizer import DivergedError, GuardedOptimizer, loss_scaler
from training.loss import matting_loss

pytestmark = pytest.mark.usefixtures("tiny_network")


def spoil_loss(monkeypatch: pytest.MonkeyPatch, step: int, term: str, value: float) -> None:
    calls = []

    def spoilt(*arguments: torch.Tensor) -> dict[str, torch.Tensor]:
        terms = matting_loss(*arguments)
        calls.append(torch.is_grad_enabled() and not torch.is_inference_mode_enabled())
        return {**terms, term: terms[term] * value} if sum(calls) == step else terms

    monkeypatch.setattr("training.loss.matting_loss", spoilt)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_in_a_loss_term(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    run(data, "--max-steps", 2, "--model-name", "good")
    spoil_loss(monkeypatch, 3, "gradient", value)
    run(data, "--max-steps", 4, status=2)
    error, last = capsys.readouterr().err.strip().splitlines()[-2:]
    assert "step 3: the loss is not finite (alpha 0." in error and f"gradient {value}," in error
    assert "bad-batch.pt" in error and "clip0/0000.jpg" in error and "backgrounds/train" in error
    assert "--model-last-checkpoint auto" in last
    # The checkpoint before it is that of a run to which nothing happened.
    saved = [path.name for path in CheckpointFolder(Path("checkpoint/run")).checkpoints()]
    assert saved == ["epoch-0.pth"]
    one, other = weights("checkpoint/run/epoch-0.pth"), weights("checkpoint/good/epoch-0.pth")
    assert all(torch.equal(one[name], other[name]) for name in one)

    kept = torch.load("log/run/bad-batch.pt", weights_only=True)
    assert kept["step"] == 3 and kept["src"].shape == (4, 3, *kept["batches"][0]["size"])
    again = augment(kept["batches"][0], torch.device("cpu"))
    assert torch.equal(again[0], kept["src"])


def test_in_a_picture(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def spoilt(*arguments: object) -> tuple[torch.Tensor, ...]:
        src, *others = augment(*arguments)
        calls.append(not torch.is_inference_mode_enabled())
        if sum(calls) >= 2:
            src[0, 0, 5, 5] = float("nan")
        return src, *others

    monkeypatch.setattr("dataset.augmentation.augment", spoilt)
    monkeypatch.setattr("training.guarded_optimizer.augment", spoilt)
    run(data, "--max-steps", 4, status=2)
    assert "step 2: the loss is not finite" in capsys.readouterr().err
    kept = torch.load("log/run/bad-batch.pt", weights_only=True)["src"]
    assert kept.isnan().sum() == 1 and kept[0, 0, 5, 5].isnan()
    assert not list(Path("checkpoint/run").glob("*.pth"))  # running statistics have seen it


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(3, 4)
        self.two = torch.nn.Linear(4, 1)


@pytest.fixture
def batch(data: Path) -> dict:
    from dataset.folders import data_folders, open_split
    from dataset.sample import MattingDataset, collate
    from dataset.sampler import SampleKey

    samples = MattingDataset(*open_split(data_folders("", data, print), "train"))
    return collate([samples[SampleKey(0, 0, 0, (32, 32))]])


def taking(
    model: Small, precision: str, folder: Path | None = None, **options: object
) -> GuardedOptimizer:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, **ADAM_ARGUMENTS["cpu"])
    scaler = loss_scaler(torch.device("cpu"), precision)
    options = {"clip": None, "precision": precision, "folder": folder, **options}
    return GuardedOptimizer(model, optimizer, scaler, **options)


def same(model: Small, before: dict) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_in_a_gradient(precision: str, bad: float, batch: dict) -> None:
    """3e38 is finite, and the norm of all gradients is not."""
    model = Small()
    taken = taking(model, precision)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss = model.two.bias.sum()
    taken.backward({"alpha": loss})
    model.one.weight.grad = torch.zeros(4, 3)
    model.one.weight.grad[1, 1] = bad
    taken.step()
    assert same(model, before)
    with pytest.raises(DivergedError, match=r"step 7: the gradient's norm is not finite .alpha"):
        taken.check_later(7, [batch])
    taken.backward({"alpha": model.two.bias.sum()})  # and a good one moves
    taken.step()
    taken.check_later(8, [batch])
    assert not same(model, before)


def test_a_loss_that_is_not_finite_moves_nothing(batch: dict) -> None:
    """Even where its gradient is: that of |x| at infinity is 1."""
    model = Small()
    taken = taking(model, "fp32")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    taken.backward({"alpha": (model.two.bias + float("inf")).abs().sum()})
    taken.step()
    assert same(model, before)


def test_in_fp16_a_step_is_skipped_and_fifty_in_a_row_stop(batch: dict) -> None:
    model = Small()
    taken = taking(model, "fp16")
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def step(number: int, overflows: bool) -> None:
        loss = model.two.bias.sum()
        taken.backward({"alpha": loss})
        model.one.weight.grad = torch.full((4, 3), float("inf") if overflows else 0.0)
        taken.step()
        taken.check_later(number, [batch])

    for number in range(1, 50):
        step(number, True)
        assert taken.scaler.get_scale() == 65536.0 / 2**number
    assert same(model, before)
    step(50, False)  # one that goes well: counted anew
    assert not same(model, before)
    for number in range(51, 100):
        step(number, True)
    with pytest.raises(DivergedError, match="step 100: the gradient overflowed in 50 steps"):
        step(100, True)
    taken.backward({"alpha": model.two.bias.sum() * float("nan")})
    with pytest.raises(DivergedError, match="the loss is not finite"):  # a lower scale cannot help
        taken.check_later(101, [batch])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_is_that_of_torch(precision: str) -> None:
    torch.manual_seed(0)
    ours, theirs = Small(), Small()
    theirs.load_state_dict(ours.state_dict())
    taken = taking(ours, precision, clip=0.7)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1)
    for _ in range(3):
        x = torch.randn(5, 3)
        taken.backward({"alpha": ours.two(ours.one(x)).square().sum()})
        taken.step()
        theirs.two(theirs.one(x)).square().sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.7)
        optimizer.step()
        optimizer.zero_grad()
        assert norm > 0.7
        torch.testing.assert_close(taken.norm, norm)  # before clipping
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_parts_of_a_batch_add_up_to_its_gradient(precision: str, batch: dict) -> None:
    torch.manual_seed(0)
    whole, split = Small(), Small()
    split.load_state_dict(whole.state_dict())
    one, other = taking(whole, precision), taking(split, precision, accumulate=3)
    x = torch.randn(12, 3)

    def terms(model: Small, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = model.two(model.one(x))
        return {"alpha": y.square().mean(), "gradient": y.abs().mean()}

    one.backward(terms(whole, x))
    for part in x.chunk(3):
        other.backward(terms(split, part))
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for taken in (one, other):
        taken.step()
        taken.check_later(1, [batch])
    torch.testing.assert_close(one.norm, other.norm)
    for name in ("alpha", "gradient"):
        torch.testing.assert_close(one.terms[name], other.terms[name])


def test_clipping_is_off_unless_asked_for(data: Path, here: Path) -> None:
    run(data, "--max-steps", 2)
    run(data, "--max-steps", 2, "--model-name", "wide", "--clip-grad-norm", 1e9)
    run(data, "--max-steps", 2, "--model-name", "tight", "--clip-grad-norm", 1e-8)
    plain, wide, tight = (
        weights(f"checkpoint/{name}/epoch-0.pth") for name in ("run", "wide", "tight")
    )
    assert all(torch.equal(plain[name], wide[name]) for name in plain)
    assert not torch.equal(plain["decoder.conv1.weight"], tight["decoder.conv1.weight"])


def test_an_earlier_bad_batch_is_kept(batch: dict, tmp_path: Path) -> None:
    model = Small()
    taken = taking(model, "fp32", tmp_path)
    for step in (1, 2, 3):
        taken.backward({"alpha": model.two.bias.sum() * float("nan")})
        with pytest.raises(DivergedError):
            taken.check_later(step, [batch])
    names = ("bad-batch.pt", "bad-batch-2.pt", "bad-batch-3.pt")
    kept = [torch.load(tmp_path / name, weights_only=True)["step"] for name in names]
    assert kept == [1, 2, 3]


def test_where_the_batch_cannot_be_kept_the_rest_is_said(batch: dict, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    model = Small()
    taken = taking(model, "fp32", tmp_path / "log")
    taken.backward({"alpha": model.two.bias.sum() * float("nan")})
    with pytest.raises(DivergedError, match=r"step 4: .* could not be kept .*0000.jpg"):
        taken.check_later(4, [batch])
