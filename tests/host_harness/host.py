"""ComfyHost: a real ComfyUI process with the pack installed, in a folder of its own that goes away with it."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from host_harness.environment import HostEnvironment, host_variables
from host_harness.pack import copy_pack
from host_harness.prompts import HostError, Json, PromptResult, RunningPrompt, request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A hyphen and a dot, as real folders have them: the host turns them into a module name that cannot be typed.
PACK_NAME = "lora-loom.v0.1-test"
TROUBLE = re.compile(r"\[(ERROR|CRITICAL)\]|Traceback|IMPORT FAILED|Cannot import|Error while calling|comfy_entrypoint")
HARMLESS = re.compile(r"Failed to resolve template asset paths")  # the templates' pictures are not installed
FOLDERS = (
    "models/checkpoints",
    "models/loras",
    "models/vae",
    "input",
    "output",
    "temp",
    "user",
    "custom_nodes",
)


class ComfyHost:
    """See the package's docstring for the use. `base_directory=None` makes a temporary one."""

    def __init__(
        self, environment: HostEnvironment, *, repository: Path, base_directory: Path | None = None,
        port: int | None = None, cpu: bool = True, arguments: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.environment = environment
        self.repository = repository
        self._temporary = base_directory is None
        self.base_directory = base_directory or Path(tempfile.mkdtemp(prefix="loom-host-"))
        for folder in FOLDERS:
            (self.base_directory / folder).mkdir(parents=True, exist_ok=True)
        self.checkpoints = self.base_directory / "models" / "checkpoints"
        self.loras = self.base_directory / "models" / "loras"
        self.input = self.base_directory / "input"
        self.output = self.base_directory / "output"
        self.pack = self.base_directory / "custom_nodes" / PACK_NAME
        self.log_file = self.base_directory / "host.log"
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = [*(["--cpu"] if cpu else []), *arguments]
        self.start_seconds = 0.0
        self.startup_log = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 180, *, echo: bool = False) -> ComfyHost:
        """Install the pack, start the process, wait until it answers. `echo`: its log goes to our own streams."""
        copy_pack(self.repository, self.pack)
        command = [
            str(self.environment.python), str(self.environment.comfy / "main.py"),
            "--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(self.base_directory),
            # The default file is in ComfyUI's folder and locked by the first host that runs from it.
            "--database-url", f"sqlite:///{self.base_directory / 'user' / 'comfyui.db'}",
            # Keep only the last prompt's results: predictable and small. The default looks at free memory.
            "--cache-classic", "--disable-api-nodes", "--disable-auto-launch", *self.arguments,
        ]  # fmt: skip
        atexit.register(self.stop)
        started = time.monotonic()
        with contextlib.ExitStack() as files:
            log: IO[bytes] | None = None if echo else files.enter_context(open(self.log_file, "ab"))
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT if log else None,
                cwd=self.base_directory, env=host_variables(), start_new_session=True, preexec_fn=_die_with_parent(),
            )  # fmt: skip
        try:
            self._wait_until_ready(started + timeout)
        except BaseException:
            self.stop(keep=True)
            raise
        self.start_seconds = time.monotonic() - started
        self.startup_log = self.log()
        return self

    def _wait_until_ready(self, end: float) -> None:
        while time.monotonic() < end:
            if not self.alive:
                raise self.failed(f"the host ended with {self._process.returncode if self._process else None}")
            try:
                request(self.url, "/system_stats", timeout=5)
                return
            except OSError:
                time.sleep(0.2)
        raise self.failed("the host did not answer in time")

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def failed(self, what: str) -> HostError:
        return HostError(f"{what}; the end of its log:\n{self.log()[-4000:]}")

    def stop(self, *, keep: bool = False) -> None:
        """End the process and all its children; remove the temporary folder unless LOOM_KEEP_HOST is set."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            _end_group(process)
        if self._temporary and not keep and not os.environ.get("LOOM_KEEP_HOST"):
            shutil.rmtree(self.base_directory, ignore_errors=True)

    def wait(self) -> int:
        """Until the process ends by itself; its exit status."""
        return self._process.wait() if self._process else 0

    def __enter__(self) -> ComfyHost:
        return self if self.alive else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What it says

    def log(self, since: int = 0) -> str:
        """Everything the host printed (without colours), or what it printed after `log_mark()`."""
        if not self.log_file.exists():
            return ""
        with open(self.log_file, "rb") as file:
            file.seek(since)
            return re.sub(r"\x1b\[[0-9;]*m", "", file.read().decode(errors="replace"))

    def problems(self, since: int | None = None) -> list[str]:
        """The lines of the log that tell of an error, less those that this kind of host always prints.

        After a `log_mark()`; without one, of the start only: tests before this one may have failed prompts on purpose.
        """
        lines = (self.startup_log if since is None else self.log(since)).splitlines()
        return [line for line in lines if TROUBLE.search(line) and not HARMLESS.search(line)]

    def log_mark(self) -> int:
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def get(self, path: str) -> Any:
        return request(self.url, path)

    def post(self, path: str, body: Any) -> Any:
        return request(self.url, path, body)

    def object_info(self, node_id: str | None = None) -> Json:
        """All nodes as the page sees them, or one of them."""
        if node_id is None:
            return self.get("/object_info")
        return self.get(f"/object_info/{urllib.parse.quote(node_id)}")[node_id]

    # Running prompts

    def submit(self, prompt: Json, extra_data: Json | None = None) -> RunningPrompt:
        """Queue a prompt (API form) and return at once. Raises HostPromptError when the host refuses it."""
        return RunningPrompt(self.url, prompt, extra_data, self.failed)

    def queue(self, prompt: Json, *, timeout: float = 240, extra_data: Json | None = None) -> PromptResult:
        """Run a prompt (API form) to its end."""
        return self.submit(prompt, extra_data).wait(timeout)

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload the models and forget cached results (done by the host's worker soon after)."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    # Files

    def view(self, image: Json) -> NDArray[np.uint8]:
        """One entry of an output's "images", through the host's /view: (height, width, 3), uint8."""
        import io

        import numpy as np
        from PIL import Image

        fields = {name: image.get(name, "") for name in ("filename", "subfolder", "type")}
        content = request(self.url, f"/view?{urllib.parse.urlencode(fields)}")
        with Image.open(io.BytesIO(content)) as opened:
            return np.asarray(opened.convert("RGB"))

    def images(self, result: PromptResult, node_id: str | None = None) -> list[NDArray[np.uint8]]:
        """The images a prompt saved, in all its output nodes or in one."""
        nodes = result.outputs.values() if node_id is None else [result.outputs[node_id]]
        return [self.view(image) for output in nodes for image in output.get("images", [])]

    def add_model(self, source: Path, kind: str = "loras", name: str | None = None) -> str:
        """Put a file under `models/<kind>/<name>` (linked, not copied) and return its name for a loader."""
        name = name or source.name
        target = self.base_directory / "models" / kind / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system
            try:
                target.symlink_to(source.resolve())
            except OSError:
                shutil.copy(source, target)
        return name


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def _die_with_parent() -> Any:
    """A killed test run must not leave a host with gigabytes behind: Linux can tie a child's life to its parent's."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
        process.wait(10)
        return
    for how, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            if how == signal.SIGKILL:
                return
