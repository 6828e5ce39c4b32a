"""Which torch this machine wants. Every environment we make is installed under that one constraint.

A plain `pip install torch` may fetch several GB of CUDA, and a dependency with a newer lower bound may
replace a torch that the machine's owner chose. So the choice is made once, here, in this order:

1. `LOOM_TORCH`: a requirement (`torch==2.9.1`) or only its version (`2.9.1`);
2. the torch installed beside the interpreter that runs us;
3. the newest fitting torch wheel in the local folders of pip's `find-links`;
4. none: plain `torch`.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from host_harness.cache import cache_dir


def torch_requirement() -> str:
    if wanted := os.environ.get("LOOM_TORCH", "").strip():
        return wanted if wanted.startswith("torch") else f"torch=={wanted}"
    try:
        return f"torch=={Version(importlib.metadata.version('torch')).public}"
    except importlib.metadata.PackageNotFoundError:
        pass
    found = [version for folder in find_links() for version in torch_wheels(folder)]
    # The public version only: "2.13.0" is also met by an installed "2.13.0+cpu", and other packages ask for it so.
    return f"torch=={max(found).public}" if found else "torch"


def constraints_file() -> Path:
    """The file for `pip install -c`. Its name holds its content, so that a running install is never disturbed."""
    wanted = torch_requirement()
    path = cache_dir() / f"constraints-{re.sub(r'[^A-Za-z0-9.]+', '-', wanted)}.txt"
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text("" if wanted == "torch" else f"{wanted}\n")
        os.replace(partial, path)
    return path


def find_links() -> list[Path]:
    """Local folders among pip's `find-links`, from its configuration files and the environment."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    entries = [os.environ.get("PIP_FIND_LINKS", "")]
    entries += re.findall(r"find-links='(.*)'$", listing, flags=re.MULTILINE)
    folders: dict[Path, None] = {}
    for word in " ".join(entry.replace("\\n", " ") for entry in entries).split():
        folder = Path(url2pathname(urlparse(word).path) if word.startswith("file:") else word).expanduser()
        if folder.is_dir():
            folders[folder] = None
    return list(folders)


def torch_wheels(folder: Path) -> list[Version]:
    fitting = set(sys_tags())
    versions: list[Version] = []
    for wheel in folder.glob("torch-*.whl"):
        try:
            _, version, _, tags = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:
            continue
        if fitting & tags:
            versions.append(version)
    return versions
