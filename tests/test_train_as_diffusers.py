"""The loop gives the losses of diffusers' own scripts, whose logic benchmarks/_train_reference.py has in other words.

From the same factors, with the same noise and timesteps: loss, norm of the gradient and trained factors agree but for
rounding, over steps whose rate rises and falls and whose gradients are all clipped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from _train_cases import CASES, write_base, write_pictures
from _train_compare import compare
from _train_worker import plan_of

STEPS = 8


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take minutes for such small models."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo-4", "tiny", "tiny-xl"])
def test_each_step_has_the_loss_of_the_script(name: str, tmp_path: Path):
    case = CASES[name]
    base = write_base(case.model, tmp_path / "base")
    pictures = write_pictures(tmp_path / "pictures", case.size, 12)
    job = {"case": name, "base": base, "pictures": pictures, "folder": tmp_path, "device": "cpu", "precision": "fp32"}
    found = compare({**job, "steps": STEPS}, plan_of(job))
    assert found["clipped"] > 1, "clipping is part of what is compared"
    assert found["loss"] < 1e-5
    assert found["norm"] < 1e-5
    assert found["factors"] < 1e-3
    assert found["reads"] == 0, "a step waits for the device"
