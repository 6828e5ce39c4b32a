"""The demo's numbers on arrays small enough to check by hand."""

from __future__ import annotations

import pytest
import torch

from demo.measure import dark_fraction, rises, saturation, shuffled
from demo.objective import add_noise, alphas_cumprod, min_snr_weights, stratified_timesteps, velocity
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


def test_velocity_gives_back_picture_and_noise() -> None:
    timesteps = torch.tensor([0, 500, 999])
    clean, noise = torch.randn(2, 3, 4, 2, 2)
    noisy, v = add_noise(clean, noise, timesteps), velocity(clean, noise, timesteps)
    squared = alphas_cumprod()[timesteps].view(-1, 1, 1, 1)
    a, s = squared.sqrt(), (1 - squared).sqrt()
    torch.testing.assert_close(a * noisy - s * v, clean)
    torch.testing.assert_close(s * noisy + a * v, noise)


def test_min_snr_weights_are_snr_over_snr_plus_one_where_noise_is_strong() -> None:
    t = torch.tensor([900])
    squared = alphas_cumprod()[t]
    torch.testing.assert_close(min_snr_weights(t), squared)  # snr / (snr + 1) = a^2
    assert min_snr_weights(torch.tensor([0])) < 0.01


def test_stratified_timesteps_cover_the_schedule() -> None:
    timesteps = stratified_timesteps(10)
    assert torch.equal(timesteps // 100, torch.arange(10))


def test_budget_ends_near_zero() -> None:
    fresh, late = Budget(10, warmup=0.02), Budget(10, spent=599)
    assert fresh.rate(1.0) < 0.01
    assert Budget(10, spent=60).rate(1.0) > 0.9
    assert late.rate(1.0) < 0.01
    assert Budget(10, spent=601).is_over


def test_core_odds() -> None:
    odds = core_odds([True, False, False, True], 0.8)
    torch.testing.assert_close(odds, torch.tensor([0.4, 0.1, 0.1, 0.4]))
