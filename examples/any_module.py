"""LoRA on a plain torch classifier: emoji drawn in another style than it was trained on.

    python -m examples.any_module

A network of three layers, 3072-4096-2048-10, learns groups of emoji (food, animals, ...) from pictures in Flat style at
32 x 32 pixels; of its ten outputs six are in use. In High-Contrast it then finds few of them. A LoRA of rank 1, 15,370
numbers beside 20,998,154 frozen ones, teaches it the style; names that are held out of both measure it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from lora_core.train.config import NetworkSection
from lora_core.train.network import AdaptedModule, attach_module

DATA = Path(__file__).resolve().parents[1] / "demo" / "data"
SIDE = 32
OUTPUTS = 10


def classifier() -> nn.Sequential:
    """3 * 32 * 32 numbers -> scores of up to ten groups."""
    return nn.Sequential(
        nn.Linear(3 * SIDE * SIDE, 4096), nn.ReLU(), nn.Linear(4096, 2048), nn.ReLU(), nn.Linear(2048, OUTPUTS)
    )


def pictures(style: str) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (n, 3072) in [-1, 1], group numbers (n,), and which of them are held out (n,)."""
    lines = (DATA / style / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    groups = sorted({row["group"] for row in rows})
    images = [Image.open(DATA / style / row["file_name"]).convert("RGB") for row in rows]
    small = [image.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes() for image in images]
    pixels = torch.stack([torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in small])
    labels = torch.tensor([groups.index(row["group"]) for row in rows])
    held_out = torch.tensor([row["split"] == "heldout" for row in rows])
    return pixels.float() / 127.5 - 1, labels, held_out


def fit(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, rate: float) -> None:
    """Train what wants gradients."""
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=rate)
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for part in order.split(64):
            loss = nn.functional.cross_entropy(model(inputs[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of pictures whose group is found."""
    return (model(inputs).argmax(dim=1) == labels).float().mean().item()


def add_lora(model: nn.Module) -> AdaptedModule:
    """Rank 1 on all three layers."""
    return attach_module(model, NetworkSection(rank=1, alpha=1.0, targets="all"), seed=0)


def main() -> None:
    torch.manual_seed(0)
    model = classifier()
    inputs, labels, held_out = pictures("flat")
    fit(model, inputs[~held_out], labels[~held_out], epochs=4, rate=3e-4)
    inputs, labels, held_out = pictures("high_contrast")
    before = accuracy(model, inputs[held_out], labels[held_out])
    adapted = add_lora(model)
    print(f"{adapted.trained:,} parameters beside {adapted.total:,} frozen ones")
    fit(model, inputs[~held_out], labels[~held_out], epochs=8, rate=3e-3)
    after = accuracy(model, inputs[held_out], labels[held_out])
    print(f"groups found on names that were held out: {before:.1%} -> {after:.1%}")


if __name__ == "__main__":
    main()
