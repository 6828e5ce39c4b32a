"""Measure the demo's base and LoRAs without a host, and draw what they do.

    python -m demo.evaluate --out demo/out

Writes losses.json (held-out losses and checks), strengths.png (a contact sheet by strength) and
loss.png (the LoRAs' training curves).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from demo.apply import stack_of, with_stack
from demo.dataset import FLAT, HIGH_CONTRAST, load_images, read_items, select
from demo.measure import dark_fraction, fixed_losses, pairs, rises, saturation, shuffled
from demo.pipeline import MODEL, Demo, load_demo
from demo.sample import contact_sheet, sample_images, sample_latents
from demo.train_loras import LORAS, PLANS

STRENGTHS = (0.0, 0.5, 1.0)
PROMPTS = [
    "red heart", "ghost", "panda", "sailboat",
    "umbrella", "alarm clock", "penguin", "bullseye",
    "doughnut", "cupcake", "strawberry", "pizza",
]  # fmt: skip

Losses = dict[str, dict[str, float]]


def variants(demo: Demo) -> dict[str, Demo]:
    """The base alone, with either LoRA, and with both; content at half in "stack"."""
    style, content = (LORAS / PLANS[name].file_name for name in ("style", "content"))
    return {
        "base": demo,
        "style": with_stack(demo, stack_of([(style, 1.0)])),
        "content": with_stack(demo, stack_of([(content, 1.0)])),
        "stack": with_stack(demo, stack_of([(style, 1.0), (content, 0.5)])),
        "stack, both at 1": with_stack(demo, stack_of([(style, 1.0), (content, 1.0)])),
    }


def held_out_losses(models: Mapping[str, Demo]) -> dict[str, Losses]:
    """{what is drawn: {model: {timestep: loss}}} on pictures that no LoRA was trained on.

    style: High-Contrast, held-out names; content: Flat, held-out food; both: High-Contrast, all
    food (no LoRA saw one of these pictures); flat: Flat, the names held out of the style LoRA.
    """
    base = models["base"]
    flat, contrast = read_items(FLAT), read_items(HIGH_CONTRAST)
    sets = {
        "style": select(contrast, food=False, split="heldout"),
        "content": select(flat, food=True, split="heldout"),
        "both": select(contrast, food=True),
        "flat": select(flat, food=False, split="heldout"),
    }
    result: dict[str, Losses] = {}
    for name, items in sets.items():
        latents, captions = pairs(base, items)
        result[name] = {m: fixed_losses(model, latents, captions) for m, model in models.items()}
    for name, model in (("flat", "base"), ("style", "style")):
        latents, captions = pairs(base, sets[name])
        wrong = fixed_losses(models[model], latents, shuffled(captions))
        result[name][f"{model}, shuffled"] = wrong
    return result


def recognised(demo: Demo, core: bool = True) -> dict[str, Any]:
    """Of one picture a core caption, how many are nearest to their own icon among all the base saw.

    Distance is mean square error of latents; chance would be 1 in 356.
    """
    items = select(read_items(FLAT), food=False)
    truth = demo.encode(load_images(items)).flatten(1)
    wanted = [i for i, item in enumerate(items) if item.core == core]
    drawn = sample_latents(demo, [items[i].text for i in wanted]).flatten(1)
    nearest = torch.cdist(drawn, truth).argmin(dim=1).tolist()
    missed = [items[i].text for i, n in zip(wanted, nearest, strict=True) if i != n]
    return {"captions": len(wanted), "own icon": len(wanted) - len(missed), "missed": missed}


def loss_checks(losses: Mapping[str, Losses]) -> dict[str, bool]:
    """What must hold, from the losses alone."""

    def mean(what: str, model: str) -> float:
        return losses[what][model]["mean"]

    alone = [mean("both", model) for model in ("base", "style", "content")]
    return {
        "style lowers the loss on unseen names": mean("style", "style") < mean("style", "base"),
        "content lowers the loss on unseen food": mean("content", "content") < mean("content", "base"),
        "stack (content at 0.5) beats style, content and base on food in High-Contrast": mean("both", "stack")
        < min(alone),
        "right captions beat shuffled ones, base": mean("flat", "base") < mean("flat", "base, shuffled"),
        "right captions beat shuffled ones, style": mean("style", "style") < mean("style", "style, shuffled"),
    }


def plot_losses(target: Path) -> None:
    """Training curves of the LoRAs, a running mean over 20 steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, plan in PLANS.items():
        curve = LORAS / f"{Path(plan.file_name).stem}.loss.json"
        values = json.loads(curve.read_text(encoding="utf-8"))
        means = [sum(values[max(0, i - 19) : i + 1]) / min(i + 1, 20) for i in range(len(values))]
        axes.plot(means, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (v, min-SNR 5)")
    axes.set_yscale("log")
    axes.legend()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def sheet_by_strength(demo: Demo, models: Mapping[str, Demo]) -> tuple[Image.Image, dict[str, object]]:
    """Columns: style at rising strengths, content, both, truth in either style; and their numbers."""
    style = LORAS / PLANS["style"].file_name
    columns = [(f"style {s:g}", sample_images(with_stack(demo, stack_of([(style, s)])), PROMPTS)) for s in STRENGTHS]
    dark = [dark_fraction(images) for _, images in columns]
    colour = [saturation(images) for _, images in columns]
    columns.append(("content", sample_images(models["content"], PROMPTS)))
    columns.append(("both", sample_images(models["stack, both at 1"], PROMPTS)))
    for title, folder in (("true Flat", FLAT), ("true H.-C.", HIGH_CONTRAST)):
        by_text = {item.text: item for item in read_items(folder)}
        columns.append((title, load_images([by_text[prompt] for prompt in PROMPTS])))
    numbers: dict[str, object] = {
        "strengths": list(STRENGTHS),
        "dark fraction": dark,
        "saturation": colour,
        "dark fraction rises": rises(dark),
        "saturation falls": rises([-c for c in colour]),
    }
    return contact_sheet(columns, PROMPTS), numbers


def run(out: Path, model: Path = MODEL) -> dict[str, Any]:
    """All of it; what losses.json holds, with every check in one place."""
    demo = load_demo(model)
    models = variants(demo)
    losses = held_out_losses(models)
    sheet, samples = sheet_by_strength(demo, models)
    sheet.save(out / "strengths.png")
    plot_losses(out / "loss.png")
    result = {
        "losses": losses,
        "samples": samples,
        "recognised": recognised(demo),
        "checks": loss_checks(losses),
    }
    (out / "losses.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    result = run(args.out, args.model)
    for name, rows in result.pop("losses").items():
        for model, values in rows.items():
            print(f"{name:8s} {model:16s}", " ".join(f"{k} {v:.3f}" for k, v in values.items()))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
