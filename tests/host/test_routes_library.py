"""The library's routes over HTTP, as the page asks them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import websocket
from PIL import Image
from safetensors.torch import save_file

import small_models
from host_harness.environment import HostEnvironment
from host_harness.host import ComfyHost

pytestmark = pytest.mark.host

Json = dict[str, Any]
JSON = {"Content-Type": "application/json"}
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
    asked = urllib.request.Request(comfy.url + path, data=data, headers={**JSON, **headers} if data else headers)
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


def test_what_changed_and_what_is_gone(comfy: ComfyHost, loras: Path) -> None:
    version = settled(comfy)["version"]
    path = loras / "new.safetensors"
    shutil.copy(loras / NAMES[0], path)
    settled_at(comfy, lambda found: "library/new.safetensors" in found)
    found = comfy.get(f"/loom/loras?since={version}")
    assert [entry["name"] for entry in found["loras"]] == ["library/new.safetensors"]
    path.unlink()
    settled_at(comfy, lambda found: "library/new.safetensors" not in found)
    found = comfy.get(f"/loom/loras?since={version}")
    assert (found["loras"], found["gone"]) == ([], ["library/new.safetensors"])


def settled_at(comfy: ComfyHost, there: Callable[[dict[str, Json]], bool]) -> None:
    end = time.monotonic() + 60
    while not there({entry["name"]: entry for entry in settled(comfy)["loras"]}):
        assert time.monotonic() < end
        time.sleep(0.2)


def test_an_event_tells_of_a_change(comfy: ComfyHost, loras: Path) -> None:
    settled(comfy)
    events = websocket.create_connection(comfy.url.replace("http", "ws") + "/ws?clientId=library", timeout=30)
    try:
        shutil.copy(loras / NAMES[0], loras / "told.safetensors")
        settled_at(comfy, lambda found: "library/told.safetensors" in found)
        wanted = comfy.get("/loom/loras")
        said = json.loads(events.recv())
        while said["type"] != "loom.library" or said["data"]["version"] < wanted["version"]:
            said = json.loads(events.recv())
        assert said["data"] == {"version": wanted["version"], "state": wanted["state"]}
    finally:
        events.close()


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "library/../../secret", "C:\\secret", "", "a\0b"]
)
@pytest.mark.parametrize("route", ["lora", "preview", "notes", "hash"])
def test_a_name_outside_is_refused_in_one_line(comfy: ComfyHost, loras: Path, route: str, name: str) -> None:
    (comfy.loras.parent / "secret.safetensors").write_bytes((loras / NAMES[0]).read_bytes())
    if route in ("notes", "hash"):
        status, found, _ = answer(comfy, f"/loom/{route}", {"name": name, "notes": "x"})
    else:
        status, found, _ = answer(comfy, f"/loom/{route}?name={quote(name)}")
    assert status in (400, 404)
    assert list(found) == ["error"]
    assert "\n" not in found["error"]
    assert str(comfy.base_directory) not in found["error"]
    assert not (comfy.loras.parent / "secret.json").exists()


def test_a_name_that_is_not_there_and_one_that_is_broken(comfy: ComfyHost, loras: Path) -> None:
    status, found, _ = answer(comfy, "/loom/lora?name=" + quote("library/<img src=y>.safetensors"))
    assert (status, list(found)) == (404, ["error"])
    status, found, _ = answer(comfy, "/loom/lora?name=library/broken.safetensors")
    assert (status, found["report"], found["metadata"]) == (200, None, {})
    assert found["error"].startswith("broken.safetensors: only 6 bytes long")
    status, found, _ = answer(comfy, "/loom/preview?name=library/broken.safetensors")
    assert status == 404
    (loras / "dead.safetensors").symlink_to(comfy.base_directory / "nowhere")
    for path in ("/loom/lora", "/loom/preview"):
        status, found, _ = answer(comfy, f"{path}?name=library/dead.safetensors")
        assert status == 400
        assert str(comfy.base_directory) not in found["error"]
    (loras / "dead.safetensors").unlink()


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"{", b"\xff", b'{"name": 3}', b"[" * 100_000, b'"' + b"x" * 3_000_000 + b'"']
)
def test_a_body_that_is_none(comfy: ComfyHost, loras: Path, body: bytes) -> None:
    for path in ("/loom/notes", "/loom/hash"):
        asked = urllib.request.Request(comfy.url + path, data=body, method="POST", headers=JSON)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(asked, timeout=30)
        assert caught.value.code == 400
        assert list(json.loads(caught.value.read())) == ["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_of_another_site_can_send_unasked_is_refused(comfy: ComfyHost, loras: Path, kind: str) -> None:
    """The host compares origins on loopback alone, and browsers send no Sec-Fetch-Site to a plain address elsewhere."""
    body = {"name": f"library/{NAMES[0]}", "notes": "evil"}
    headers = {"Content-Type": kind, "Host": "192.168.1.5:8188", "Origin": "https://evil.example"}
    status, found, _ = answer(comfy, "/loom/notes", body, **headers)
    assert (status, found["error"]) == (400, "request: its type is not application/json")
    assert not (loras / NAMES[0]).with_suffix(".json").exists()


def test_a_body_that_is_not_packed_as_it_says(comfy: ComfyHost, loras: Path) -> None:
    status, found, _ = answer(comfy, "/loom/notes", {"name": "x"}, **{"Content-Encoding": "gzip"})
    assert (status, list(found)) == (400, ["error"])


def test_another_sites_page_is_refused(comfy: ComfyHost, loras: Path) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("/loom/loras", "/api/loom/loras", f"/loom/lora?name={quote('library/' + NAMES[0])}"):
            assert answer(comfy, path, **headers)[0] == 403
        body = {"name": f"library/{NAMES[0]}", "notes": "evil"}
        for path in ("/loom/notes", "/api/loom/notes"):
            assert answer(comfy, path, body, **headers)[0] == 403
    assert answer(comfy, "/loom/loras", Origin=comfy.url)[0] == 200
    assert not (loras / NAMES[0]).with_suffix(".json").exists()


def test_changes_are_posts(comfy: ComfyHost, loras: Path) -> None:
    for path in ("/loom/notes", "/loom/hash"):
        assert answer(comfy, f"{path}?name={quote('library/' + NAMES[0])}&notes=x")[0] in (404, 405)
    assert answer(comfy, "/loom/loras", {})[0] == 405


def test_a_preview_is_webp_and_cached_until_it_changes(comfy: ComfyHost, loras: Path) -> None:
    name = NAMES[1]
    picture = (loras / name).with_suffix(".png")
    path = f"/loom/preview?name={quote('library/' + name)}&size="
    Image.new("RGB", (400, 200), (9, 99, 199)).save(picture)
    status, content, sent = answer(comfy, path + "100")
    assert (status, sent.get_content_type()) == (200, "image/webp")
    assert sent["X-Content-Type-Options"] == "nosniff"
    assert Image.open(io.BytesIO(content)).size == (100, 50)
    assert Image.open(io.BytesIO(answer(comfy, path + "999999")[1])).size == (400, 200)
    assert answer(comfy, path + "100", **{"If-None-Match": sent["ETag"]})[0] == 304
    Image.new("RGB", (40, 20)).save(picture)
    status, content, _ = answer(comfy, path + "100", **{"If-None-Match": sent["ETag"]})
    assert (status, Image.open(io.BytesIO(content)).size) == (200, (40, 20))
    assert answer(comfy, path + "large")[0] == 400
    picture.write_bytes(b"no picture")
    status, content, _ = answer(comfy, path + "100")
    assert (status, list(content)) == (404, ["error"])
    picture.unlink()
    assert answer(comfy, path + "100")[0] == 404
    settled_at(comfy, lambda found: not found[f"library/{name}"]["preview"])


VIDEO = """
import av, numpy, sys
for path, codec in ((sys.argv[1], "mpeg4"), (sys.argv[2], "libvpx")):
    with av.open(path, "w", format="mp4" if codec == "mpeg4" else "webm") as out:
        stream = out.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for level in (200, 20, 20):
            frame = av.VideoFrame.from_ndarray(numpy.full((96, 128, 3), level, "uint8"), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
"""


def test_of_a_video_the_first_frame(comfy: ComfyHost, loras: Path) -> None:
    base = loras / "sub" / "ink.preview.png"
    places = base.with_suffix(".mp4"), base.with_suffix(".webm")
    comfy.environment.run_code(VIDEO, *map(str, places))
    for place in reversed(places):
        status, content, _ = answer(comfy, "/loom/preview?name=library/sub/ink.safetensors&size=64")
        assert status == 200, content
        image = Image.open(io.BytesIO(content)).convert("L")
        assert image.size == (64, 48)
        assert image.getpixel((30, 20)) > 150
        place.unlink()
    # What is a play list would be read by its content, and name any other file.
    places[0].write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    assert answer(comfy, "/loom/preview?name=library/sub/ink.safetensors&size=64")[0] == 404
    places[0].unlink()


def test_notes_lie_beside_the_file_and_are_shown(comfy: ComfyHost, loras: Path) -> None:
    name = f"library/{NAMES[1]}"
    body = {"name": name, "notes": "<script>alert(1)</script> 墨", "strength": 0.65, "trigger_words": ["ink style"]}
    status, found, _ = answer(comfy, "/loom/notes", body)
    assert status == 200
    side = found["sidecar"]
    assert (side["notes"], side["strength"], side["trigger_words"]) == (body["notes"], 0.65, ["ink style"])
    assert side["sources"] == [Path(NAMES[1]).stem + ".json"]
    assert json.loads((loras / NAMES[1]).with_suffix(".json").read_text("utf-8"))["activation text"] == "ink style"
    assert found["report"]["trigger_words"] == ["ink style"]
    entry = entries(comfy)[name]
    assert (entry["strength"], entry["trigger_words"]) == (0.65, ["ink style"])
    status, found, _ = answer(comfy, "/loom/notes", {"name": name, "strength": "much"})
    assert (status, "expected a number" in found["error"]) == (400, True)


def test_a_hash_now(comfy: ComfyHost, loras: Path) -> None:
    name = f"library/{NAMES[2]}"
    digest = hashlib.sha256((loras / NAMES[2]).read_bytes()).hexdigest()
    found = comfy.post("/loom/hash", {"name": name})
    assert (found["sha256"], found["autov2"]) == (digest, digest[:10])
    assert answer(comfy, f"/loom/lora?name={quote(name)}")[1]["hashes"] == found


def test_the_database_is_where_no_route_serves_it(comfy: ComfyHost, loras: Path) -> None:
    comfy.get("/loom/loras")
    assert (comfy.base_directory / "user" / "__loom" / "library.sqlite").is_file()
    assert answer(comfy, "/userdata/library.sqlite")[0] == 404


def test_nothing_happens_before_the_first_request_and_nothing_in_the_log(
    comfy_environment: HostEnvironment, repository: Path
) -> None:
    with ComfyHost(comfy_environment, repository=repository) as host:
        assert host.problems() == []
        assert not (host.base_directory / "user" / "__loom").exists()
        mark = host.log_mark()
        host.get("/loom/loras")
        assert host.problems(since=mark) == []
