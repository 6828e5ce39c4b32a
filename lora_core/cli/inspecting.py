"""``loom inspect``: what LoRA files are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import CorruptFileError, LoomError, NonFiniteError
from ..index import index_folder, lora_files
from ..inspect import inspect_file
from ..io import holds_tensors
from ..mapping import load_adapter
from ..types import MappingReport
from . import DONE, fail, os_message
from .output import counts, print_json, print_table, progress_bar


def run(files: list[Path], architecture: str | None, modules: bool, check: bool, json: bool) -> int:
    """Report each file; a file that cannot be read is a line on standard error, and the others follow.

    A folder of LoRAs is a line a file, from its headers alone, unless more of each file is asked for than they say.
    """
    status, documents = DONE, list[dict[str, Any]]()
    closely = check or modules or architecture is not None
    for path in _each(files) if closely else files:
        try:
            if path.is_dir() and not holds_tensors(path):
                entries = _index(path, json)
                if not entries:
                    raise CorruptFileError(path.name, "there is no LoRA file in this folder", "Check the path.")
                documents += entries
                if not entries:
                    status = fail(f"{path.name}: no LoRA file in this folder. Give a LoRA, or a folder of some.")
                status = max([status, *(fail(entry["error"]) for entry in entries if "error" in entry)])
                continue
            document: dict[str, Any] = inspect_file(path, architecture, modules=modules, check=check)
            if json:
                documents.append(document)
            else:
                _print(document, load_adapter(path, architecture).report)
            if check and (broken := document["check"]["not_finite"]):
                first = broken[0]
                raise NonFiniteError(document["file"], first["key"], first["nan"] + first["infinite"], first["total"])
        except LoomError as error:
            status = fail(error.message)
        except OSError as error:
            status = fail(os_message(error))
    if json:
        print_json(documents)
    return status


def _each(paths: list[Path]) -> Iterator[Path]:
    """The files in place of their folders; a folder without any stays."""
    for path in paths:
        yield from [path] if holds_tensors(path) or not path.is_dir() else (list(lora_files(path)) or [path])


def _index(folder: Path, json: bool) -> list[dict[str, Any]]:
    """The index of a folder; printed as a table unless it is for a program."""
    with progress_bar(folder.name, bytes=False) as progress:
        entries: list[dict[str, Any]] = index_folder(folder, progress=progress)
    if entries and not json:
        rows = [(entry["path"], _line(entry)) for entry in entries if "error" not in entry]
        print_table(f"{folder.name}: {len(rows)} of {len(entries)} files", rows)
    return entries


def _line(entry: dict[str, Any]) -> str:
    """``sdxl, lora rank 16, kohya, 792 of 792 tensors, trigger: ink style``"""
    ranks = "/".join(entry["ranks"])
    parts = [
        entry["architecture"],
        " + ".join(entry["adapter_types"]) + (f" rank {ranks}" if ranks else ""),
        entry["format"],
        f"{entry['tensors']['used']} of {entry['tensors']['total']} tensors",
    ]
    words = ", ".join(entry["trigger_words"])
    return ", ".join(parts) + (f"; trigger: {words}" if words else "")


def _print(document: dict[str, Any], report: MappingReport) -> None:
    rows = [
        ("format", document["format"]),
        ("architecture", document["architecture"]),
        ("adapter types", counts(document["adapter_types"])),
        ("components", counts(document["components"])),
        ("ranks", ", ".join(f"{rank} ({number} modules)" for rank, number in document["ranks"].items())),
        ("tensors used", f"{len(report.used)} of {report.total}"),
        ("trigger words", ", ".join(document["trigger_words"])),
        *(("embedding", text) for text in _embeddings(document.get("embeddings", {}))),
        *((name, value) for name, value in document["hashes"].items() if value),
        *(("ignored", text) for text in _reasons(report.ignored)),
        *(("unmatched", text) for text in _reasons(report.unmatched)),
        *(("note", text) for text in document.get("notes", ())),
        *(("misfit", f"{one.key}: expected {one.expected}, got {one.got}") for one in report.misfit),
    ]
    if "check" in document:
        rows += _numbers(document["check"])
    if "modules" in document:
        rows += [("module", _module(module)) for module in document["modules"]]
    print_table(document["file"], [(name, value) for name, value in rows if value])


def _numbers(check: dict[str, Any]) -> list[tuple[str, str]]:
    """What ``--check`` found, all of what is broken and examples of the rest; --json lists all."""
    rows = [
        ("not finite", f"{one['key']}: {one['nan']} NaN and {one['infinite']} infinite of {one['total']} values")
        for one in check["not_finite"]
    ]
    for one in check["huge"]:
        rows.append(("huge", f"{one['key']}: values up to {one['largest']:g}"))
    if dead := check["unchanged"]:
        example = f"{dead[0]['zero'][0]} is all zeros"
        rows.append(("unchanged", f"{len(dead)} modules change nothing (such as: {example})"))
    return rows or [("check", f"{check['tensors']} tensors, all of finite numbers")]


def _embeddings(tokens: Mapping[str, Any]) -> list[str]:
    """``ink (clip_l 4)``: the token, and how many vectors there are for each text encoder."""
    return [f"{token} ({counts(found['vectors'])})" for token, found in tokens.items()]


def _reasons(keys: Mapping[str, str]) -> list[str]:
    """Reasons with their number of tensors and one of them; --json lists all."""
    numbers = Counter(keys.values())
    examples = {reason: key for key, reason in reversed(list(keys.items()))}
    return [f"{number} x {reason} (such as {examples[reason]})" for reason, number in numbers.most_common()]


def _module(module: dict[str, Any]) -> str:
    rank = "" if module["rank"] is None else f", rank {module['rank']}"
    alpha = "" if module["alpha"] is None else f", alpha {module['alpha']:g}"
    part = "" if module["slice"] is None else f" {module['slice']}"
    return f"{module['component']} {module['module']}{part}: {module['type']}{rank}{alpha}"
