"""The routes of the library: which LoRAs there are, and what is known of each."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import threading
from functools import cache
from pathlib import Path

import folder_paths
from server import PromptServer

from ..lora_core.errors import CorruptFileError, LoomError
from ..lora_core.io import open_tensors
from ..lora_core.library import Library, Listing
from ..lora_core.library.about import shown_metadata, shown_report, shown_sidecar
from ..lora_core.library.notes import FIELDS, read_fields, write_notes
from ..lora_core.library.previews import Previews, clamp, find_picture, tag_of
from ..lora_core.sidecars import read_sidecars
from ._files import ask_first, lora_name, lora_names, lora_path
from ._route import Answer, Asked, Json, NotThere, Route, without_folders

EVENT = "loom.library"
# A picture of a LoRA is asked for again after so many seconds; its tag then tells whether it changed.
_PICTURE_SECONDS = 60


def _user_folder() -> Path:
    """A folder of the host that its own routes do not serve."""
    if hasattr(folder_paths, "get_system_user_directory"):
        return Path(folder_paths.get_system_user_directory("loom"))
    return Path(folder_paths.get_user_directory()) / "__loom"  # what newer hosts return


def _notify(version: int, state: dict[str, object]) -> None:
    PromptServer.instance.send_sync(EVENT, {"version": version, "state": state})


def _idle() -> bool:
    return not PromptServer.instance.prompt_queue.currently_running


_making = threading.Lock()


def library() -> Library:
    """Made at the first request."""
    with _making:
        return _library()


@cache
def _library() -> Library:
    made = Library(
        lambda: Listing(lora_names(), folder_paths.get_folder_paths("loras")),
        _user_folder() / "library.sqlite",
        _notify,
        _idle,
    )
    atexit.register(made.close)
    ask_first(lambda name: known_autov3(made, name))
    return made


def known_autov3(found: Library, name: str) -> str | None:
    """What the library knows of a file's hash: "" where it has none, None where it was not read yet."""
    row = found.row(name)
    return row.autov3 if row is not None and row.sha256 else None


@cache
def _previews() -> Previews:
    return Previews(_user_folder() / "thumbnails")


def _loras(asked: Asked) -> Answer:
    return Answer(library().answer(asked.number("since", 0)).encode())


def _lora(asked: Asked) -> Json:
    return about(asked.text("name"))


def about(wanted: str) -> Json:
    """The answer about one LoRA; errors as ``lora_path``. What is no LoRA that we know has ``error``, and no report."""
    path, name = lora_path(wanted), lora_name(wanted)
    found, bare = library(), os.path.basename(path)
    found.refresh()
    found.prefer(name)
    report, error = found.report(name), None
    if report is None:
        described = found.describe(name, path)
        report, error = described.report and json.loads(described.report), described.error
    row, status = found.row(name), os.stat(path)
    return {
        "name": name,
        "size": status.st_size,
        "modified": round(status.st_mtime, 3),
        "report": None if report is None else shown_report(report, bare),
        "error": None if error is None else without_folders(error),
        "metadata": _metadata(path),
        "sidecar": shown_sidecar(read_sidecars(path)),
        "hashes": None if row is None or not row.sha256 else _hashes(row.sha256, row.autov3),
        "preview": find_picture(path) is not None,
    }


def _metadata(path: str) -> dict[str, str]:
    try:
        source = open_tensors(path)
    except (LoomError, OSError):  # which the error of the report says already
        return {}
    try:
        return shown_metadata(source.metadata)
    finally:
        source.close()


def _hashes(sha256: str, autov3: str) -> Json:
    return {"sha256": sha256, "autov2": sha256[:10], "autov3": autov3 or None}


def _preview(asked: Asked) -> Answer:
    path = lora_path(asked.text("name"))
    picture = find_picture(path)
    if picture is None:
        raise NotThere(f"{os.path.basename(path)}: there is no picture beside it, and none in its header.")
    size = clamp(asked.number("size", 256))
    tag = f'"{tag_of(picture, size)}"'
    headers = {"ETag": tag, "Cache-Control": f"private, max-age={_PICTURE_SECONDS}"}
    if tag in asked.headers.get("If-None-Match", ""):
        return Answer(status=304, headers=headers)
    try:
        made, _ = _previews().get(picture, size)
    except CorruptFileError as error:
        raise NotThere(error.message) from None
    return Answer(made, "image/webp", headers=headers)


def _notes(asked: Asked) -> Json:
    wanted = asked.text("name")
    path, fields = lora_path(wanted), read_fields({name: asked.body[name] for name in FIELDS if name in asked.body})
    written = write_notes(path, fields)
    return about(wanted) | {"saved": written}


async def _hash(asked: Asked) -> Json:
    """Waits for the library's own thread, which the end of the program does not wait for."""
    loop, wanted = asyncio.get_running_loop(), asked.text("name")

    def find() -> tuple[str, str]:
        library().refresh()
        return lora_name(wanted), lora_path(wanted)

    found = await asyncio.wrap_future(library().hash(*await loop.run_in_executor(None, find)))
    return _hashes(found.sha256, found.autov3 or "")


ROUTES: tuple[Route, ...] = (
    Route("GET", "/loom/loras", _loras),
    Route("GET", "/loom/lora", _lora),
    Route("GET", "/loom/preview", _preview, pool="pictures"),
    Route("POST", "/loom/notes", _notes),
    Route("POST", "/loom/hash", _hash),
)
