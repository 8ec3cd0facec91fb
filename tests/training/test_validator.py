"""What a validation measures: the alpha, and beside it the coarse one of outputs that have one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluation import metrics
from model.matting_base import Outputs
from model.matting_refine import Refined, resize
from training import validator
from training.journal import Journal
from training.team import Team
from training.validator import figures, measure

CPU = torch.device("cpu")
BASE = ["loss", "alpha", "mad", "mse", "grad"]
COARSE = ["coarse_mad", "coarse_mse", "coarse_grad"]


def base_outputs(src: Tensor) -> Outputs:
    return Outputs(src[:, :1], src, src[:, 1:2], None)


def refined(src: Tensor) -> Refined:
    small = resize(src, (src.shape[2] // 4, src.shape[3] // 4))
    quarter = small[:, :1]
    return Refined(src[:, :1], src, quarter, small, quarter, quarter)


def batches_of(sizes: list[int]) -> list[dict]:
    torch.manual_seed(1)
    return [{"src": torch.rand(count, 3, 32, 48)} for count in sizes]


def measured(monkeypatch: pytest.MonkeyPatch, outputs_of: Any, **options: Any) -> Any:
    def augment(batch: dict, *_rest: object) -> tuple[Tensor, ...]:
        src = batch["src"]
        return src, src, src[:, 2:], src

    def losses(_model: object, src: Tensor, *truth: Tensor) -> tuple[Any, dict[str, Tensor]]:
        outputs = outputs_of(src)
        return outputs, {"alpha": (outputs.pha - truth[1]).abs().mean()}

    monkeypatch.setattr(validator, "augment", augment)
    model = torch.nn.Linear(1, 1)
    return measure(
        model, options.pop("loader"), losses, device=CPU, layout=torch.contiguous_format, **options
    )


def test_the_coarse_alpha_is_measured_at_the_full_size_beside_the_refined_one() -> None:
    src = torch.rand(2, 3, 32, 48)
    outputs, true_pha = refined(src), src[:, 2:]
    found = figures(outputs, true_pha)
    assert list(found) == BASE[2:] + COARSE
    enlarged = resize(outputs.pha_sm, (32, 48))
    for name in BASE[2:]:
        of = getattr(metrics, name)
        assert found[name] == of(outputs.pha, true_pha).mean()
        assert found[f"coarse_{name}"] == of(enlarged, true_pha).mean() != found[name]
    assert list(figures(base_outputs(src), true_pha)) == BASE[2:]
    assert list(figures(outputs, true_pha, conn=True)) == [*BASE[2:], "conn", *COARSE]


@pytest.mark.parametrize(("outputs_of", "names"), [(base_outputs, BASE), (refined, BASE + COARSE)])
def test_the_means_are_of_all_samples_and_named_by_what_there_is(
    monkeypatch: pytest.MonkeyPatch, outputs_of: Any, names: list[str]
) -> None:
    loader = batches_of([3, 1])
    means, shown, count = measured(monkeypatch, outputs_of, loader=loader)
    assert (list(means), count) == (names, 4)
    src = torch.cat([batch["src"] for batch in loader])
    assert means["mad"] == pytest.approx(metrics.mad(src[:, :1], src[:, 2:]).mean().item())
    assert ("zoom_pred_pha_sm" in shown) == (outputs_of is refined)
    assert measured(monkeypatch, outputs_of, loader=[]) == ({}, {}, 0)


def test_a_process_without_samples_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are the main process's, whose sums are added to its own nothing."""
    of_main, sent = batches_of([2]), []
    expected, _, _ = measured(monkeypatch, refined, loader=of_main)

    def all_reduce(_team: Team, sums: Tensor) -> Tensor:
        sent.append(sums.clone())
        return torch.tensor([*(2 * value for value in expected.values()), 2.0])

    monkeypatch.setattr(Team, "run_on_main", lambda *_: list(expected))
    monkeypatch.setattr(Team, "all_reduce_sum", all_reduce)
    means, _, count = measured(monkeypatch, refined, loader=[])
    assert count == 2 and means == pytest.approx(expected)
    assert [sums.tolist() for sums in sent] == [[0.0] * (len(BASE + COARSE) + 1)]


RESULTS = {"loss": 1.0, "alpha": 0.5, "mad": 12.3, "mse": 2.0, "grad": 3.0}


@pytest.mark.parametrize(
    ("coarse", "said"),
    [
        ({}, "MAD 12.30  MSE 2.00  (x1000)  Grad 3.00"),
        (
            dict(zip(COARSE, (15.1, 4.0, 5.0), strict=True)),
            "MAD 12.30 (coarse 15.10)  MSE 2.00 (coarse 4.00)  (x1000)  Grad 3.00 (coarse 5.00)",
        ),
    ],
)
def test_the_coarse_figures_are_told_where_there_are_some(
    tmp_path: Path, capsys: pytest.CaptureFixture, coarse: dict[str, float], said: str
) -> None:
    with Journal(tmp_path, 0, 10, 8) as journal:
        shown = {
            name: torch.zeros(1, 3, 8, 8) for name in ("src", "true_pha", "pred_pha", "composite")
        }
        journal.validation(0, 0, RESULTS | coarse, shown)
    assert said in capsys.readouterr().out
    head = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert head.split(",") == ["start", "step", "epoch", "conn", *RESULTS, *coarse]


def test_the_best_is_that_of_the_refined_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    results = iter([(9.0, 1.0), (5.0, 8.0), (6.0, 0.5)])

    def found(*_rest: object, **_named: object) -> tuple[dict, dict, int]:
        mad, coarse = next(results)
        return {"mad": mad, "coarse_mad": coarse}, {}, 1

    monkeypatch.setattr(validator, "measure", found)
    monkeypatch.setattr(validator, "make_loader", lambda *_, **__: [])
    options = SimpleNamespace(
        crop_size=[8, 8], dry_run=False, on_bad_image="stop", valid_conn=False
    )
    stop = SimpleNamespace(until=lambda read: read)
    run = SimpleNamespace(step=0, crop=None, team=Team(), device=CPU, layout=None, stop=stop)
    run.options, run.settings = options, SimpleNamespace(micro_batch_size=1)
    state = SimpleNamespace(model=None, best=None)
    data = SimpleNamespace(valid=([1], [1]), epoch_steps=1)
    journal = SimpleNamespace(say=print, validation=lambda *_: None)
    made = validator.Validator(run, state, data, None, journal)
    assert [made.validate(step) for step in (1, 2, 3)] == [True, True, False]
    assert state.best == {"step": 2, "mad": 5.0}
