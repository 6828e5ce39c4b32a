"""The peer of `train.py`: what diffusers' LoRA scripts do in a step, written anew.

Of examples/text_to_image/train_text_to_image_lora.py, and for SDXL of train_text_to_image_lora_sdxl.py: pictures are
decoded in the loop's own process; the VAE and the text encoders work in each step; noise and timesteps come from
torch's generator of the device; accelerate does precision, gradients and clipping; AdamW as torch makes it; the loss
is read in each step, twice, and logged to TensorBoard.

Left out, to the reference's gain: the library `datasets`, the progress bar, checkpoints. One thing is put right: the
scripts hand the clipping an iterator which the optimizer has used up, so that nothing is clipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from _train_cases import RANK, STEPS, TARGETS
from PIL import Image
from torch import Tensor


class Draws(Protocol):
    """All that is random in a step."""

    def latents(self, distribution: Any, step: int) -> Tensor: ...

    def noise(self, latents: Tensor, step: int) -> Tensor: ...

    def timesteps(self, latents: Tensor, count: int, step: int) -> Tensor: ...


class OwnDraws:
    """From torch's generator, as the scripts do."""

    def latents(self, distribution: Any, step: int) -> Tensor:
        return distribution.sample()

    def noise(self, latents: Tensor, step: int) -> Tensor:
        return torch.randn_like(latents)

    def timesteps(self, latents: Tensor, count: int, step: int) -> Tensor:
        return torch.randint(0, count, (len(latents),), device=latents.device).long()


@dataclass(frozen=True)
class Plan:
    """What is trained, on what, and how.

    Args:
        order: numbers of the pictures of each step; shuffled when left out.
        factors: values of the LoRA at the start, by PEFT's names; drawn when left out.
    """

    base: Path
    pictures: Path
    logs: Path
    size: int
    batch: int
    sdxl: bool = False
    device: str = "cpu"
    precision: str = "fp32"
    rate: float = 1e-4
    schedule: str = "constant"
    warmup: int = 0
    steps: int = STEPS
    clip: float = 1.0
    draws: Draws = field(default_factory=OwnDraws)
    order: Sequence[Sequence[int]] | None = None
    factors: dict[str, Tensor] | None = None


@dataclass
class Outcome:
    """What can be compared afterwards."""

    losses: list[float] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    factors: dict[str, Tensor] = field(default_factory=dict)


class Pictures(torch.utils.data.Dataset[tuple[Tensor, str]]):
    """A folder with metadata.jsonl; each is decoded when it is asked for."""

    def __init__(self, folder: Path, size: int) -> None:
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        self.folder, self.size = folder, size
        self.rows = [json.loads(line) for line in lines]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        with Image.open(self.folder / self.rows[index]["file_name"]) as opened:
            image = opened.convert("RGB")
        if image.size != (self.size, self.size):
            raise ValueError(f"{image.size}: pictures are written in the size that is trained")
        values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        values = values.view(self.size, self.size, 3).permute(2, 0, 1).contiguous()
        return values.float().div(255).sub(0.5).div(0.5), self.rows[index]["text"]


class Conditions:
    """Captions -> what the UNet is told beside noise and timestep."""

    def __init__(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> None:
        import transformers

        names = ["", "_2"] if plan.sdxl else [""]
        kinds = [transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection]
        self.sdxl, self.size, self.device = plan.sdxl, plan.size, device
        self.tokenizers = [transformers.CLIPTokenizer.from_pretrained(plan.base / f"tokenizer{n}") for n in names]
        self.encoders: list[Any] = [
            kind.from_pretrained(plan.base / f"text_encoder{name}", dtype=torch.float32)
            for name, kind in zip(names, kinds, strict=False)
        ]
        for encoder in self.encoders:
            encoder.requires_grad_(False)
            encoder.to(device, dtype=dtype)

    def ids(self, captions: Sequence[str]) -> list[Tensor]:
        """Of each tokenizer, in the loader."""
        return [
            tokenizer(
                list(captions),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            for tokenizer in self.tokenizers
        ]

    def __call__(self, ids: Sequence[Tensor]) -> dict[str, Any]:
        """Arguments of the UNet."""
        if not self.sdxl:
            return {"encoder_hidden_states": self.encoders[0](ids[0].to(self.device), return_dict=False)[0]}
        states: list[Tensor] = []
        for encoder, rows in zip(self.encoders, ids, strict=True):
            output = encoder(rows.to(self.device), output_hidden_states=True)
            states.append(output.hidden_states[-2])
        sizes = torch.tensor([[self.size, self.size, 0, 0, self.size, self.size]] * len(ids[0]))
        more = {"text_embeds": output.text_embeds, "time_ids": sizes.to(self.device)}
        return {"encoder_hidden_states": torch.cat(states, dim=-1), "added_cond_kwargs": more}


def train(plan: Plan, more: Callable[[], bool]) -> Outcome:
    """Take steps as long as ``more`` says so; it is asked before each."""
    import diffusers
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration
    from diffusers.optimization import get_scheduler
    from peft import LoraConfig

    dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
    accelerator = Accelerator(
        cpu=plan.device == "cpu",
        mixed_precision="bf16" if plan.precision == "bf16" else "no",
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(plan.logs), logging_dir=str(plan.logs)),
    )
    device: torch.device = accelerator.device
    noising: Any = diffusers.DDPMScheduler.from_pretrained(plan.base, subfolder="scheduler")
    conditions = Conditions(plan, device, dtype)
    vae: Any = diffusers.AutoencoderKL.from_pretrained(plan.base, subfolder="vae", torch_dtype=torch.float32)
    unet: Any = diffusers.UNet2DConditionModel.from_pretrained(plan.base, subfolder="unet", torch_dtype=torch.float32)
    unet.requires_grad_(False)
    vae.requires_grad_(False)
    unet.to(device, dtype=dtype)
    vae.to(device, dtype=torch.float32 if plan.sdxl else dtype)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS))
    trained = {name: one for name, one in unet.named_parameters() if one.requires_grad}
    if plan.factors is not None:
        for name, one in trained.items():
            one.data.copy_(plan.factors[name])
    parameters = list(trained.values())
    optimizer: Any = torch.optim.AdamW(parameters, lr=plan.rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    schedule: Any = get_scheduler(
        plan.schedule, optimizer=optimizer, num_warmup_steps=plan.warmup, num_training_steps=plan.steps
    )
    unet, optimizer, loader, schedule = accelerator.prepare(unet, optimizer, _loader(plan, conditions), schedule)
    accelerator.init_trackers("reference")
    predicts: str = noising.config.prediction_type
    count: int = noising.config.num_train_timesteps
    unet.train()
    outcome = Outcome()
    for step, (pixels, ids) in enumerate(_endless(loader)):
        if not more():
            break
        with accelerator.accumulate(unet):
            latents = plan.draws.latents(vae.encode(pixels.to(vae.dtype)).latent_dist, step)
            latents = (latents * vae.config.scaling_factor).to(dtype)
            noise = plan.draws.noise(latents, step)
            timesteps = plan.draws.timesteps(latents, count, step)
            noisy = noising.add_noise(latents, noise, timesteps)
            told = conditions(ids)
            target = noise if predicts == "epsilon" else noising.get_velocity(latents, noise, timesteps)
            predicted = unet(noisy, timesteps, return_dict=False, **told)[0]
            loss = torch.nn.functional.mse_loss(predicted.float(), target.float())
            mean = accelerator.gather(loss.repeat(plan.batch)).mean().item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                outcome.norms.append(accelerator.clip_grad_norm_(parameters, plan.clip))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        accelerator.log({"train_loss": mean, "lr": schedule.get_last_lr()[0]}, step=step + 1)
        outcome.losses.append(loss.detach().item())  # the scripts read it again, for the progress bar
    outcome.factors = {name: one.detach().cpu() for name, one in trained.items()}
    accelerator.end_training()
    return outcome


def _loader(plan: Plan, conditions: Conditions) -> Any:
    def together(items: Sequence[tuple[Tensor, str]]) -> tuple[Tensor, list[Tensor]]:
        pixels = torch.stack([pixels for pixels, _ in items]).to(memory_format=torch.contiguous_format).float()
        return pixels, conditions.ids([caption for _, caption in items])

    pictures = Pictures(plan.pictures, plan.size)
    if plan.order is not None:
        return torch.utils.data.DataLoader(pictures, batch_sampler=plan.order, collate_fn=together)
    return torch.utils.data.DataLoader(
        pictures, shuffle=True, collate_fn=together, batch_size=plan.batch, drop_last=True
    )


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
