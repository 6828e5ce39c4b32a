"""One route under ``/loom/``, and what all of them share: bodies, errors, threads.

A handler is a plain function of an ``Asked``. It runs in a thread, so it may read files; the host's loop never waits.
It returns what JSON takes, or an ``Answer``. A ``LoomError`` becomes status 400, one about a name that is not there
404, both with ``{"error": one line}``. An ``async`` handler is awaited in the host's loop instead: it must not block.

    def _answer(asked: Asked) -> Json:
        path = lora_path(asked.text("name"))          # the only way from a name to a file
        return {...}

    ROUTES = (Route("GET", "/loom/lora", _answer),)
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import folder_paths
from aiohttp import web

from ..lora_core.errors import ConfigError, LoomError, UnknownNameError

Json = dict[str, Any]

# Bytes of a JSON body; the largest that the page sends are rows and notes.
MAX_BODY = 2_000_000

Pool = Literal["quick", "slow", "pictures"]
# Threads of each pool: what takes seconds must not keep a list waiting, nor a page full of pictures.
POOLS: Mapping[Pool, int] = {"quick": 4, "slow": 1, "pictures": 2}


class NotThere(LoomError):
    """What was asked for is not there: status 404."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Args:
        query: of the address.
        body: the JSON object that was posted; empty for GET.
        headers: with names as the client wrote them; look-up ignores case.
    """

    query: Mapping[str, str]
    body: Json
    headers: Mapping[str, str]

    def text(self, name: str, default: str | None = None) -> str:
        """A text of the body or the query; ``ConfigError`` where it is missing without a default, or no text."""
        value = self.body.get(name, self.query.get(name, default))
        if not isinstance(value, str) or (default is None and not value):
            raise ConfigError(name, ["it is missing" if value in (None, "") else f"it is {_kind(value)}, not a text"])
        return value

    def number(self, name: str, default: int) -> int:
        """A whole number of the query; ``ConfigError`` for what is none."""
        value = self.query.get(name, "").strip()
        try:
            return int(value) if value else default
        except ValueError:
            raise ConfigError(name, [f"{value!r} is no whole number"]) from None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is not simply a JSON object."""

    body: bytes = b""
    type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Asked], "Json | Answer | Awaitable[Json | Answer]"]


@dataclass(frozen=True, slots=True)
class Route:
    """
    Args:
        method: ``GET`` reads, ``POST`` changes or computes.
        path: without ``/api``, under which the host gives it a second time.
        pool: where the handler runs, if it is not ``async``.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    pool: Pool = "quick"


def register(route: Route, routes: web.RouteTableDef) -> None:
    """Add a route to the host's, whose checks of the origin then apply to it."""

    async def handle(request: web.Request) -> web.Response:
        try:
            body = await _body(request) if route.method == "POST" else {}
            asked = Asked(request.query, body, request.headers)
            if inspect.iscoroutinefunction(route.handler):
                result = await route.handler(asked)
            else:
                loop = asyncio.get_running_loop()
                result = await loop.run_in_executor(_pool(route.pool), route.handler, asked)
            answer = result if isinstance(result, Answer) else Answer(dumps(result))
        except LoomError as error:
            answer = _refused(error)
        except OSError as error:
            answer = fault(400, f"the disk says: {error.strerror or type(error).__name__}")
        except Exception as error:  # a fault of ours: the log has it all, the page one line
            logging.exception("LoRA Loom: %s %s failed", route.method, route.path)
            answer = fault(500, f"{type(error).__name__} in LoRA Loom, see the host's log")
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", **answer.headers}
        return web.Response(body=answer.body, status=answer.status, content_type=answer.type, headers=headers)

    routes.route(route.method, route.path)(handle)


def fault(status: int, line: str) -> Answer:
    """The answer to what cannot be done."""
    return Answer(dumps({"error": without_folders(line)}), status=status)


def dumps(value: object) -> bytes:
    """JSON that a page can read: NaN and infinity, which JSON has not, are refused here and not there."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def without_folders(text: str) -> str:
    """A text in which names of files are left of paths into the host's folders."""
    roots = {folder_paths.base_path, folder_paths.get_user_directory(), folder_paths.get_output_directory()}
    roots |= {os.path.dirname(os.path.abspath(__file__)), *folder_paths.get_folder_paths("loras")}
    for root in sorted(roots, key=len, reverse=True):
        if len(root) > 1:
            text = text.replace(root + os.sep, "").replace(root, "")
    return text


async def _body(request: web.Request) -> Json:
    """The JSON object of a request; read up to its limit and no further."""
    # A page of another site can post a form or a plain text unasked, and the host compares origins on loopback only;
    # for this type the browser asks the host first, which says no.
    if request.content_type != "application/json":
        raise ConfigError("request", ["its type is not application/json"])
    raw = bytearray()
    try:
        async for chunk in request.content.iter_chunked(1 << 16):
            raw += chunk
            if len(raw) > MAX_BODY:
                raise ConfigError("request", [f"it is larger than {MAX_BODY} bytes"])
    except web.RequestPayloadError:  # cut short, or not packed as it says
        raise ConfigError("request", ["its body cannot be read"]) from None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ConfigError("request", ["its body is not JSON"]) from None
    if not isinstance(value, dict):
        raise ConfigError("request", [f"its body is {_kind(value)}, expected an object"])
    return value


def _refused(error: LoomError) -> Answer:
    return fault(404 if isinstance(error, UnknownNameError | NotThere) else 400, error.message)


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}.get(type(value), "a number")


@cache
def _pool(name: Pool) -> ThreadPoolExecutor:
    """Made at the first request: the host's start costs nothing."""
    return ThreadPoolExecutor(POOLS[name], thread_name_prefix=f"loom-{name}")
