"""The demo's numbers on arrays small enough to check by hand."""

from __future__ import annotations

import pytest
import torch

from demo.checks import SETS, loss_checks, sets_of_pictures
from demo.measure import dark_fraction, rises, saturation, shuffled
from demo.schedule import Budget
from demo.train_base import core_odds


def picture(*pixels: tuple[float, float, float]) -> torch.Tensor:
    """Equal vertical stripes of the colours, (1, 3, 64, 64) in [-1, 1]."""
    stripes = torch.tensor(pixels).T.repeat_interleave(64 // len(pixels), dim=1)
    return (stripes[:, None, :].expand(3, 64, 64) * 2 - 1)[None]


def test_dark_fraction_and_saturation() -> None:
    black, white, red = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0)
    image = picture(black, white, red, white)
    assert dark_fraction(image) == pytest.approx(0.25)
    assert saturation(image) == pytest.approx(0.25)
    assert dark_fraction(picture(white)) == 0
    assert saturation(picture(black)) == 0


def test_shuffled_moves_every_caption() -> None:
    for n in (2, 3, 7):
        captions = [str(i) for i in range(n)]
        assert sorted(shuffled(captions)) == captions
        assert all(a != b for a, b in zip(captions, shuffled(captions), strict=True))


def test_rises() -> None:
    assert rises([1, 2, 3])
    assert not rises([1, 1])


def test_budget_ends_near_zero() -> None:
    fresh, late = Budget(10, warmup=0.02), Budget(10, spent=599)
    assert fresh.rate(1.0) < 0.01
    assert Budget(10, spent=60).rate(1.0) > 0.9
    assert late.rate(1.0) < 0.01
    assert Budget(10, spent=601).is_over


def test_core_odds() -> None:
    odds = core_odds([True, False, False, True], 0.8)
    torch.testing.assert_close(odds, torch.tensor([0.4, 0.1, 0.1, 0.4]))


def test_no_lora_was_trained_on_what_it_is_measured_on() -> None:
    from demo.train_loras import NAMES, settings
    from lora_core.train.data import TrainingData

    seen = set[str]()
    for name in NAMES:
        config = settings(name)
        data = TrainingData.open(config.data, config.validation, seed=0, size_step=8, latent_step=8)
        style = "high_contrast" if name == "style" else "flat"
        samples = [sample for step in range(data.epoch_size) for sample in data.samples(step, 4)]
        trained = {data.pictures[sample.picture].path.name for sample in samples if not sample.prior}
        assert len(trained) == {"style": 285, "content": 76}[name]
        seen |= {f"{style}/{file}" for file in trained}
    # What the content LoRA is shown so that it leaves it alone, the base was trained on itself.
    for name, items in sets_of_pictures().items():
        assert items
        assert not seen & {f"{item.path.parent.name}/{item.path.name}" for item in items}, name


def losses(**means: dict[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    """All sets with the same losses, but for those that are given."""
    usual = {"base": 1.0, "style": 0.5, "content": 0.5, "stack": 0.25}
    usual |= {f"{name}, shuffled": 2.0 for name in usual}
    return {name: {model: {"mean": mean} for model, mean in (usual | means.get(name, {})).items()} for name in SETS}


def test_checks_hold_where_losses_are_as_they_should_be() -> None:
    checks = loss_checks(losses())
    assert len(checks) == 6
    assert all(checks.values())


@pytest.mark.parametrize(
    ("what", "model", "mean"),
    [
        ("style", "style", 1.0),
        ("content", "content", 1.1),
        ("both", "stack", 0.5),
        ("both", "style", 0.2),
        ("flat", "base, shuffled", 0.9),
    ],
)
def test_one_wrong_loss_is_one_check_that_fails(what: str, model: str, mean: float) -> None:
    checks = loss_checks(losses(**{what: {model: mean}}))
    assert list(checks.values()).count(False) == 1
