"""Where the files of a run are.

<folder>/<name>.safetensors          the LoRA; a folder <name> in PEFT's format
<folder>/<name>-000500.safetensors   the LoRA after 500 steps
<folder>/<name>.run/state/           what resume needs
<folder>/<name>.run/samples/         pictures drawn on the way
<folder>/<name>.run/logs/            for TensorBoard
<folder>/<name>.run/loss.csv, loss.png, config.toml
<folder>/<name>.run/cache/           latents and text, unless the settings name another place

The settings may name another folder for ``<name>.run``.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ...convert import FOLDERS
from ..config import OutputSection

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of all files of a run; nothing is made before it is written to.

    Args:
        folder: ``output.folder``.
        name: ``output.name``.
        format: ``output.format``: LoRAs are folders in PEFT's.
        runs: ``output.runs``: where the run's own folder is; None for beside the LoRA.

    >>> RunFolder(Path("loras"), "ink").lora(500).as_posix()
    'loras/ink-000500.safetensors'
    """

    folder: Path
    name: str
    format: str = "kohya"
    runs: Path | None = None

    @classmethod
    def of(cls, output: OutputSection) -> RunFolder:
        """The folder that the settings name."""
        return cls(Path(output.folder), output.name, output.format, Path(output.runs) if output.runs else None)

    @property
    def run(self) -> Path:
        return (self.runs or self.folder) / f"{self.name}.run"

    @property
    def state(self) -> Path:
        return self.run / "state"

    @property
    def samples(self) -> Path:
        return self.run / "samples"

    @property
    def logs(self) -> Path:
        return self.run / "logs"

    @property
    def cache(self) -> Path:
        return self.run / "cache"

    @property
    def csv(self) -> Path:
        return self.run / "loss.csv"

    @property
    def plot(self) -> Path:
        return self.run / "loss.png"

    @property
    def config(self) -> Path:
        return self.run / "config.toml"

    @property
    def ending(self) -> str:
        """Of a LoRA's name: "" where it is a folder."""
        return "" if self.format in FOLDERS else ".safetensors"

    def lora(self, step: int | None = None) -> Path:
        """The finished LoRA, or that of a step."""
        return self.folder / (self.name + ("" if step is None else f"-{step:0{_DIGITS}d}") + self.ending)

    def sample(self, step: int, number: int) -> Path:
        """The picture of the n-th prompt after a step."""
        return self.samples / f"{self.name}-{step:0{_DIGITS}d}-{number}.png"

    def make(self) -> RunFolder:
        """Make the folders of the run."""
        for folder in (self.run, self.samples):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def steps(self) -> dict[int, list[Path]]:
        """step -> what is there of that step, oldest first: a LoRA, embeddings beside it, or embeddings alone."""
        pattern = re.compile(re.escape(self.name) + rf"-(\d{{{_DIGITS},}})({re.escape(self.ending)}|\..+\.safetensors)")
        found: dict[int, list[Path]] = {}
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if match := pattern.fullmatch(path.name):
                found.setdefault(int(match[1]), []).append(path)
        return dict(sorted(found.items()))

    def prune(self, keep: int, newest: int | None = None) -> list[Path]:
        """Remove all but the newest LoRAs of steps, and embeddings of the same steps; 0 keeps all.

        Args:
            keep: how many stay.
            newest: LoRAs of later steps are left alone: another run of this name wrote them.

        Returns:
            what was removed.
        """
        known = [paths for step, paths in self.steps().items() if newest is None or step <= newest]
        gone = [path for paths in (known[:-keep] if keep else []) for path in paths]
        for path in gone:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return gone
