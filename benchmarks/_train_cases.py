"""What `train.py` trains: base models, pictures, and the settings that both loops get."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

# Our library is imported where it is used: the reference's process holds nothing of it.
if TYPE_CHECKING:
    from torch import nn

    from lora_core.architectures import Architecture
    from lora_core.train.config import TrainConfig

DEMO = Path(__file__).resolve().parents[1] / "demo"
ICONS = DEMO / "data" / "high_contrast"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
RANK = 4
# More steps than any measurement takes: a run ends when it is told to.
STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A model, the side of its pictures in pixels, and how many a step has.

    Args:
        title: in tables.
        tflop: of a step with one picture, in 10^12 operations (../shared/TRAINING.md: frozen weights need no gradient
            of their own, so a step is 2.2 times its forward pass); 0 where nobody counted.
    """

    title: str
    model: str
    size: int
    batch: int
    tflop: float = 0.0

    @property
    def is_sdxl(self) -> bool:
        return self.model in ("sdxl", "tiny_sdxl")


CASES: Mapping[str, Case] = {
    "demo-4": Case("demo base", "demo", 64, 4),
    "demo-16": Case("demo base", "demo", 64, 16),
    "sd15-256": Case("SD 1.5", "sd15", 256, 1),
    "sd15-512": Case("SD 1.5", "sd15", 512, 1, 1.8),
    "sdxl-1024": Case("SDXL", "sdxl", 1024, 1, 14.7),
    "tiny": Case("tiny SD 1", "tiny_sd1", 64, 2),
    "tiny-xl": Case("tiny SDXL", "tiny_sdxl", 64, 2),
}


def write_pictures(folder: Path, size: int, count: int) -> Path:
    """Icons of the demo, scaled to the size that is trained, with their captions in metadata.jsonl."""
    folder.mkdir(parents=True)
    lines = (ICONS / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    rows = [{key: json.loads(line)[key] for key in ("file_name", "text")} for line in lines]
    for row in rows:
        with Image.open(ICONS / row["file_name"]) as icon:
            icon.convert("RGB").resize((size, size), Image.Resampling.LANCZOS).save(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def write_base(model: str, folder: Path) -> Path:
    """The folder of a pipeline; with random weights for all but the demo's."""
    if model == "demo":
        return DEMO / "model"
    if model.startswith("tiny"):
        import tiny

        return getattr(tiny, model)(folder)
    return _write_random(model, folder)


def architecture_of(model: str) -> Architecture | None:
    """Of a model that is of no known family."""
    if not model.startswith("tiny"):
        return None
    import tiny

    return tiny.TINY_SDXL if model == "tiny_sdxl" else tiny.TINY_SD1


def settings(
    case: Case,
    base: Path,
    pictures: Path,
    folder: Path,
    *,
    device: str,
    precision: str,
    copied: bool,
    **sections: Mapping[str, Any],
) -> TrainConfig:
    """Ours.

    Args:
        precision: of the frozen weights and of the computation; what is trained is float32.
        copied: as the reference does it: nothing cached, no threads that read ahead, every loss looked at.
        sections: settings on top, ``optimizer={"clip": 0.1}``.
    """
    from lora_core.train.config import parse_config

    values: dict[str, dict[str, Any]] = {
        "model": {"base": str(base), "dtype": precision},
        "data": {"folder": str(pictures), "resolution": case.size, "buckets": False, "crop": "center"},
        "network": {"rank": RANK, "alpha": RANK, "start": "gaussian", "targets": TARGETS},
        "optimizer": {"learning_rate": 1e-4, "schedule": "constant"},
        "run": {"steps": STEPS, "batch": case.batch, "device": device, "precision": precision},
        "output": {"folder": str(folder)},
    }
    if copied:
        values["data"] |= {"cache_latents": False, "cache_text": False, "workers": 0}
        values["run"] |= {"log_every": 1}
    for name, more in sections.items():
        values[name] = {**values.get(name, {}), **more}
    return parse_config(values)


def _write_random(model: str, folder: Path) -> Path:
    """A pipeline of a family's real size, with the demo's tokenizer."""
    import diffusers
    import transformers

    from lora_core.architectures import ARCHITECTURES
    from lora_core.train.diffusers_denoiser.configs import CONFIGS
    from lora_core.types import TEXT_ENCODER_2

    configs = CONFIGS[model]
    torch.manual_seed(0)
    parts: dict[str, nn.Module] = {
        "unet": diffusers.UNet2DConditionModel(**configs.unet),
        "vae": diffusers.AutoencoderKL(**configs.vae),
    }
    for name, values in configs.encoders.items():
        kind = transformers.CLIPTextModelWithProjection if name == TEXT_ENCODER_2 else transformers.CLIPTextModel
        # The demo's words of beginning and end: transformers looks for the end to find the pooled row.
        ends = {"bos_token_id": 1022, "eos_token_id": 1023}
        parts[name] = kind(transformers.CLIPTextConfig(**{**values, **ends}))
    pipeline = ARCHITECTURES.get(model).pipeline[0]
    index: dict[str, Any] = {"_class_name": pipeline, "scheduler": ["diffusers", "DDPMScheduler"]}
    for name, part in parts.items():
        part.save_pretrained(folder / name)  # pyright: ignore[reportCallIssue]
        index[name] = ["transformers" if name in configs.encoders else "diffusers", type(part).__name__]
    diffusers.DDPMScheduler(**configs.scheduler).save_pretrained(folder / "scheduler")
    for name in configs.encoders:
        tokenizer = name.replace("text_encoder", "tokenizer")
        shutil.copytree(DEMO / "model" / "tokenizer", folder / tokenizer)
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
