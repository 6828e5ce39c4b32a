"""Exercises that a trainer of LoRAs is asked to do first, each an example of this repository, with fewer steps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from command_line import Loom
from examples import blend, new_word, one_caption
from examples.pictures import FLAT, FOOD, HIGH_CONTRAST, copy_pictures
from lora_core import Adapter, load_adapter
from lora_core.adapters.lora import LoraDelta
from lora_core.architectures import ARCHITECTURES
from lora_core.convert import convert_lora
from lora_core.train.config import parse_config
from lora_core.train.events import Watcher
from lora_core.train.loop import TrainResult, train
from lora_core.train.network import Network
from lora_core.types import DENOISER, TEXT_ENCODER

SD15 = ARCHITECTURES.get("sd15")


class Losses(Watcher):
    """Each measurement of validation, in turn."""

    def __init__(self) -> None:
        self.of: list[Mapping[str, float]] = []

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        self.of.append(losses)


def trained(folder: Path, *, text_encoder: bool) -> tuple[TrainResult, list[float]]:
    """The example with few steps; losses before and after, on the same pictures with the same noise."""
    pictures = copy_pictures(folder / "pictures", HIGH_CONTRAST, FOOD, count=8, caption=one_caption.CAPTION)
    told = Losses()
    result = train(one_caption.settings(pictures, folder, 40, text_encoder=text_encoder), watcher=told)
    return result, [losses["train"] for losses in told.of]


def components(adapter: Adapter) -> dict[str, int]:
    """Component -> modules that the file changes, and not by nothing."""
    found: dict[str, int] = {}
    for target, delta in adapter.deltas:
        assert isinstance(delta, LoraDelta)
        factors = delta.factors()
        assert (factors.up @ factors.down).abs().max() > 0, target
        found[target.module.component] = found.get(target.module.component, 0) + 1
    return found


def test_the_papers_setting_from_one_caption(tmp_path: Path):
    result, losses = trained(tmp_path, text_encoder=False)

    rows = (tmp_path / "pictures" / "metadata.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(row)["text"] for row in rows} == {one_caption.CAPTION}
    assert len(losses) == 2
    assert losses[1] < 0.9 * losses[0]
    assert result.path is not None
    adapter = load_adapter(result.path)
    # 4 layers in each of 2 attentions of 7 transformer blocks
    assert components(adapter) == {DENOISER: 56}
    assert {(delta.rank, delta.scale) for _, delta in adapter.deltas if isinstance(delta, LoraDelta)} == {(4, 1.0)}
    assert result.report["parameters"] == 46_592


def test_the_text_encoder_too(tmp_path: Path):
    result, losses = trained(tmp_path, text_encoder=True)

    assert losses[1] < 0.9 * losses[0]
    assert result.path is not None
    adapter = load_adapter(result.path)
    # and 4 in each of the text encoder's 2 layers
    assert components(adapter) == {DENOISER: 56, TEXT_ENCODER: 8}
    assert result.report["parameters"] == 46_592 + 8 * 2 * 4 * 128


def test_on_sd_15_the_papers_setting_is_0_8_million_numbers_and_3_mb(tmp_path: Path):
    """With the real model's shapes, and without its weights."""
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel

    with init_empty_weights():
        unet = UNet2DConditionModel(cross_attention_dim=768)  # the rest of SD 1.5 is what diffusers takes by itself

    def path_of(component: str, path: str) -> str | None:
        own = SD15.component(component)
        location = own.diffusers.get(path) if own else None
        return location.path if location else None

    config = parse_config({"preset": "paper", "model": {"base": "sd15"}, "data": {"folder": "pictures"}})
    denoiser: Any = SimpleNamespace(architecture=SD15, parts={DENOISER: unet}, path_of=path_of)
    network = Network.attach(denoiser, config.network, config.text_encoder, 0, config.optimizer.learning_rate)

    assert network.report().total == 859_520_964
    assert network.report().trained == 797_184
    for path, module in unet.named_modules():
        if ".lora_" in path and isinstance(module, nn.Linear):
            module.to_empty(device="cpu")
            nn.init.zeros_(module.weight)
    file = tmp_path / "paper.safetensors"
    convert_lora(network.adapter(), file, dtype=config.output.dtype)
    assert 797_184 * 4 < file.stat().st_size < 3_300_000
    adapter = load_adapter(file)
    assert (adapter.architecture, len(adapter.deltas), adapter.report.complete) == ("sd15", 128, True)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRAs of a few steps."""
    return blend.train_both(tmp_path_factory.mktemp("blend"), 8)


# Pixels are of size 1. Four passes of the model, each with sums in another order: LoRA beside the weight or inside it.
CLOSE = {"rtol": 0.0, "atol": 1e-3}


def test_two_loras_at_0_7_and_0_3_draw_the_same_picture_here_and_in_diffusers(two: dict[str, Path]):
    theirs = blend.blended_by_diffusers(two, blend.STRENGTHS)
    picture = blend.draw(theirs, steps=2)

    torch.testing.assert_close(picture, blend.draw(blend.blended_by_us(two, blend.STRENGTHS), steps=2), **CLOSE)
    for others in ({"style": 0.3, "content": 0.7}, {"style": 0.7, "content": 0.0}, {"style": 0.0, "content": 0.3}):
        theirs.set_adapters(list(others), adapter_weights=list(others.values()))
        other = blend.draw(theirs, steps=2)
        assert (other - picture).abs().max() > 20 * CLOSE["atol"], others
        torch.testing.assert_close(other, blend.draw(blend.blended_by_us(two, others), steps=2), **CLOSE)


def test_a_new_word_by_one_command(loom: Loom, tmp_path: Path):
    """Pictures without captions: the word's embedding is trained, then the LoRA. The file holds both."""
    pictures = copy_pictures(tmp_path / "pictures", FLAT, FOOD, count=4, caption=None)
    assert {path.suffix for path in pictures.iterdir()} == {".png"}

    status, out, err = loom(*new_word.command(pictures, tmp_path, steps=60), "--json")

    assert status == 0, err
    file = Path(json.loads(out)["path"])
    assert components(load_adapter(file)) == {DENOISER: 70, TEXT_ENCODER: 8}
    before, after = (float(loss) for loss in re.findall(r"^step \d+: train ([\d.]+)$", err, re.MULTILINE))
    assert after < 0.95 * before
    with safe_open(file, "pt") as opened:
        row = opened.get_tensor(f"bundle_emb.{new_word.WORD}.clip_l").float()
    # It starts at random with a length of about 0.017 * sqrt(128) = 0.19, and is drawn towards 0.4.
    assert row.norm().item() == pytest.approx(0.4, abs=0.02)

    prompt = f"a photo of {new_word.WORD}"
    pipeline = blend.stock()
    base = blend.draw(pipeline, prompt, steps=2)
    pipeline.load_textual_inversion(row[0], token=new_word.WORD)
    word = blend.draw(pipeline, prompt, steps=2)
    # diffusers refuses a file that has more than a LoRA in it; its own format has the embeddings beside it.
    convert_lora(file, tmp_path / "for_diffusers.safetensors", "diffusers")
    pipeline.load_lora_weights(str(tmp_path), weight_name="for_diffusers.safetensors")
    both = blend.draw(pipeline, prompt, steps=2)
    assert (word - base).abs().max() > 0.01
    assert (both - word).abs().max() > 0.01
