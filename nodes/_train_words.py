"""What the engine says, in words of the graph: it names settings of its TOML file, options of its command, paths."""

from __future__ import annotations

import re
from functools import cache

import folder_paths

from ..lora_core.errors import LoomError
from ..lora_core.train.config import settings
from ..lora_core.train.stops import OutOfMemoryError
from ._settings_rows import data_rows, rows

_WORDS = {
    "start anew with --fresh": "set resume to never to start anew",
    "begin anew (--fresh)": "set resume to never",
    "choose another output.name": "give another name",
    "another output.name": "another name",
    "leave --resume out to begin": "set resume to auto to begin",
    "the same command goes on": "running the graph again goes on",
    "then start the command again": "then run the graph again",
    'Run `pip install ".[train]"` in the folder of your clone of LoRA Loom.': (
        "Install it with `python -m pip install -r requirements.txt` in the folder of LoRA Loom, by the host's Python."
    ),
}
# Inputs of LoRA Train, and of LoRA Dataset beside those of its settings.
_OWN = {
    "run.steps": "steps",
    "network.rank": "rank",
    "optimizer.learning_rate": "learning_rate",
    "output.name": "name",
    "data.folder": "folder",
    "data.resolution": "resolution",
}


def in_words_of_the_node(text: str) -> str:
    """Settings as the inputs that they are, options as what to set, paths without those of the host's folders."""
    for said, meant in _WORDS.items():
        text = text.replace(said, meant)
    for folder, name in _folders():
        text = text.replace(folder, name)
    return _DOTTED.sub(lambda found: _inputs().get(found[0], found[0]), text)


def error_of_the_node(error: LoomError) -> LoomError:
    """The same, of an error."""
    if isinstance(error, OutOfMemoryError):
        return LoomError(_out_of_memory(error))
    text = in_words_of_the_node(str(error))
    return error if text == str(error) else LoomError(text)


def _out_of_memory(error: OutOfMemoryError) -> str:
    lower = "lower run_batch (and raise run_accumulate)" if error.batch > 1 else "set run_checkpointing to yes"
    kept = f" The state after step {error.step} is saved: run the graph again to go on." if error.saved else ""
    return (
        f"step {error.step + 1}: {error.device} has no memory left. In LoRA Train Settings {lower}, in LoRA Dataset "
        f"lower the resolution, or load the model in fewer bits.{kept}"
    )


_DOTTED = re.compile(r"\b[a-z_]+(\.[a-z_]+)+\b")


@cache
def _inputs() -> dict[str, str]:
    """Dotted name -> input."""
    known = {row.name: name for name, row in (*rows().items(), *data_rows().items())}
    return {**{name: known[name] for name in settings() if name in known}, **_OWN}


def _folders() -> list[tuple[str, str]]:
    outputs = [(folder_paths.get_output_directory(), "output"), (folder_paths.get_input_directory(), "input")]
    return [*outputs, *((folder, "loras") for folder in folder_paths.get_folder_paths("loras"))]
