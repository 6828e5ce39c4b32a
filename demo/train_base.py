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
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from demo.dataset import FLAT, load_images, read_items, select
from demo.interruptions import Every, read_state, write_state
from demo.pipeline import MODEL, Demo, build_text_encoder, build_unet, load_vae, noise_schedule, save_base
from demo.sample import grid, sample_images
from demo.schedule import Budget
from demo.train_vae import jitter
from lora_core.train.config import ObjectiveSection
from lora_core.train.ema import Ema
from lora_core.train.objective import draw, losses

SHEET = [
    "red heart", "cat face", "cactus", "guitar", "rocket", "ghost", "umbrella", "key",
    "sunflower", "fire engine", "owl", "house", "crown", "snowman", "butterfly", "red apple",
]  # fmt: skip
OBJECTIVE = ObjectiveSection(timesteps="stratified", weighting="min_snr", gamma=5.0)


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
    schedule = noise_schedule()
    unet = demo.unet.to(memory_format=torch.channels_last)
    parameters = [p for module in (unet, demo.text_encoder) for p in module.parameters()]
    average = Ema(parameters, args.ema)
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    state_file = args.work / "base_state.pt"
    step, spent = 0, 0.0
    if state := read_state(state_file):
        unet.load_state_dict(state["unet"])
        demo.text_encoder.load_state_dict(state["text_encoder"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        step, spent = state["step"], state["spent"]
        print(f"going on from step {step}, {spent / 60:.1f} minutes", flush=True)
    budget = Budget(args.minutes, spent)

    def save() -> None:
        state = {"unet": unet.state_dict(), "text_encoder": demo.text_encoder.state_dict()}
        state |= {"optimizer": optimizer.state_dict(), "average": average.state_dict()}
        write_state(state_file, state | {"step": step, "spent": budget.spent})
        # The codec's decoder may have been trained on in the meantime.
        demo.vae = load_vae(args.model)
        with average.swapped():
            save_base(demo, args.model)
            sheet = grid(sample_images(demo, SHEET, steps=20), across=8)
        sheet.save(args.work / f"base_{step:06d}.png")

    def freeze_text_encoder() -> Tensor:
        """States of all captions from the averaged text encoder, which is then left as it is."""
        with average.swapped():
            kept = {k: v.clone() for k, v in demo.text_encoder.state_dict().items()}
        demo.text_encoder.load_state_dict(kept)
        demo.text_encoder.requires_grad_(False)
        for parameter in demo.text_encoder.parameters():
            # Without a gradient the optimizer passes over it.
            parameter.grad = None
        with torch.no_grad():
            return demo.text_encoder(tokens).last_hidden_state

    saves, speaks = Every(60 * args.save_minutes), Every(30)
    recent: list[float] = []
    while not budget.is_over:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(args.lr)
        chosen = torch.multinomial(odds, args.batch, replacement=True)
        view = torch.randint(args.variants, (args.batch,))
        clean = latents[view, chosen]
        caption = torch.where(torch.rand(args.batch) < args.dropout, len(items), chosen)
        if context is None and budget.progress > args.text_share:
            context = freeze_text_encoder()
        states = demo.text_encoder(tokens[caption]).last_hidden_state if context is None else context[caption]
        places = range(args.batch)
        drawn = draw(OBJECTIVE, schedule, clean, None, seed=args.seed, step=step, positions=places, total=args.batch)
        noisy = drawn.noisy.contiguous(memory_format=torch.channels_last)
        loss = losses(OBJECTIVE, schedule, unet(noisy, drawn.timesteps, states).sample, drawn, None).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        average.update()
        recent.append(loss.item())
        if speaks.is_due():
            print(f"step {step} {budget.progress:.1%} loss {sum(recent) / len(recent):.4f}", flush=True)
            recent.clear()
        if saves.is_due():
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
