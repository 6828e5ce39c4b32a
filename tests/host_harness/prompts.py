"""One prompt on its way through the host: sent over HTTP, followed over the websocket."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

# Never through a proxy that the machine's environment names: the host is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class HostError(RuntimeError):
    """The host did not start, died, or did not answer. The message ends with the last lines of its log."""


class HostPromptError(RuntimeError):
    """The host refused a prompt, a node in it failed, or it was interrupted.

    Refused before anything ran: `node_errors` {node id: {"errors": [...], "class_type": ...}} and `error`.
    Failed while running: `node_id`, `node_type`, `exception_type`, `exception_message`, `traceback`.
    Interrupted: `interrupted` is true. `str(error)` holds every message of these, for `pytest.raises(match=)`.
    """

    def __init__(
        self, *, error: Json | None = None, node_errors: Json | None = None, failure: Json | None = None,
        interrupted: bool = False,
    ) -> None:  # fmt: skip
        failure = failure or {}
        self.error: Json = error or {}
        self.node_errors: Json = node_errors or {}
        self.interrupted = interrupted
        self.node_id: str | None = failure.get("node_id")
        self.node_type: str | None = failure.get("node_type")
        self.exception_type: str = failure.get("exception_type", "")
        self.exception_message: str = failure.get("exception_message", "").strip()
        self.traceback: str = "".join(failure.get("traceback", []))
        super().__init__("\n".join(self._lines()))

    def _lines(self) -> list[str]:
        lines = [f"interrupted in node {self.node_id} ({self.node_type})"] if self.interrupted else []
        if self.exception_type:
            lines.append(f"node {self.node_id} ({self.node_type}): {self.exception_type}: {self.exception_message}")
        if self.error:
            lines.append(f"refused: {self.error.get('message', '')} {self.error.get('details', '')}".strip())
        for node_id, fault in self.node_errors.items():
            for one in fault.get("errors", []):
                lines.append(f"node {node_id} ({fault.get('class_type')}): {one.get('message')}: {one.get('details')}")
        return lines


@dataclass(slots=True)
class PromptResult:
    """What a finished prompt left behind."""

    prompt_id: str
    outputs: dict[str, Json] = field(default_factory=dict[str, Json])  # node id -> {"images": [...], "text": [...]}
    executed: list[str] = field(default_factory=list[str])  # node ids in the order they ran
    cached: list[str] = field(default_factory=list[str])  # node ids the host did not run again
    progress: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])  # node, value, max
    previews: list[bytes] = field(default_factory=list[bytes])  # binary messages as they came
    messages: list[tuple[str, Json]] = field(default_factory=list[tuple[str, Json]])  # every message, in order
    seconds: float = 0.0


class RunningPrompt:
    """A prompt that the host has accepted. `wait()` for its result."""

    def __init__(self, url: str, prompt: Json, extra_data: Json | None, died: Callable[[str], HostError]) -> None:
        import websocket  # only who runs prompts needs it

        self._url = url
        self._died = died
        self._started = time.monotonic()
        client = uuid.uuid4().hex
        # Listening comes first, so that no message is missed.
        self._socket = websocket.create_connection(f"ws{url.removeprefix('http')}/ws?clientId={client}", timeout=30)
        body: Json = {"prompt": prompt, "client_id": client}
        if extra_data:
            body["extra_data"] = extra_data
        try:
            answer = request(url, "/prompt", body)
        except urllib.error.HTTPError as refusal:
            self._socket.close()
            text = refusal.read().decode(errors="replace")
            if refusal.code != 400:
                raise died(f"/prompt answered {refusal.code}: {text}") from refusal
            said = json.loads(text)
            raise HostPromptError(error=said.get("error"), node_errors=said.get("node_errors")) from None
        except OSError as fault:
            self._socket.close()
            raise died(f"/prompt: {fault}") from fault
        self.node_errors: Json = answer.get("node_errors") or {}
        self.result = PromptResult(answer["prompt_id"])
        self._failure: HostPromptError | None = None
        self._done = False

    def wait(self, timeout: float = 240) -> PromptResult:
        """Follow the prompt to its end. Raises HostPromptError when a node failed or an output was refused."""
        self.wait_for(lambda _kind, _data: False, timeout)
        self.result.seconds = time.monotonic() - self._started
        history = request(self._url, f"/history/{self.result.prompt_id}")
        self.result.outputs = history.get(self.result.prompt_id, {}).get("outputs", {})
        if self._failure:
            raise self._failure
        if self.node_errors:  # the host runs the outputs that are valid and only mentions the others
            raise HostPromptError(node_errors=self.node_errors)
        return self.result

    def wait_for(self, wanted: Callable[[str, Json], bool], timeout: float = 240) -> bool:
        """Read messages until `wanted(kind, data)`; false when the prompt ended first."""
        import websocket

        end = time.monotonic() + timeout
        while not self._done:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                message = self._socket.recv()
            except websocket.WebSocketTimeoutException:
                request(self._url, "/interrupt", {})  # so that the next prompt does not wait behind this one
                self._socket.close()
                raise self._died(f"the prompt did not finish in {timeout:.0f} s") from None
            except (websocket.WebSocketException, OSError) as fault:
                raise self._died(f"the websocket broke: {fault}") from fault
            if not message:
                raise self._died("the host closed the websocket")
            if isinstance(message, bytes):
                self.result.previews.append(message)
                continue
            content = json.loads(message)
            kind, data = content["type"], content.get("data") or {}
            if data.get("prompt_id") == self.result.prompt_id:
                self._note(kind, data)
                if wanted(kind, data):
                    return True
        return False

    def _note(self, kind: str, data: Json) -> None:
        result = self.result
        result.messages.append((kind, data))
        if kind == "executing" and data.get("node") is None:
            self._done = True  # sent after the history is written
            self._socket.close()
        elif kind == "executing":
            result.executed.append(data["node"])
        elif kind == "execution_cached":
            result.cached.extend(data["nodes"])
        elif kind == "progress":
            result.progress.append((data["node"], data["value"], data["max"]))
        elif kind == "execution_error":
            self._failure = HostPromptError(failure=data)
        elif kind == "execution_interrupted":
            self._failure = HostPromptError(failure=data, interrupted=True)


def request(url: str, path: str, body: Any = None, *, timeout: float = 60) -> Any:
    """GET, or POST when there is a body; parsed when it is JSON, else bytes (None when there is nothing)."""
    data = None if body is None else json.dumps(body).encode()
    sent = urllib.request.Request(url + path, data=data, headers={"Content-Type": "application/json"} if data else {})
    with _opener.open(sent, timeout=timeout) as answer:
        content: bytes = answer.read()
        kind = answer.headers.get_content_type()
    if not content:
        return None
    return json.loads(content) if kind == "application/json" else content
