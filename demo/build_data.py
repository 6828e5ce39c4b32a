"""Fetch Fluent Emoji from the npm registry and render the demo's two datasets.

    python -m demo.build_data

Every picture is drawn twice, in the Flat style and in the High-Contrast style, under the same
file name and with the same caption. The result is committed, so this only has to run again when
`names.txt` changes. Needs `npm`, and `resvg-py` and `pillow` from PyPI.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image

from demo.dataset import DATA, FLAT, FOOD, HIGH_CONTRAST

NAMES = Path(__file__).parent / "names.txt"
UNICODE = "unicode-emoji-json@0.9.0"
STYLES = {
    FLAT: "@iconify-json/fluent-emoji-flat@1.2.6",
    HIGH_CONTRAST: "@iconify-json/fluent-emoji-high-contrast@1.2.6",
}
HELD_OUT = 0.2
# How often a LoRA sees the plainest things, those with a star, in the time in which it sees the others once. The
# content LoRA has to learn shapes, which takes many looks; a style is seen in any of its pictures.
REPEATS = {FLAT: 4, HIGH_CONTRAST: 1}


def fetch(package: str, folder: Path) -> Path:
    """Download one npm package into `folder` and return the directory it unpacks to."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not on PATH: install Node.js, then run this again")
    done = subprocess.run([npm, "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True)
    archive = folder / done.stdout.strip().splitlines()[-1]
    target = archive.with_suffix("")
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / "package"


def read_names(path: Path = NAMES) -> dict[str, bool]:
    """{name: whether it has a star}, comments left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text = ",".join(line for line in lines if not line.startswith("#"))
    names = [name.strip() for name in text.split(",") if name.strip()]
    return {name.removeprefix("*"): name.startswith("*") for name in names}


def held_out(names: list[str], share: float = HELD_OUT) -> set[str]:
    """A fixed share of the names, chosen by their hash, so that a new name moves few others."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ordered[: round(len(ordered) * share)])


def icon_svg(icons: dict[str, Any], slug: str) -> str:
    """One icon as an SVG document with a square view box around its middle.

    A set gives each icon a body and, where they differ from the set's, left, top, width and
    height; an alias points to a parent and may mirror it.
    """
    mirror = False
    if slug not in icons["icons"]:
        alias = icons["aliases"][slug]
        mirror = bool(alias.get("hFlip"))
        slug = alias["parent"]
    icon = icons["icons"][slug]

    def number(key: str, default: float) -> float:
        return float(icon.get(key, icons.get(key, default)))

    left, top = number("left", 0), number("top", 0)
    width, height = number("width", 16), number("height", 16)
    side = max(width, height)
    x, y = left - (side - width) / 2, top - (side - height) / 2
    body = icon["body"]
    if mirror:
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    # A solid black set says "currentColor"; a document of its own has to name the colour.
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'color="#000000" width="{side}" height="{side}" viewBox="{x} {y} {side} {side}">'
        f"{body}</svg>"
    )


def render(svg: str, size: int) -> Image.Image:
    """The SVG on white, `size` pixels square, with a palette of 64 colours to keep files small."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="white"))
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    return picture.quantize(64, dither=Image.Dither.NONE)


def licence_text(info: dict[str, Any]) -> str:
    """What goes beside the pictures: where they come from and under which terms."""
    licence, author = info["license"], info["author"]
    return (
        f"{info['name']} by {author['name']}, {author['url']}\n"
        f"Rendered from the npm package {info['package']}.\n"
        f"Licence: {licence['title']}, {licence['url']}\n\n"
        + (Path(__file__).parent / "FLUENT_EMOJI_LICENSE.txt").read_text(encoding="utf-8")
    )


def build(out: Path, size: int) -> None:
    """Write `out/<style>/*.png`, metadata.jsonl and LICENSE.txt for both styles."""
    names = read_names()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        unicode_file = fetch(UNICODE, work) / "data-by-emoji.json"
        emoji = {e["name"]: e for e in json.loads(unicode_file.read_text("utf-8")).values()}
        unknown = [name for name in names if name not in emoji]
        if unknown:
            raise SystemExit(f"names.txt: not in {UNICODE}: {', '.join(unknown)}")
        groups = {name: emoji[name]["group"] for name in names}
        held = held_out([n for n in names if groups[n] != FOOD])
        held |= held_out([n for n in names if groups[n] == FOOD])
        for style, package in STYLES.items():
            source = fetch(package, work)
            icons = json.loads((source / "icons.json").read_text("utf-8"))
            info = json.loads((source / "info.json").read_text("utf-8")) | {"package": package}
            folder = out / style
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            rows: list[str] = []
            for name in names:
                slug = emoji[name]["slug"].replace("_", "-")
                render(icon_svg(icons, slug), size).save(folder / f"{slug}.png", optimize=True)
                row = {
                    "file_name": f"{slug}.png",
                    "text": name.lower(),
                    "group": groups[name],
                    "core": names[name],
                    "split": "heldout" if name in held else "train",
                }
                if names[name] and REPEATS[style] > 1:
                    row["repeats"] = REPEATS[style]
                rows.append(json.dumps(row))
            (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
            (folder / "LICENSE.txt").write_text(licence_text(info), encoding="utf-8")
            print(f"{folder}: {len(rows)} pictures, {len(held)} names held out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=DATA, help="where the style folders go")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    args = parser.parse_args()
    build(args.out, args.size)


if __name__ == "__main__":
    main()
