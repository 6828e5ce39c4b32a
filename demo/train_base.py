"""Train the demo's UNet and text encoder together on Fluent Flat without food.

    python -m demo.train_base --minutes 72

v-prediction with min-SNR weights, empty captions now and then for guidance, an average of the
weights (EMA) to sample from. The text encoder is trained for most of the time; then
its states of all captions are computed once, and a step costs a third less. Started again, it goes
on from its last checkpoint; a larger --minutes stretches the schedule. Needs the codec of
`train_vae` and the tokenizer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from demo.dataset import FLAT, load_images, read_items, select
from demo.objective import (
    add_noise,
    min_snr_weights,
    stratified_timesteps,
    velocity,
)
from demo.pipeline import MODEL, Demo, build_text_encoder, build_unet, load_vae, save_base
from demo.sample import grid, sample_images
from demo.schedule import Budget
from demo.train_vae import jitter

SHEET = [
    "red heart", "cat face", "cactus", "guitar", "rocket", "ghost", "umbrella", "key",
    "sunflower", "fire engine", "owl", "house", "crown", "snowman", "butterfly", "red apple",
]  # fmt: skip


class Average:
    """Exponential moving average of parameters, faster while there are few steps.

    mean <- mean + (1 - d) (weight - mean),  d = min(decay, (1 + step) / (10 + step))
    """

    def __init__(self, modules: list[nn.Module], decay: float) -> None:
        self.parameters = [p for module in modules for p in module.parameters()]
        self.means = [p.detach().clone() for p in self.parameters]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(self.means, [p.detach() for p in self.parameters], weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and means; a second call undoes the first."""
        for parameter, mean in zip(self.parameters, self.means, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(kept)


def cache_latents(demo: Demo, images: Tensor, variants: int) -> Tensor:
    """Latents of every picture, as it is and jittered: (variants, n, 16, 8, 8)."""
    generator = torch.Generator().manual_seed(0)
    views = [images] + [jitter(images, generator) for _ in range(variants - 1)]
    return torch.stack([demo.encode(view) for view in views])


def core_odds(core: list[bool], share: float) -> Tensor:
    """Probabilities of drawing each picture, (n,): those of the core sum to `share`."""
    chosen = torch.tensor(core)
    inside, outside = int(chosen.sum()), int((~chosen).sum())
    return torch.where(chosen, share / max(inside, 1), (1.0 - share) / max(outside, 1))


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    items = select(read_items(FLAT), food=False)
    demo = Demo(
        build_unet(),
        build_text_encoder(),
        CLIPTokenizer.from_pretrained(args.model / "tokenizer"),
        load_vae(args.model),
    )
    latents = cache_latents(demo, load_images(items), args.variants)
    # The last row is the empty caption.
    tokens = demo.tokens([item.text for item in items] + [""])
    odds = core_odds([item.core for item in items], args.core_share)
    context: Tensor | None = None
    unet = demo.unet.to(memory_format=torch.channels_last)
    modules: list[nn.Module] = [unet, demo.text_encoder]
    average = Average(modules, args.ema)
    optimizer = torch.optim.AdamW(average.parameters, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    state_file = args.work / "base_state.pt"
    args.work.mkdir(parents=True, exist_ok=True)
    step, spent = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        unet.load_state_dict(state["unet"])
        demo.text_encoder.load_state_dict(state["text_encoder"])
        optimizer.load_state_dict(state["optimizer"])
        average.means = state["means"]
        step, spent = state["step"], state["spent"]
        print(f"going on from step {step}, {spent / 60:.1f} minutes", flush=True)
    budget = Budget(args.minutes, spent)

    def save() -> None:
        state = {"unet": unet.state_dict(), "text_encoder": demo.text_encoder.state_dict()}
        state |= {"optimizer": optimizer.state_dict(), "means": average.means}
        partial = state_file.with_suffix(".partial")
        torch.save(state | {"step": step, "spent": budget.spent}, partial)
        partial.replace(state_file)
        average.swap()
        save_base(demo, args.model)
        # The codec's decoder may have been trained on in the meantime.
        demo.vae = load_vae(args.model)
        sheet = grid(sample_images(demo, SHEET, steps=20), across=8)
        sheet.save(args.work / f"base_{step:06d}.png")
        average.swap()

    def freeze_text_encoder() -> Tensor:
        """States of all captions from the averaged text encoder, which is then left as it is."""
        average.swap()
        kept = {k: v.clone() for k, v in demo.text_encoder.state_dict().items()}
        average.swap()
        demo.text_encoder.load_state_dict(kept)
        demo.text_encoder.requires_grad_(False)
        for parameter in demo.text_encoder.parameters():
            # Without a gradient the optimizer passes over it; the average is set to the same.
            parameter.grad = None
        count = len(list(unet.parameters()))
        average.means[count:] = [p.detach().clone() for p in demo.text_encoder.parameters()]
        with torch.no_grad():
            return demo.text_encoder(tokens).last_hidden_state

    saved = logged = time.monotonic()
    losses: list[float] = []
    while not budget.is_over:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(args.lr)
        chosen = torch.multinomial(odds, args.batch, replacement=True)
        view = torch.randint(args.variants, (args.batch,))
        clean = latents[view, chosen]
        caption = torch.where(torch.rand(args.batch) < args.dropout, len(items), chosen)
        timesteps = stratified_timesteps(args.batch)
        noise = torch.randn_like(clean)
        noisy = add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
        if context is None and budget.progress > args.text_share:
            context = freeze_text_encoder()
        if context is None:
            states = demo.text_encoder(tokens[caption]).last_hidden_state
        else:
            states = context[caption]
        output = unet(noisy, timesteps, states).sample
        error = (output - velocity(clean, noise, timesteps)).square().mean(dim=(1, 2, 3))
        loss = (error * min_snr_weights(timesteps)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(average.parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        average.update(step)
        losses.append(loss.item())
        now = time.monotonic()
        if now - logged > 30:
            logged = now
            mean = sum(losses) / len(losses)
            print(f"step {step} {budget.progress:.1%} loss {mean:.4f}", flush=True)
            losses.clear()
        if now - saved > 60 * args.save_minutes:
            saved = now
            save()
    save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=MODEL, help="the pipeline folder")
    parser.add_argument("--work", type=Path, default=Path("demo/out/train"), help="checkpoints")
    parser.add_argument("--minutes", type=float, default=72, help="training time, restarts included")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--variants", type=int, default=1, help="views of each picture")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--core-share", type=float, default=0.8, help="of the draws, for the core")
    parser.add_argument("--text-share", type=float, default=0.8, help="of the time, with text")
    parser.add_argument("--dropout", type=float, default=0.1, help="share of empty captions")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
