"""Train the demo's image codec (AutoencoderKL), from 64x64 RGB to an 8x8 grid of 16 channels.

    python -m demo.train_vae --minutes 24

It is a codec and no more: it sees every picture in both styles, food too, without captions. What
the base may not see is kept from the UNet and the text encoder, not from the codec.
Interrupted, it goes on from its last checkpoint when it is started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from demo.dataset import FLAT, HIGH_CONTRAST, load_images, read_items
from demo.interruptions import Every, read_state, write_state
from demo.pipeline import LATENT_CHANNELS, MODEL, load_vae, save_vae
from demo.schedule import Budget

GREEN_CHANNEL = 7


def build_vae() -> AutoencoderKL:
    """Four levels, as hosts expect of this family, so one latent cell is 8x8 pixels."""
    return AutoencoderKL(
        sample_size=64,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=0,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=32,
    )


def jitter(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Random mirror, scale 0.85 to 1.05 and shift of up to 4 % of the side, one draw a picture.

    (n, 3, h, w) -> same shape; what comes in from outside is white (1).
    """
    n = images.shape[0]
    draw = torch.rand(n, 4, generator=generator)
    scale = 1.0 / (0.85 + 0.2 * draw[:, 0])
    mirror = torch.where(draw[:, 1] < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = scale * mirror
    theta[:, 1, 1] = scale
    theta[:, :, 2] = (draw[:, 2:] - 0.5) * 0.16
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # grid_sample fills with 0, so white has to be 0 while it runs.
    return F.grid_sample(images - 1.0, grid, mode="bicubic", align_corners=False).clamp(-2, 0) + 1.0


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """mean |e| + mean e^2 + 2 mean |c| + 2 mean |pool c| + (mean |dx e| + mean |dy e|) / 4,

    with e = output - target and c its colour part, e minus its mean over R, G and B. Shape is
    learned in seconds and colour late, so colour weighs more, over 8x8 pixels too; the last terms
    ask for crisp edges.
    """
    error = output - target
    colour = error - error.mean(dim=1, keepdim=True)
    loss = error.abs().mean() + error.square().mean()
    loss = loss + 2.0 * colour.abs().mean() + 2.0 * F.avg_pool2d(colour, 8).abs().mean()
    return loss + 0.25 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())


def green_loss(latents: Tensor, target: Tensor) -> Tensor:
    """Hold one latent channel to how green (above 0) or magenta each 8x8 cell is.

    Left alone, the codec finds lightness in seconds, orange to blue in minutes, and this last of
    the three axes of colour so late that leaves stay brown.
    """
    red, green, blue = F.avg_pool2d(target, 8).unbind(dim=1)
    return F.mse_loss(latents[:, GREEN_CHANNEL], 7.0 * (green - (red + blue) / 2.0))


@torch.no_grad()
def measure_scale(vae: AutoencoderKL, images: Tensor) -> float:
    """1 / standard deviation of the latents, so that scaled latents have variance 1."""
    means = [vae.encode(part).latent_dist.mean for part in images.split(32)]
    return 1.0 / torch.cat(means).std().item()


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    images = load_images(read_items(FLAT) + read_items(HIGH_CONTRAST))
    # Colour is the harder half: three draws of four are Flat.
    odds = torch.tensor([3.0, 1.0]).repeat_interleave(len(images) // 2)
    vae = (load_vae(args.out) if args.decoder_only else build_vae()).to(memory_format=torch.channels_last)
    vae.requires_grad_(not args.decoder_only)
    vae.decoder.requires_grad_(True)
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, betas=(0.9, 0.98), weight_decay=0)
    state_file = args.work / ("vae_decoder_state.pt" if args.decoder_only else "vae_state.pt")
    step, spent = 0, 0.0
    if state := read_state(state_file):
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    budget = Budget(args.minutes, spent)

    def save() -> None:
        state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict()}
        write_state(state_file, state | {"step": step, "spent": budget.spent})
        if not args.decoder_only:
            vae.register_to_config(scaling_factor=measure_scale(vae, images))
        save_vae(vae, args.out)

    saves, speaks = Every(60 * args.save_minutes), Every(15)
    while not budget.is_over:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(args.lr)
        target = images[torch.multinomial(odds, args.batch)]
        target = jitter(target).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            posterior = vae.encode(target).latent_dist
            output = vae.decode(posterior.sample()).sample
        reconstruction = reconstruction_loss(output.float(), target)
        divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
        loss = reconstruction + args.kl * divergence
        loss = loss + 0.05 * green_loss(posterior.mean.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if speaks.is_due():
            print(
                f"step {step} {budget.progress:.1%} loss {reconstruction.item():.4f} kl {divergence.item():.3f}",
                flush=True,
            )
        if saves.is_due():
            save()
    save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=MODEL, help="the pipeline folder")
    parser.add_argument("--work", type=Path, default=Path("demo/out/train"), help="checkpoints")
    parser.add_argument("--minutes", type=float, default=24, help="training time, restarts included")
    parser.add_argument("--save-minutes", type=float, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--kl", type=float, default=2e-4, help="weight of the divergence per value")
    parser.add_argument("--decoder-only", action="store_true", help="go on with the decoder; latents stay the same")
    parser.add_argument("--bf16", action="store_true", help="a quarter faster where the CPU has it")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
