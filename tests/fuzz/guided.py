"""Fuzzing guided by coverage, with atheris (libFuzzer), for a bounded time: ``nox -s fuzz -- --seconds 60 file``.

Each target runs in a process of its own, from the seeds and what earlier runs found (``--corpus``). An exception that
a target may not raise, a hang, or more memory than ``MEMORY`` ends it; the input is left in the corpus folder as
``crash-...``, ``timeout-...`` or ``oom-...``, and is to become a test.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

MEMORY = 2_000  # MB, of which torch alone takes 400
HANG = 20  # seconds for one input, on a busy machine


def guide(target: str, folder: Path, seconds: int) -> None:
    """Runs in the process of one target; does not return."""
    import atheris
    import torch

    torch.set_num_threads(1)
    with atheris.instrument_imports(include=["lora_core"], enable_loader_override=False):
        import targets
    options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY}", f"-timeout={HANG}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(folder)], lambda d: targets.run(target, d))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", help="all of them when none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", type=Path, help="folder to keep inputs in; a temporary one when not given")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        guide(options.one, options.corpus, options.seconds)
    import seeds

    failed = 0
    with TemporaryDirectory() as temporary:
        corpus: Path = options.corpus or Path(temporary)
        seeds.write(corpus)
        for target in options.targets or seeds.seeds():
            command = [sys.executable, __file__, "--one", target, "--seconds", str(options.seconds)]
            done = subprocess.run(
                [*command, "--corpus", str(corpus / target)], capture_output=True, text=True, check=False
            )
            numbers = [line.split(":")[-1].strip() for line in done.stderr.splitlines() if "number_of_executed" in line]
            coverage = [line for line in done.stderr.splitlines() if " cov: " in line][-1:]
            print(f"{target}: {'fault' if done.returncode else 'no fault'}, {''.join(numbers)} inputs", *coverage)
            if done.returncode:
                failed = 1
                print(done.stdout[-2000:], done.stderr[-4000:])
    return failed


if __name__ == "__main__":
    sys.exit(main())
