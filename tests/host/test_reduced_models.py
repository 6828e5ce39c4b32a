"""The reduced models that other tests train and load: the host takes each for its family, whole, and draws with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphs
from host_harness import reduced_models
from host_harness.environment import HostEnvironment
from host_harness.host import ComfyHost
from host_harness.reduced_models import FlowModel

pytestmark = [pytest.mark.host, pytest.mark.slow]


def draws(comfy: ComfyHost, base: graphs.Graph, *outputs: list[Any]) -> None:
    """Two steps give a picture of many colours (numbers that are not finite give one), and the log tells of no key too
    few or too many."""
    model, clip, vae = outputs
    graph = base | graphs.picture(model, clip, steps=2)
    graph["decoded"]["inputs"]["vae"] = vae
    mark = comfy.log_mark()
    (pixels,) = comfy.images(comfy.queue(graph))
    log = comfy.log(mark)
    assert pixels.shape == (64, 64, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).shape[0] > 100
    assert comfy.problems(mark) == []
    assert not [line for line in log.splitlines() if "missing" in line.lower() or "unexpected" in line.lower()]


def test_sd15(comfy: ComfyHost, sd15_reduced: Path) -> None:
    base = graphs.checkpoint(comfy.add_model(sd15_reduced, "checkpoints"))
    draws(comfy, base, graphs.MODEL, graphs.CLIP, graphs.VAE)


def test_sdxl(comfy: ComfyHost, sdxl_reduced: Path) -> None:
    base = graphs.checkpoint(comfy.add_model(sdxl_reduced, "checkpoints"))
    draws(comfy, base, graphs.MODEL, graphs.CLIP, graphs.VAE)


@pytest.mark.parametrize("fixture", ["flux_reduced", "sd3_reduced"])
def test_flow_models_in_parts(comfy: ComfyHost, fixture: str, request: pytest.FixtureRequest) -> None:
    parts: FlowModel = request.getfixturevalue(fixture)
    draws(comfy, parts.loaders(comfy), ["model", 0], ["clip", 0], ["vae", 0])


CODE = """
import json, sys
import torch, comfy.sd, comfy.utils, nodes
files = json.loads(sys.argv[1])

said = {}
with torch.inference_mode():
    models = {name: comfy.sd.load_diffusion_model(files[name]) for name in ("sd15", "sdxl", "flux", "sd3")}
    said["families"] = {name: type(model.model.model_config).__name__ for name, model in models.items()}
    # Flux's own text encoders, T5 in a small size.
    encoders = [comfy.utils.load_torch_file(files[name]) for name in ("clip_l", "t5")]
    kind = comfy.sd.CLIPType.FLUX
    clip = comfy.sd.load_text_encoder_state_dicts(encoders, clip_type=kind, model_options=files["options"])
    said["layers"] = len(clip.cond_stage_model.t5xxl.transformer.encoder.block)
    condition = clip.encode_from_tokens_scheduled(clip.tokenize("red heart"))
    said["text"] = list(condition[0][0].shape), list(condition[0][1]["pooled_output"].shape)
    latent = {"samples": torch.zeros(1, 16, 8, 8)}
    (drawn,) = nodes.common_ksampler(models["flux"], 1, 2, 1.0, "euler", "simple", condition, condition, latent)
    said["finite"], said["deviation"] = bool(drawn["samples"].isfinite().all()), float(drawn["samples"].std())
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(
    comfy_environment: HostEnvironment, sd15_reduced: Path, sdxl_reduced: Path, flux_reduced: FlowModel,
    sd3_reduced: FlowModel,
) -> Any:  # fmt: skip
    clip_l, small_t5 = reduced_models.flux_text_reduced()
    paths = {
        "sd15": sd15_reduced, "sdxl": sdxl_reduced, "flux": flux_reduced.model, "sd3": sd3_reduced.model,
        "clip_l": clip_l, "t5": small_t5,
    }  # fmt: skip
    files = {name: str(path) for name, path in paths.items()} | {"options": reduced_models.T5_OPTIONS}
    return json.loads(comfy_environment.run_code(CODE, json.dumps(files)).splitlines()[-1])


def test_the_host_takes_each_for_its_family(said: Any) -> None:
    assert said["families"] == {"sd15": "SD15", "sdxl": "SDXL", "flux": "Flux", "sd3": "SD3"}


def test_flux_draws_with_its_own_text_encoders_inside_the_host(said: Any) -> None:
    assert said["layers"] == reduced_models.T5.layers
    assert said["text"] == [[1, 256, 768], [1, 768]]
    assert said["finite"]
    assert said["deviation"] > 0.1
