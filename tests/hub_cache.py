"""A hub's cache with one repository in it, as huggingface_hub lays it out, and a hub on this machine that has one."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, repository: str, parts: Mapping[str, Path]) -> Path:
    """Put files and folders into the snapshot of a repository's main branch; returns the snapshot's folder."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(COMMIT)
    for name, source in parts.items():
        target = snapshot / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    return snapshot


class Hub(SimpleHTTPRequestHandler):
    """A hub with one repository on this machine: what it has, and its files. ``folder`` is set by ``serving``."""

    folder: Path

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            names = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
            if "/tree/" in path:
                answer: object = [
                    {"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": name}
                    for name in names
                ]
            else:
                answer = {"id": "someone/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self._send(json.dumps(answer).encode(), "application/json", body)
            return
        name = path.partition("/resolve/")[2].partition("/")[2]
        if not (self.folder / name).is_file():
            self.send_error(404)
            return
        self._send((self.folder / name).read_bytes(), "application/octet-stream", body, name)

    def _send(self, content: bytes, kind: str, body: bool, name: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a hub that has these files, inside the block."""
    handler = type("Serving", (Hub,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
