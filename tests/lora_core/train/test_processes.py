"""Runs as a user starts them: killed at any moment, and on two processes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import running
import small_runs
from lora_core.errors import ConfigError
from lora_core.train.config import RunSection, TrainConfig
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.loop import train
from lora_core.train.processes import Processes

INTERRUPTED = 130


def newest(config: TrainConfig) -> int:
    """Step of the newest state, -1 without any."""
    folder = small_runs.states_of(config)
    return max((int(one.name.split("-")[1]) for one in folder.glob("step-*")), default=-1)


def test_killed_again_and_again_the_same_command_ends_as_if_never(demo: DiffusersDenoiser, tmp_path: Path):
    """Once between steps, once while a state is written, once while a LoRA is; all LoRAs that are there are whole."""
    sections = {"run": {"steps": 24}, "optimizer": {"schedule": "cosine", "warmup": 2, "ema": 0.9}}
    config = small_runs.config(tmp_path, "killed", **sections, output={"state_every": 1, "save_every": 5})
    out, states = Path(config.output.folder), small_runs.states_of(config)

    def state_is_written() -> bool:
        return newest(config) >= 4 and any(one.name.startswith(".partial-") for one in os.scandir(states))

    def lora_is_written() -> bool:
        return any(one.name.startswith(".ink") for one in os.scandir(out))

    first = running.warm(config)
    first.until(lambda: newest(config) >= 1)
    time.sleep(random.Random(4).random() / 2)
    assert first.send(signal.SIGKILL) == -signal.SIGKILL
    for seen in (state_is_written, lora_is_written):
        again = running.warm(config)
        again.until(seen)
        assert again.send(signal.SIGKILL) == -signal.SIGKILL
        for file in out.glob("*.safetensors"):
            assert load_file(file), file
    assert 0 < newest(config) < 24
    assert "going on from step" in running.warm(config).finish()

    whole = small_runs.config(tmp_path, "whole", **sections)
    train(whole, denoiser=demo)
    a, b = small_runs.last_state(whole), small_runs.last_state(config)
    assert small_runs.differing(a.tensors, b.tensors) == []
    finished = {name: tensor for name, tensor in small_runs.tensors_of(config).items() if "ink.safe" in name}
    assert small_runs.differing(small_runs.tensors_of(whole), finished) == []
    assert small_runs.losses_of(whole) == small_runs.losses_of(config)
    # What the kills left half-written is gone.
    assert not [one for one in (*out.iterdir(), *states.iterdir()) if one.name.startswith(".")]


def test_two_processes_interrupted_and_gone_on_with_are_one_with_twice_the_batch(
    demo: DiffusersDenoiser, tmp_path: Path
):
    """By plain gradient descent, where a difference of gradients is a difference of parameters."""
    sections = {
        "optimizer": {"name": "sgd", "learning_rate": 1.0, "weight_decay": 0, "clip": 0},
        "output": {"state_every": 2},
    }

    def config(place: str, steps: int, **run: int) -> TrainConfig:
        return small_runs.config(tmp_path, place, **sections, run={"steps": steps, **run})

    each = {"batch": 1, "accumulate": 2}
    launched = running.command(config("two", 2000, **each), processes=2)
    launched.until(lambda: newest(config("two", 2000)) >= 4)
    assert launched.send(signal.SIGTERM) != 0  # to the launcher, which passes it on
    step = newest(config("two", 2000))
    assert launched.output.count(f"stopped at step {step} of 2000") == 1, "one process speaks for both"
    assert load_file(small_runs.lora_of(config("two", 2000), step))

    # The same command goes on, in two processes that know of each other as accelerate's do; two more steps are enough.
    two = config("two", step + 2, **each)
    said = "".join([one.finish() for one in running.warm_pair(two)])
    assert said.count(f"going on from step {step} of {step + 2}") == 1
    assert said.count(f"step {step + 2}/{step + 2}") == 1

    # Never interrupted, it is the same to the last bit.
    whole = config("whole", step + 2, **each)
    for one in running.warm_pair(whole):
        one.finish()
    a, b = small_runs.last_state(whole), small_runs.last_state(two)
    assert a.facts["processes"] == b.facts["processes"] == 2
    assert small_runs.differing(a.tensors, b.tensors) == []
    assert small_runs.losses_of(whole) == small_runs.losses_of(two)

    # One process that sees the same pictures: sums in another order, so it agrees to the rounding of float32.
    one = config("one", step + 2, batch=4)
    train(one, denoiser=demo)
    for name, tensor in small_runs.last_state(one).tensors.items():
        torch.testing.assert_close(b.tensors[name], tensor, rtol=1e-3, atol=5e-6, msg=name)
    losses = small_runs.losses_of(one)
    assert small_runs.losses_of(two) == pytest.approx(losses, rel=1e-4)
    # Had each gone its own way, by the gradients of its own half, the first loss would agree and the others not.
    alone = config("alone", step + 2, **each)
    train(alone, denoiser=demo)
    assert small_runs.losses_of(alone) != pytest.approx(losses, rel=1e-2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_saves(number: signal.Signals, tmp_path: Path):
    config = small_runs.config(tmp_path, run={"steps": 2000}, output={"state_every": 2})
    started = running.warm(config)
    started.until(lambda: newest(config) >= 4)
    assert started.send(number) == INTERRUPTED

    step = newest(config)
    stopped = f"stopped at step {step} of 2000; saved {small_runs.lora_of(config, step)} and the state; the same"
    assert stopped in started.output
    assert load_file(small_runs.lora_of(config, step))


def test_devices_and_number_types():
    with pytest.raises(ConfigError, match=r"run\.precision: fp16 needs a GPU, and this run is on the CPU"):
        Processes(RunSection(device="cpu", precision="fp16"))
    with pytest.raises(ConfigError, match=r"run\.device: cuda:99 cannot be used"):
        Processes(RunSection(device="cuda:99"))
    one = Processes(RunSection(device="cpu", precision="bf16"))

    assert (one.index, one.count, one.main, one.device) == (0, 1, True, torch.device("cpu"))
    with one.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_alone_there_is_nobody_to_average_with():
    one = Processes(RunSection(device="cpu"))
    parameter = torch.nn.Parameter(torch.ones(2))

    one.average_gradients([parameter])

    assert parameter.grad is None
    assert one.any(True)
    assert not one.any(False)
    assert one.gather(parameter) is parameter
