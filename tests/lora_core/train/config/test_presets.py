"""Presets: each works, stands under the user's own values, and is what TRAINING.md trusts."""

from __future__ import annotations

from typing import Any

import pytest

from lora_core.architectures import ARCHITECTURES
from lora_core.errors import UnknownNameError
from lora_core.train.config import PRESETS, TrainConfig, parse_config
from lora_core.train.config.effective import effective_rate, scale, scale_note
from lora_core.train.config.presets import preset_for, preset_values

PURPOSES = ("style", "subject", "character")


def config(preset: str = "", **values: Any) -> TrainConfig:
    return parse_config({"preset": preset, "model": {"base": "a/b"}, "data": {"folder": "p"}} | values)


@pytest.mark.parametrize("name", PRESETS)
def test_a_base_and_pictures_are_enough_for_each(name: str):
    made = config(name)

    assert made.preset == name
    assert made.model.base == "a/b"
    assert PRESETS[name].title


def test_there_is_one_for_each_purpose_of_each_architecture():
    names = [name.rsplit("-", 1) for name in PRESETS if name.endswith(PURPOSES)]

    assert sorted(purpose for model, purpose in names if model == "sdxl") == sorted(PURPOSES)
    assert {model for model, _ in names} == {"sd15", "sd21", "sdxl", "flux", "dit", "loom_demo"}
    assert {model for model, _ in names} - {"dit"} <= set(ARCHITECTURES.names)


def test_the_users_own_values_win_key_by_key():
    made = config(
        "sdxl-character",
        network={"rank": 8, "block_ranks": {"mid": 4}},
        data={"folder": "p", "resolution": 768},
    )

    assert (made.network.rank, made.network.alpha) == (8, 16.0)
    assert made.network.block_ranks == {"mid": 4}
    assert made.data.resolution == (768, 768)
    assert made.data.caption_dropout == 0.05, "the preset's"


def test_a_copy_may_be_changed():
    preset_values("sdxl-style")["network"]["rank"] = 1
    assert config("sdxl-style").network.rank == 32


def test_trusted_values():
    sd15, sdxl, flux = config("sd15-subject"), config("sdxl-subject"), config("flux-subject")

    assert (sd15.network.rank, sd15.run.batch, sd15.data.resolution) == (16, 4, (512, 512))
    assert not sd15.text_encoder.train
    assert (scale(sdxl.network), sdxl.objective.weighting, sdxl.objective.gamma) == (0.5, "min_snr", 5.0)
    assert sdxl.run.precision == "bf16"
    assert flux.objective.timesteps == "logit_normal"
    assert {made.optimizer.learning_rate for made in (sd15, sdxl, flux)} == {1e-4}


def test_the_papers_settings():
    made = config("paper")

    assert (made.network.rank, made.network.alpha, made.network.start) == (4, 4.0, "gaussian")
    assert made.network.targets == ("to_q", "to_k", "to_v", "to_out.0")


@pytest.mark.parametrize(
    ("network", "optimizer", "factor"),
    [
        ({"rank": 16, "alpha": 8}, {}, 0.5),
        ({"rank": 16}, {}, 1.0),
        ({"rank": 16, "alpha": 8, "rslora": True}, {}, 2.0),
        ({"rank": 16, "alpha": 8}, {"name": "sgd"}, 0.25),
        ({"rank": 16, "type": "oft"}, {}, 1.0),
    ],
)
def test_alpha_changes_the_learning_rate_that_counts(network: Any, optimizer: Any, factor: float):
    made = config(network=network, optimizer=optimizer | {"learning_rate": 1e-3})
    assert effective_rate(made.network, made.optimizer) == pytest.approx(factor * 1e-3, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_effective_rate_is_what_torch_does(optimizer: str):
    """One step from up = 0: the change of a weight at scale s and rate r is that at scale 1 and the effective rate."""
    import torch

    def change(alpha: float, rate: float) -> torch.Tensor:
        torch.manual_seed(0)
        down = torch.randn(4, 6, dtype=torch.float64)
        up = torch.zeros(5, 4, dtype=torch.float64, requires_grad=True)
        steps: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        step = steps[optimizer]([up], lr=rate)
        inputs, wanted = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
        ((inputs @ (alpha / 4 * up @ down).T - wanted) ** 2).mean().backward()
        step.step()
        return (alpha / 4 * up @ down).detach()

    made = config(network={"rank": 4, "alpha": 1}, optimizer={"name": optimizer, "learning_rate": 1e-2})
    # AdamW's eps is 1e-8 beside gradients of 0.01 and more: 1e-6 of each factor; the sums are about 1e-2.
    torch.testing.assert_close(
        change(1, 1e-2), change(4, effective_rate(made.network, made.optimizer)), rtol=1e-5, atol=1e-8
    )


def test_the_note_says_it_in_words():
    made = config("sdxl-subject")
    assert scale_note(made.network, made.optimizer) == (
        "alpha 8 / rank 16: the change is scaled by 0.5, so learning rate 0.0001 acts as 5e-05 would at scale 1"
    )
    rslora = config(network={"rslora": True, "alpha": 4})
    assert "alpha 4 / sqrt(rank 16): the change is scaled by 1; with half the alpha" in scale_note(
        rslora.network, rslora.optimizer
    )
    assert "finds its own" in scale_note(config("sdxl-prodigy").network, config("sdxl-prodigy").optimizer)
    assert scale_note(config(network={"type": "oft"}).network, made.optimizer) == ""


@pytest.mark.parametrize(
    ("architecture", "prediction", "preset"),
    [
        ("sd15", "epsilon", "sd15-style"),
        ("sdxl", "epsilon", "sdxl-style"),
        ("sdxl_refiner", "epsilon", "sdxl-style"),
        ("segmind_vega", "epsilon", "sdxl-style"),
        ("own_0123456789ab", "v", "sdxl-style"),
        ("own_0123456789ab", "flow", "dit-style"),
        ("flux_schnell", "flow", "flux-style"),
        ("flux2", "flow", "dit-style"),
        ("lumina2", "flow", "dit-style"),
        ("loom_demo", "v", "loom_demo-style"),
    ],
)
def test_every_family_has_a_preset(architecture: str, prediction: str, preset: str):
    assert preset_for(architecture, "style", prediction) == preset


def test_a_purpose_that_is_none_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match="style"):
        preset_for("sd15", "stile")
