"""Drawing with the demo model: DDIM with classifier-free guidance, and sheets of pictures.

python -m demo.sample "red heart" "cat face" --out sheet.png
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from demo.pipeline import LATENT_CHANNELS, LATENT_SIZE, MODEL, STEPS, Demo, load_demo, noise_schedule


@torch.no_grad()
def sample_latents(demo: Demo, captions: list[str], *, steps: int = 25, guidance: float = 3.0, seed: int = 0) -> Tensor:
    """Deterministic DDIM from noise, (n, 16, 8, 8).

    v = v_empty + guidance * (v_caption - v_empty);  x_0 = a x - s v;  e = s x + a v;
    x at the next, cleaner step = a' x_0 + s' e.
    Each picture's noise depends on the seed and its place only.
    """
    generator = torch.Generator().manual_seed(seed)
    size = (len(captions), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    x = torch.randn(size, generator=generator)
    context = demo.context(captions + [""] * len(captions))
    squared = torch.cat([torch.ones(1), noise_schedule().abar])
    # Index 0 is the clean end, index t + 1 belongs to timestep t.
    path = torch.linspace(STEPS, 0, steps + 1).round().long()
    for now, after in itertools.pairwise(path):
        a, s = squared[now].sqrt(), (1 - squared[now]).sqrt()
        with_caption, without = demo.unet(torch.cat([x, x]), now - 1, context).sample.chunk(2)
        v = without + guidance * (with_caption - without)
        clean, noise = a * x - s * v, s * x + a * v
        x = squared[after].sqrt() * clean + (1 - squared[after]).sqrt() * noise
    return x


def sample_images(demo: Demo, captions: list[str], *, steps: int = 25, guidance: float = 3.0, seed: int = 0) -> Tensor:
    """Pictures (n, 3, 64, 64) in [-1, 1]."""
    return demo.decode(sample_latents(demo, captions, steps=steps, guidance=guidance, seed=seed))


def to_picture(image: Tensor, size: int = 96) -> Image.Image:
    """One tensor (3, h, w) in [-1, 1] as a PIL picture."""
    array = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array).resize((size, size), Image.Resampling.BICUBIC)


def contact_sheet(columns: Sequence[tuple[str, Tensor]], rows: Sequence[str], cell: int = 96) -> Image.Image:
    """Pictures in a table: a title over each column, a caption before each row."""
    left, top, gap = 150, 20, 4
    width = left + len(columns) * (cell + gap)
    sheet = Image.new("RGB", (width, top + len(rows) * (cell + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for r, caption in enumerate(rows):
        draw.text((4, top + r * (cell + gap) + cell // 2 - 6), caption, fill="black")
    for c, (title, images) in enumerate(columns):
        x = left + c * (cell + gap)
        draw.text((x + 4, 4), title, fill="black")
        for r in range(len(rows)):
            sheet.paste(to_picture(images[r], cell), (x, top + r * (cell + gap)))
    return sheet


def grid(images: Tensor, across: int, cell: int = 64) -> Image.Image:
    """Pictures in reading order without labels."""
    down = -(-len(images) // across)
    sheet = Image.new("RGB", (across * (cell + 2), down * (cell + 2)), "white")
    for i, image in enumerate(images):
        place = ((i % across) * (cell + 2), (i // across) * (cell + 2))
        sheet.paste(to_picture(image, cell), place)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("captions", nargs="+")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=4, help="columns")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    args = parser.parse_args()
    demo = load_demo(args.model)
    columns = [
        (
            f"seed {seed}",
            sample_images(demo, args.captions, steps=args.steps, guidance=args.guidance, seed=seed),
        )
        for seed in range(args.seeds)
    ]
    contact_sheet(columns, args.captions).save(args.out)


if __name__ == "__main__":
    main()
