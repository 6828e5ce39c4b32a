"""The library's routes over HTTP, as the page asks them."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from safetensors.torch import save_file

import small_models
from host_harness.host import ComfyHost

pytestmark = pytest.mark.host

Json = dict[str, Any]
LONG = "x" * 200 + ".safetensors"
NAMES = ("<img src=x>.safetensors", "墨 インク é.safetensors", "sub/ink.safetensors", LONG)


@pytest.fixture(scope="module")
def loras(comfy: ComfyHost) -> Path:
    folder = comfy.loras / "library"
    tensors = small_models.lora_tensors(only="attn1", alpha=4)
    for name in NAMES:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, place, {"modelspec.title": f"<b>{place.stem}</b>", "ss_tag_frequency": "y" * 50_000})
    (folder / "broken.safetensors").write_bytes(b"broken")
    return folder


def answer(comfy: ComfyHost, path: str, body: Json | None = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, parsed body (bytes where it is no JSON), headers."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(comfy.url + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=60) as got:
            status, content, sent = got.status, got.read(), got.headers
    except urllib.error.HTTPError as error:
        status, content, sent = error.code, error.read(), error.headers
    kind = sent.get_content_type()
    return status, json.loads(content) if content and kind == "application/json" else content, sent


def entries(comfy: ComfyHost, since: int = 0) -> dict[str, Json]:
    return {entry["name"]: entry for entry in comfy.get(f"/loom/loras?since={since}")["loras"]}


def settled(comfy: ComfyHost, patience: float = 60) -> Json:
    """The list when nothing is left to be found out."""
    end = time.monotonic() + patience
    while (found := comfy.get("/loom/loras"))["state"]["busy"]:
        assert time.monotonic() < end, found["state"]
        time.sleep(0.2)
    return found


def test_the_list_has_the_names_of_the_hosts_list(comfy: ComfyHost, loras: Path) -> None:
    found = comfy.get("/loom/loras")
    assert [entry["name"] for entry in found["loras"]] == comfy.get("/models/loras")
    assert comfy.get("/api/loom/loras")["state"]["files"] == len(found["loras"])


def test_every_file_is_described_and_hashed(comfy: ComfyHost, loras: Path) -> None:
    found = {entry["name"]: entry for entry in settled(comfy)["loras"]}
    for name in NAMES:
        entry = found[f"library/{name}"]
        assert (entry["state"], entry["architecture"], entry["rank"]) == ("described", "loom_demo", "4")
        assert len(entry["sha256"]) == 64
    assert found["library/broken.safetensors"]["state"] == "failed"


def test_about(comfy: ComfyHost, loras: Path) -> None:
    for name in NAMES:
        status, found, _ = answer(comfy, f"/loom/lora?name={quote('library/' + name)}")
        assert status == 200, found
        assert found["report"]["file"] == Path(name).name
        assert found["report"]["tensors"]["used"] == found["report"]["tensors"]["total"]
        assert found["metadata"]["modelspec.title"] == f"<b>{Path(name).stem}</b>"
        assert len(found["metadata"]["ss_tag_frequency"]) < 20_100
        assert str(comfy.base_directory) not in json.dumps(found)
