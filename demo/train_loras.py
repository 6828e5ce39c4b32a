"""Train the demo's two LoRAs on the demo base, with PEFT.

    python -m demo.train_loras style content

style:   everything but food, drawn in High-Contrast; saved in kohya's names.
content: food, drawn in Flat, text encoder too; saved in diffusers' PEFT names.
One name in five is held out of both, for `demo.measure`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from demo.dataset import FLAT, HIGH_CONTRAST, load_images, read_items, select
from demo.lora_files import Factors, kohya_tensors, peft_tensors, tag_frequency, write
from demo.objective import add_noise, min_snr_weights, stratified_timesteps, velocity
from demo.pipeline import MODEL, Demo, load_demo
from demo.schedule import Budget
from demo.train_base import cache_latents, core_odds

LORAS = Path(__file__).parent / "loras"
UNET_TARGETS = [
    "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out",
    "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv",
]  # fmt: skip
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


@dataclass(frozen=True, slots=True)
class Plan:
    """One LoRA: its data, its size, and where it goes."""

    name: str
    title: str
    description: str
    data: str
    food: bool
    rank: int
    alpha: float
    text_encoder: bool
    file_name: str
    kohya: bool


PLANS = {
    "style": Plan(
        "style", "Loom Demo High-Contrast", "Black and white line drawings.",
        HIGH_CONTRAST, food=False, rank=8, alpha=4.0, text_encoder=False,
        file_name="demo_style_high_contrast.safetensors", kohya=True,
    ),
    "content": Plan(
        "content", "Loom Demo Food", "Food and drink, which the base has never seen.",
        FLAT, food=True, rank=8, alpha=8.0, text_encoder=True,
        file_name="demo_content_food.safetensors", kohya=False,
    ),
}  # fmt: skip


def add_lora(model: nn.Module, plan: Plan, targets: list[str]) -> list[nn.Parameter]:
    """Put LoRA layers into `model`, freeze the rest, and return what is to be trained."""
    config = LoraConfig(r=plan.rank, lora_alpha=plan.alpha, target_modules=targets)  # type: ignore[arg-type]
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return [p for p in model.parameters() if p.requires_grad]


def factors(model: nn.Module, prefix: str = "") -> Factors:
    """{module path: (down, up)} of every LoRA layer in `model`."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for path, module in model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
            found[prefix + path.removeprefix(prefix)] = (down, up)
    return found


def metadata(plan: Plan, captions: list[str], steps: int, seed: int) -> dict[str, str]:
    """kohya's `ss_*` keys and the model specification; every value is a string."""
    spec = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "loom-demo/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": plan.title,
        "modelspec.description": plan.description,
        "modelspec.author": "LoRA Loom",
        "modelspec.license": "MIT (pictures: Fluent Emoji by Microsoft)",
        "modelspec.resolution": "64x64",
        "modelspec.prediction_type": "v",
    }
    if not plan.kohya:
        half = {"r": plan.rank, "lora_alpha": plan.alpha}
        layers = {f"unet.{key}": value for key, value in half.items()}
        layers |= {f"text_encoder.{key}": value for key, value in half.items()}
        return spec | {"lora_adapter_metadata": json.dumps(layers)}
    return spec | {
        "ss_base_model_version": "loom_demo",
        "ss_sd_model_name": "LoRA Loom demo",
        "ss_v_parameterization": "True",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(plan.rank),
        "ss_network_alpha": str(plan.alpha),
        "ss_network_args": json.dumps({"conv_dim": plan.rank, "conv_alpha": plan.alpha}),
        "ss_output_name": Path(plan.file_name).stem,
        "ss_resolution": "(64, 64)",
        "ss_num_train_images": str(len(captions)),
        "ss_steps": str(steps),
        "ss_seed": str(seed),
        "ss_min_snr_gamma": "5.0",
        "ss_tag_frequency": tag_frequency(f"1_{plan.name}", captions),
    }


def save(plan: Plan, demo: Demo, path: Path, info: dict[str, str]) -> None:
    unet, text = factors(demo.unet), factors(demo.text_encoder, "text_model.")
    tensors = kohya_tensors(unet, text, plan.alpha) if plan.kohya else peft_tensors(unet, text)
    write(path, tensors, info)
    print(f"{path.name}: {len(unet)} + {len(text)} modules, {path.stat().st_size:,} bytes")


def train(plan: Plan, args: argparse.Namespace) -> list[float]:
    """Train one LoRA and save it; the loss of every step."""
    torch.manual_seed(args.seed)
    demo = load_demo(args.model)
    items = select(read_items(plan.data), food=plan.food, split="train")
    captions = [item.text for item in items]
    latents = cache_latents(demo, load_images(items), args.variants)
    # The last row is the empty caption.
    tokens = demo.tokens([*captions, ""])
    groups = [{"params": add_lora(demo.unet, plan, UNET_TARGETS), "peak": args.lr}]
    demo.text_encoder.requires_grad_(False)
    if plan.text_encoder:
        text = add_lora(demo.text_encoder, plan, TEXT_TARGETS)
        groups.append({"params": text, "peak": args.text_lr})
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01)
    odds = core_odds([item.core for item in items], args.core_share)
    losses: list[float] = []
    budget = Budget(args.minutes, warmup=0.03)
    while not budget.is_over:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(group["peak"])
        chosen = torch.multinomial(odds, args.batch, replacement=True)
        clean = latents[torch.randint(args.variants, (args.batch,)), chosen]
        caption = torch.where(torch.rand(args.batch) < args.dropout, len(items), chosen)
        timesteps = stratified_timesteps(args.batch)
        noise = torch.randn_like(clean)
        context = demo.text_encoder(tokens[caption]).last_hidden_state
        output = demo.unet(add_noise(clean, noise, timesteps), timesteps, context).sample
        error = (output - velocity(clean, noise, timesteps)).square().mean(dim=(1, 2, 3))
        loss = (error * min_snr_weights(timesteps)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            mean = sum(losses[-50:]) / 50
            print(f"{plan.name} step {len(losses)} {budget.progress:.1%} loss {mean:.4f}", flush=True)
    save(plan, demo, args.out / plan.file_name, metadata(plan, captions, len(losses), args.seed))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(PLANS)}; all when left out")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, default=LORAS)
    parser.add_argument("--minutes", type=float, default=12, help="for each of them")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--variants", type=int, default=1, help="views of each picture")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--text-lr", type=float, default=1e-3)
    parser.add_argument("--core-share", type=float, default=0.8, help="of the draws, for the core")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if unknown := set(args.names) - set(PLANS):
        parser.error(f"no such LoRA: {', '.join(sorted(unknown))}; there are {', '.join(PLANS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or PLANS:
        losses = train(PLANS[name], args)
        curve = args.out / f"{Path(PLANS[name].file_name).stem}.loss.json"
        curve.write_text(json.dumps([round(x, 5) for x in losses]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
