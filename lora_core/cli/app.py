"""The commands and their options, for typer: parsing, help and shell completion."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from ..architectures import ARCHITECTURES
from ..convert import DTYPES as CONVERT_DTYPES
from ..convert import FOLDERS, WRITERS
from ..errors import UnknownNameError
from ..merge import DTYPES
from . import DONE, INTERRUPTED, USAGE, converting, demo, inspecting, merging, training
from .lora_option import parse_lora

app = typer.Typer(
    name="loom",
    help="Read, check, convert, merge and train LoRA files. The same engine as the LoRA Loom nodes in ComfyUI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Typer carries its own copy of click or uses the installed one, by its version; this is the UsageError it raises.
UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])


def run(arguments: list[str]) -> int:
    """Parse and run; wrong usage is one line and a hint at the help."""
    command = typer.main.get_command(app)
    try:
        status = command.main(args=arguments, prog_name="loom", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except UsageError as error:
        return _usage(error)
    if status == INTERRUPTED:  # typer's own answer to Ctrl-C, in silence
        raise KeyboardInterrupt
    return status if isinstance(status, int) else DONE


def _usage(error: Exception) -> int:
    # no_args_is_help is an error with the help as its text.
    message = str(getattr(error, "format_message", lambda: error)())
    context = getattr(error, "ctx", None)
    where = getattr(context, "command_path", "loom")
    if message.startswith("Usage:"):
        print(message, file=sys.stderr)
    else:
        print(f"loom: {' '.join(message.split())} (see `{where} --help`)", file=sys.stderr)
    return USAGE


def _complete_architecture(incomplete: str) -> list[str]:
    return [name for name in ARCHITECTURES.names if name.startswith(incomplete)]


def _complete_dtype(incomplete: str) -> list[str]:
    return [name for name in DTYPES if name.startswith(incomplete)]


def _known_architecture(name: str | None) -> str | None:
    if name is not None and name not in ARCHITECTURES:
        raise typer.BadParameter(UnknownNameError("architecture", name, ARCHITECTURES.names).message)
    return name


def _known_dtype(name: str) -> str:
    if name not in DTYPES:
        raise typer.BadParameter(UnknownNameError("dtype", name, DTYPES).message)
    return name


def _complete_format(incomplete: str) -> list[str]:
    return [name for name in WRITERS if name.startswith(incomplete)]


def _known_format(name: str) -> str:
    if name not in WRITERS:
        raise typer.BadParameter(UnknownNameError("format to write", name, WRITERS).message)
    return name


def _known_convert_dtype(name: str) -> str:
    if name not in CONVERT_DTYPES:
        raise typer.BadParameter(UnknownNameError("dtype", name, CONVERT_DTYPES).message)
    return name


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.callback()
def loom() -> None:
    """Read, check, convert, merge and train LoRA files. The same engine as the LoRA Loom nodes in ComfyUI."""


@app.command("inspect")
def inspect_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="LoRA files (safetensors, or pickles of tensors) and PEFT's folders; of another folder each file "
            "gets a line, read from headers alone.",
            metavar="FILE...",
        ),
    ],
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Map onto this model family instead of the one that fits best.",
            callback=_known_architecture,
            autocompletion=_complete_architecture,
        ),
    ] = None,
    modules: Annotated[bool, typer.Option("--modules", help="List every adapted module.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Look for NaN, infinity, huge numbers and modules that change nothing.")
    ] = False,
    json: Json = False,
) -> int:
    """Say what LoRA files are: format, base model, ranks, trigger words, and what became of every tensor."""
    return inspecting.run(files, architecture, modules, check, json)


@app.command("convert")
def convert_command(
    file: Annotated[Path, typer.Argument(help="LoRA file, or the folder of one (PEFT's, diffusers').", metavar="FILE")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The file to write; a folder for peft.", metavar="OUT")],
    format: Annotated[
        str,
        typer.Option(
            help=f"Names and scale in the new file: {', '.join(WRITERS)}.",
            callback=_known_format,
            autocompletion=_complete_format,
        ),
    ] = WRITERS[0],
    dtype: Annotated[
        str,
        typer.Option(help=f"Number type of the tensors: {', '.join(CONVERT_DTYPES)}.", callback=_known_convert_dtype),
    ] = "same",
    architecture: Annotated[
        str | None,
        typer.Option(
            help="The model family of the file instead of the one that fits best.",
            callback=_known_architecture,
            autocompletion=_complete_architecture,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    json: Json = False,
) -> int:
    """Write a LoRA in another format; it changes every model as it did."""
    folder = format in FOLDERS
    if (out.suffix == ".safetensors") == folder:
        expected = "be a folder's, without .safetensors" if folder else "end in .safetensors"
        raise typer.BadParameter(f"the name must {expected}, got {out.name!r}", param_hint="'--output'")
    return converting.run(
        file, out, format=format, dtype=dtype, architecture=architecture, overwrite=overwrite, json=json
    )


@app.command("merge-to-checkpoint")
def merge_to_checkpoint_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint file, or the folder of a diffusers pipeline.", metavar="CKPT")
    ],
    lora: Annotated[
        list[str],
        typer.Option(help="A LoRA and its strengths; repeat it for a stack.", metavar="FILE[:model[:clip]]"),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", metavar="OUT")],
    dtype: Annotated[
        str,
        typer.Option(
            help=f"Number type of the weights: {', '.join(DTYPES)}.",
            callback=_known_dtype,
            autocompletion=_complete_dtype,
        ),
    ] = "same",
    keep_text_encoders: Annotated[
        bool, typer.Option("--keep-text-encoders", help="Leave the text encoders as they are.")
    ] = False,
    vae: Annotated[
        Path | None, typer.Option(help="A VAE to put in the place of the checkpoint's own.", metavar="FILE")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when a tensor of a LoRA is not used.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    json: Json = False,
) -> int:
    """Write a checkpoint with LoRAs in its weights: the same numbers as the live stack."""
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"the name must end in .safetensors, got {out.name!r}", param_hint="'--output'")
    try:
        loras = [parse_lora(text) for text in lora]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--lora'") from None
    return merging.run(
        checkpoint,
        loras,
        out,
        dtype=dtype,
        text_encoders=not keep_text_encoders,
        vae=vae,
        strict=strict,
        overwrite=overwrite,
        json=json,
    )


@app.command("train")
def train_command(
    config: Annotated[
        Path | None,
        typer.Argument(help="Settings, in TOML; docs/TRAINING.md lists them.", metavar="CONFIG.toml"),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting over the file's; repeat it. Without a file, all settings.",
            metavar="KEY=VALUE",
            autocompletion=training.complete_setting,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, as is the default; fail if there is none.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew where a run was interrupted.")] = False,
    presets: Annotated[bool, typer.Option("--presets", help="List the presets and train nothing.")] = False,
    init: Annotated[
        str | None,
        typer.Option(
            help="Write CONFIG.toml (or print it) with this preset's settings, and train nothing.",
            metavar="PRESET",
            autocompletion=training.complete_preset,
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Train a LoRA on captioned pictures. After an interrupt, the same command goes on."""
    if sum((resume, fresh, presets, init is not None)) > 1:
        raise typer.BadParameter("--resume, --fresh, --presets and --init exclude each other")
    if presets:
        return training.list_presets(json)
    if init is not None:
        return training.init(init, config, set or [])
    if config is None and not set:
        raise typer.BadParameter("give a file of settings; `loom train --init PRESET FILE` writes one")
    return training.run(config, set or [], "must" if resume else "never" if fresh else "auto", json)


@app.command("demo")
def demo_command(
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for LoRAs, contact sheet, curves and numbers.", metavar="DIR")
    ] = Path("loom-demo"),
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Measure the LoRAs of the repository; train nothing.")
    ] = False,
) -> int:
    """Train the demo's two LoRAs on its small model, and check that they learned. Some minutes on two cores."""
    return demo.run(out, train=not shipped)
