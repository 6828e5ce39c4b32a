"""The whole way once: both LoRAs, a stack and a merge, drawn by a real ComfyUI and measured.

    nox -s demo                                      # trains them, starts the host and runs this
    python demo/run.py --url http://127.0.0.1:8188   # with a host that has the pack and its LoRAs

Leaves host_sheet.png, host.json and report_*.json.
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

from demo.measure import dark_fraction, rises, saturation
from demo.prove import PROMPTS, SEED, STRENGTHS, truth
from demo.sample import contact_sheet
from demo.train_loras import lora_file
from demo.workflow import Host, Row, change, example, prompt, rows


def row(name: str, strength: float, folder: str) -> Row:
    return {"lora": f"{folder}{lora_file(name).name}", "model": strength, "clip": strength}


def stacks(folder: str) -> dict[str, list[Row]]:
    """Column title -> rows of the LoRA Stack."""
    columns = {"base": []} | {f"style {s:g}": [row("style", s, folder)] for s in STRENGTHS}
    return columns | {
        "content": [row("content", 1.0, folder)],
        "both": [row("style", 1.0, folder), row("content", 1.0, folder)],
    }


def draw(host: Host, graph: dict[str, Any], title: str, out: Path) -> Tensor:
    """One picture a prompt, (n, 3, 64, 64); what the first run reported goes to a file."""
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
    return cat(pictures)


def merged(host: Host, folder: str, out: Path) -> Tensor:
    """Merge the stack into a checkpoint and draw the same prompts with it."""
    graph = rows(example("merge_to_checkpoint"), *stacks(folder)["both"])
    # In fp16, the checkpoint's own type, the weights would be rounded once more than in the live stack.
    graph = change(graph, "LoomMergeToCheckpoint", dtype="fp32")
    return draw(host, graph, "merged", out)


def compare(columns: dict[str, Tensor]) -> dict[str, Any]:
    """Numbers and checks that come from the host's pictures."""
    by_strength = [columns[f"style {s:g}"] for s in STRENGTHS]
    dark, colour = [dark_fraction(x) for x in by_strength], [saturation(x) for x in by_strength]
    # One step of 255 is 2 / 255 here: pictures go through PNG.
    difference = (columns["merged"] - columns["both"]).abs().max().item() * 127.5
    return {
        "checks": {
            "strength 0 is the base": bool((columns["style 0"] == columns["base"]).all()),
            "merged is the stack within one step of 255": difference < 1.5,
            "the dark fraction rises with the strength": rises(dark),
            "the saturation falls with the strength": rises([-c for c in colour]),
        },
        "dark fraction": dict(zip(map(str, STRENGTHS), dark, strict=True)),
        "saturation": dict(zip(map(str, STRENGTHS), colour, strict=True)),
        "merged against both, largest difference of 255": round(difference),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", required=True, help="address of a ComfyUI with the pack")
    parser.add_argument("--loras", default="", help="folder of the LoRAs below the host's, with a slash at its end")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "out" / "host")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    host = Host(args.url)
    graph = example("style_and_content_stack")
    columns: dict[str, Tensor] = {}
    for title, chosen in stacks(args.loras).items():
        columns[title] = draw(host, rows(graph, *chosen), title, args.out)
        print(f"{title}: {len(PROMPTS)} pictures, {time.monotonic() - started:.0f} s", flush=True)
    columns["merged"] = merged(host, args.loras, args.out)
    results = compare(columns) | {"seconds": round(time.monotonic() - started, 1)}
    contact_sheet([*columns.items(), ("truth", truth())], PROMPTS).save(args.out / "host_sheet.png")
    (args.out / "host.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name, holds in results["checks"].items():
        print(f"{'yes' if holds else 'NO '} in the host: {name}")
    print(f"see {args.out}")
    return 0 if all(results["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
