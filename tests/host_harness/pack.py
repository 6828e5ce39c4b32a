"""The pack as a user has it in `custom_nodes`: the files of the working tree that git would know."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

LEFT_OUT = (".git", ".nox", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis")


def copy_pack(repository: Path, target: Path) -> None:
    if not (repository / "__init__.py").is_file():
        raise FileNotFoundError(f"{repository} is not the pack: it has no __init__.py")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in _files(repository):
        source = repository / name
        if source.is_file():  # a tracked file may be deleted in the working tree
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)


def _files(repository: Path) -> list[str]:
    listing = subprocess.run(
        ["git", "-C", str(repository), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=False,
    )  # fmt: skip
    if listing.returncode == 0:
        names = listing.stdout.decode().split("\0")
    else:  # an unpacked archive: no git to ask
        names = [path.relative_to(repository).as_posix() for path in repository.rglob("*")]
    skipped = set(LEFT_OUT)
    return [name for name in names if name and not skipped & set(name.split("/")) and not name.startswith("demo/out/")]
