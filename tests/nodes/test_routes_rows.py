"""Which file a pasted row means, by the hashes that the library has; without a host."""

from __future__ import annotations

import hashlib
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import lora_files


@pytest.fixture
def routes(files: ModuleType, folders: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    queue = SimpleNamespace(currently_running={})
    server = SimpleNamespace(instance=SimpleNamespace(prompt_queue=queue, send_sync=lambda *_: None))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=server))
    monkeypatch.setitem(sys.modules, "aiohttp", SimpleNamespace(web=None))  # no request is answered here
    folders.get_user_directory = lambda: str(folders.base / "user")
    found = importlib.import_module(f"{files.__package__}._routes_rows")
    yield found
    found.library().close()


def test_a_hash_that_nobody_has_reads_no_file_that_was_hashed(
    routes: ModuleType, files: ModuleType, folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle has no such hash, however often it is read."""
    place: Path = folders.base / "loras" / "ink.safetensors"
    lora_files.save(place, {"a": torch.ones(2)})
    place.with_name("old.pt").write_bytes(b"\x80\x02}q\x00.")
    routes.library().refresh()
    end = time.monotonic() + 30
    while routes.library().state()["busy"]:
        assert time.monotonic() < end
        time.sleep(0.02)
    monkeypatch.setattr(files, "open_tensors", None)
    monkeypatch.setattr(files, "file_hashes", None)
    autov3 = hashlib.sha256(place.read_bytes()[-8:]).hexdigest()[:12]
    row = routes.Row(lora="renamed", hash=autov3)
    assert routes.row_name(row) == "ink.safetensors"
    _, fault = routes._named(routes.Row(lora="gone", hash="0123456789ab"))
    assert fault.startswith("no LoRA named 'gone'")
