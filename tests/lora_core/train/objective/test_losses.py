"""The loss of each picture."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn.functional import mse_loss

from host_waits import NoHostWaits
from lora_core.train.config import ObjectiveSection
from lora_core.train.noise_schedule import DiscreteSchedule, FlowSchedule
from lora_core.train.objective import WEIGHTINGS, Draw, losses

ABAR = torch.linspace(0.999, 0.005, 1000)
SCHEDULE = DiscreteSchedule(ABAR)
RANDOM = torch.Generator().manual_seed(0)
TARGET, PREDICTION = (torch.randn(3, 4, 8, 8, generator=RANDOM) for _ in range(2))
DRAW = Draw(TARGET, TARGET, torch.tensor([10, 500, 990]), TARGET, TARGET)
ERROR = PREDICTION - TARGET


def loss(mask: torch.Tensor | None = None, **settings) -> torch.Tensor:
    return losses(ObjectiveSection(**settings), SCHEDULE, PREDICTION, DRAW, mask)


def test_l2_is_the_mean_squared_error_of_each_picture():
    expected = mse_loss(PREDICTION, TARGET, reduction="none").mean((1, 2, 3))

    torch.testing.assert_close(loss(), expected)
    torch.testing.assert_close(loss(loss="l1"), ERROR.abs().mean((1, 2, 3)))


def test_huber_is_squared_for_small_errors_and_straight_for_large_ones():
    small, large = 1e4, 1e-4  # of delta, so that errors near 1 are small or large against it

    # Differences of numbers near 1e4 keep 3 digits; those at 1e-4 differ from the limit by delta.
    torch.testing.assert_close(loss(loss="smooth_l1", huber_delta=large), 2 * loss(loss="l1"), rtol=1e-3, atol=0)
    torch.testing.assert_close(loss(loss="huber", huber_delta=large), 2 * large * loss(loss="l1"), rtol=1e-3, atol=0)
    torch.testing.assert_close(loss(loss="huber", huber_delta=100.0), loss(), rtol=1e-2, atol=0)
    assert loss(loss="huber", huber_delta=small).isfinite().all()


@pytest.mark.parametrize("kind", ["huber", "smooth_l1"])
@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
def test_hubers_delta_follows_the_timestep(kind, schedule):
    """Pseudo-Huber of Khrapov et al. 2024, written out."""
    snr = ABAR[DRAW.timesteps] / (1 - ABAR[DRAW.timesteps])
    delta = {
        "constant": torch.full((3,), 0.1),
        "exponential": 0.1 ** (DRAW.timesteps / 1000),
        "snr": (1 - 0.1) / (1 + 1 / snr.sqrt()) ** 2 + 0.1,
    }[schedule].view(-1, 1, 1, 1)
    expected = 2 * (torch.sqrt(ERROR**2 + delta**2) - delta) * (delta if kind == "huber" else 1)

    torch.testing.assert_close(loss(loss=kind, huber_schedule=schedule), expected.mean((1, 2, 3)))


def test_a_mask_leaves_only_what_it_covers_whatever_its_size():
    mask = torch.zeros(3, 1, 8, 8)
    mask[:, :, 2:4, 5:6] = 1

    torch.testing.assert_close(loss(mask), ERROR[:, :, 2:4, 5:6].square().mean((1, 2, 3)))
    torch.testing.assert_close(loss(torch.ones(3, 1, 8, 8)), loss())
    torch.testing.assert_close(loss(mask * 0.5), loss(mask))


def test_an_empty_mask_is_no_loss_and_no_nan():
    assert loss(torch.zeros(3, 1, 8, 8)).tolist() == [0, 0, 0]


def test_half_precision_predictions_are_compared_in_float32():
    made = losses(ObjectiveSection(), SCHEDULE, PREDICTION.bfloat16(), DRAW, None)

    assert made.dtype == torch.float32
    torch.testing.assert_close(made, (PREDICTION.bfloat16().float() - TARGET).square().mean((1, 2, 3)))


def test_min_snr_with_l2_is_the_loss_of_diffusers_script():
    snr = ABAR[DRAW.timesteps] / (1 - ABAR[DRAW.timesteps])
    expected = mse_loss(PREDICTION, TARGET, reduction="none").mean((1, 2, 3)) * snr.clamp_max(5) / snr

    torch.testing.assert_close(loss(weighting="min_snr", gamma=5.0), expected)


def test_gradients_are_finite_where_the_prediction_is_exact():
    prediction = TARGET.clone().requires_grad_()
    for kind, mask in product(("l2", "l1", "huber", "smooth_l1"), (None, torch.ones(3, 1, 8, 8))):
        losses(ObjectiveSection(loss=kind), SCHEDULE, prediction, DRAW, mask).sum().backward()

        assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("weighting", ["none", *WEIGHTINGS])
@pytest.mark.parametrize("huber", ["constant", "exponential", "snr"])
@pytest.mark.parametrize("schedule", [SCHEDULE, FlowSchedule()])
def test_nothing_waits_for_the_device(weighting, huber, schedule):
    section = ObjectiveSection(loss="huber", huber_schedule=huber, weighting=weighting)

    with NoHostWaits():
        losses(section, schedule, PREDICTION, DRAW, torch.ones(3, 1, 8, 8))
