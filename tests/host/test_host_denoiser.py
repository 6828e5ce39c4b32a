"""The host's MODEL, CLIP and VAE as the engine's model: the same losses as through diffusers, and nothing left behind.

No server: one process of the host's Python trains the demo model in several ways, and says what it saw.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import small_runs
from host_harness import reduced_models
from host_harness.environment import HostEnvironment
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.loop import train

pytestmark = pytest.mark.host

# Runs that are made through both: name -> sections. All see two captions in a batch.
RUNS: dict[str, dict[str, Any]] = {
    "denoiser": {"network": {"targets": "attention+ff+proj+conv", "conv_rank": 2}, "run": {"steps": 6}},
    "text": {
        "network": {"targets": "attention"},
        "text_encoder": {"train": True, "learning_rate": 1e-3},
        "data": {"caption_dropout": 0.3, "latents": "mean"},
        "run": {"steps": 4},
    },
    "words": {
        "tokens": {"names": ["<s1>", "<s2>"], "start": ["heart", "<rand-0.02>"], "steps": 2, "keep_training": True},
        "data": {"trigger": "<s1> <s2>"},
        "network": {"targets": "attention"},
        "run": {"steps": 4},
    },
    "objective": {
        "objective": {"weighting": "min_snr", "noise_offset": 0.1},
        "network": {"start": "pissa", "targets": "attention"},
    },
}

CODE = Path(__file__).with_name("inside_denoiser.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("host_denoiser")


@pytest.fixture(scope="module")
def said(
    comfy_environment: HostEnvironment, repository: Path, folder: Path, flux_reduced: reduced_models.FlowModel
) -> dict[str, Any]:
    runs = {name: small_runs.settings(folder, **sections) for name, sections in RUNS.items()}
    clip_l, t5 = reduced_models.flux_text_reduced()
    flux = {"model": flux_reduced.model, "vae": flux_reduced.vae, "clip_l": clip_l, "t5": t5}
    files = {**{name: str(path) for name, path in flux.items()}, "options": reduced_models.T5_OPTIONS}
    output = comfy_environment.run_code(
        CODE.read_text("utf-8"), str(repository), str(folder), json.dumps(runs), json.dumps(files)
    )
    return json.loads(output.strip().splitlines()[-1])


@pytest.mark.parametrize("name", RUNS)
def test_each_step_has_the_loss_that_it_has_through_diffusers(name: str, said: dict[str, Any], folder: Path):
    """Scaling, schedule, conditions, batches, start values, order of data: one that is wrong would show."""
    theirs = small_runs.config(folder, f"diffusers/{name}", **RUNS[name])
    demo = DiffusersDenoiser.load(theirs.model)
    train(theirs, denoiser=demo)

    ours = small_runs.config(folder, f"host/{name}", **RUNS[name])

    warnings = said[name].pop("warnings")
    assert said[name] == {"finished": True, "steps": theirs.run.steps}
    assert ["that has embeddings in it" in warning for warning in warnings] == ([True] if name == "words" else [])
    expected, found = small_runs.losses_of(theirs), small_runs.losses_of(ours)
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=2e-5)
    # The files have the same names, and nearly the same numbers.
    through_diffusers, through_host = small_runs.tensors_of(theirs), small_runs.tensors_of(ours)
    assert through_host.keys() == through_diffusers.keys()
    for key, tensor in through_host.items():
        torch.testing.assert_close(tensor, through_diffusers[key], rtol=1e-2, atol=1e-4)


def test_the_models_leave_as_they_came(said: dict[str, Any]):
    """The same objects with the same numbers and flags; no adapters, hooks, patches; nothing loaded."""
    assert said["left behind"] == []
    assert said["left behind by the graph's LoRA"] == []


def test_checkpointing_changes_nothing_but_the_memory(said: dict[str, Any]):
    assert said["checkpointed"] < 1e-5
    assert said["left behind by checkpointing"] == []


def test_in_bf16_the_same_is_learned_about(said: dict[str, Any], folder: Path):
    assert said["half"] == [True, []]
    whole, half = (
        small_runs.losses_of(small_runs.config(folder, f"{place}/denoiser", **RUNS["denoiser"]))
        for place in ("host", "half")
    )
    assert len(half) == 6
    assert list(half.values()) == pytest.approx(list(whole.values()), rel=0.02)


def test_a_flow_of_fluxs_shape_has_the_right_gradients(said: dict[str, Any], folder: Path):
    """Captions of two lengths in a batch; the slope along the gradient is its length."""
    assert said["flux texts"] == [["cross_attn", "cross_attn.shape", "pooled_output"], [2, 1, 301, 768]]
    assert said["flux schedule"] == ["flow", pytest.approx(math.exp(1.15), rel=1e-4)]
    assert said["flux gradients"] > 0
    assert said["flux slope"] == pytest.approx(1, abs=0.02)
    one, again = (
        small_runs.losses_of(small_runs.config(folder, f"{place}/objective", run={"steps": 2}))
        for place in ("flux", "flux_checkpointed")
    )
    assert len(one) == 2
    assert list(again.values()) == pytest.approx(list(one.values()), rel=1e-5)


@pytest.mark.parametrize("where", ["pass", "again", "sample"])
def test_the_cancel_button_saves_and_the_next_call_goes_on(where: str, said: dict[str, Any]):
    """The host raises in whatever layer is at work; the end is that of a run that nobody cancelled, bit by bit."""
    stopped, some_steps, is_there, finished, same, left = said[f"cancelled in a {where}"]

    assert (stopped, some_steps, is_there, finished, same, left) == (False, True, True, True, True, [])


def test_after_an_error_the_models_are_as_they_were(said: dict[str, Any]):
    assert said["broken"] == ["broken", []]


def test_no_memory_is_one_line_and_the_state_is_kept(said: dict[str, Any]):
    message, saved, left = said["no memory"]

    assert message.startswith("step 4: cpu has no memory left. Lower run.batch (and raise run.accumulate)")
    assert "\n" not in message
    assert said["no memory in the node"] == (
        "step 4: cpu has no memory left. In LoRA Train Settings lower run_batch (and raise run_accumulate), in LoRA "
        "Dataset lower the resolution, or load the model in fewer bits. The state after step 3 is saved: run the graph "
        "again to go on."
    )
    assert saved
    assert left == []


def test_the_loras_of_the_graph_are_part_of_the_base(said: dict[str, Any]):
    assert said["the graph's LoRA counts"]
    for name in ("another base", "another base, finished"):
        assert "the base model is not the one that the run was begun with" in said[name]


def test_each_picture_of_a_batch_is_predicted_with_its_own_caption(said: dict[str, Any]):
    assert said["own captions"] < 1e-5
    assert said["captions matter"] > 0.01


def test_captions_that_cannot_share_a_pass_get_their_own(said: dict[str, Any]):
    answers, passes, told_a_guidance = said["counted words"]

    assert answers == [10.0, 25.0, 36.0]
    assert passes == [[2, 3], [1, 5]]
    assert told_a_guidance == [False] * 3  # a model that was distilled with none keeps its own default


def test_a_picture_is_a_film_of_one_where_the_vae_is_one_of_films(said: dict[str, Any]):
    shape, no_distribution, error = said["films"]

    assert (shape, no_distribution) == ([2, 2, 4, 4], True)
    assert error < 1e-6


def test_vaes_that_give_no_distribution_give_their_middle(said: dict[str, Any]):
    assert said["normalising VAE"]
    mean, std, width = said["tiles"]
    assert mean == std  # pictures that did not need tiles have a distribution, and batches hold both
    assert width < 1e-5


def test_models_that_the_host_loads_piece_by_piece_are_loaded_whole(said: dict[str, Any]):
    whole, fault = said["piecewise"]

    assert whole == "whole"
    assert "start ComfyUI with --disable-dynamic-vram" in fault
    assert said["patches"] == [True, True, True]


def test_what_is_left_out_of_training_is_told(said: dict[str, Any]):
    nothing, attention = said["unused patches"]

    assert nothing == ""
    assert "changed how the MODEL works (patches)" in attention


def test_brackets_of_captions_are_no_weights(said: dict[str, Any]):
    assert said["brackets"] == [True, True]


def test_a_sample_is_what_the_hosts_own_sampler_draws(said: dict[str, Any]):
    assert said["sample"] < 1e-5


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("odd sampling", "only epsilon, v and flow models can be trained"),
        ("hooked", "hooks LoRAs into its layers"),
        ("other vae", "makes latents of 4 channels, and the MODEL takes 16: connect the VAE of this model"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(what: str, message: str, said: dict[str, Any]):
    assert message in said[what]
    assert "\n" not in said[what]
