"""Validation: the same numbers for the same weights, whatever else a run does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import networks
from lora_core.train.config import ModelSection, NetworkSection, RunSection, TextEncoderSection, ValidationSection
from lora_core.train.data import Sample, View
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.network import Network
from lora_core.train.processes import Processes
from lora_core.train.seeds import generator
from lora_core.train.validation import Validation, in_passes
from painted import Told, open_data, paint
from tiny import TINY_SD1

SEED = 3
TIMESTEPS = (0.2, 0.8)


class Run:
    """A tiny model with an adapter as it is before the first step, and pictures of two sizes."""

    def __init__(self, base: Path, folder: Path) -> None:
        for number in range(6):
            paint(folder / f"{number}.png", (64, 64) if number % 2 else (96, 64), number, f"thing {number}")
        self.denoiser = DiffusersDenoiser.load(ModelSection(base=str(base)), architecture=TINY_SD1)
        self.network = Network.attach(
            self.denoiser, NetworkSection(rank=4, dropout=0.5), TextEncoderSection(train=True), 1, 1e-3
        )
        self.network.train(False)
        self.data = open_data(
            folder, buckets=True, bucket_step=32, validation={"split": 0.5, "train_subset": 2}, seed=SEED
        )
        self.prepare(text=True)

    def prepare(self, *, text: bool) -> None:
        assert self.data.prepare(self.denoiser, None, Told(), text=text)

    def measure(
        self, size: int = 2, *, seed: int = SEED, prompts: tuple[str, ...] = (), sets: tuple[str, ...] = ("validation",)
    ) -> dict[str, float]:
        samples = {"validation": self.data.held_out, "train": self.data.train_subset}

        def batches(name: str) -> list[Any]:
            return [self.data.batch(0, own, self.denoiser) for own in in_passes(samples[name], size)]

        return Validation(
            ValidationSection(timesteps=TIMESTEPS, prompts=prompts),
            self.denoiser,
            Processes(RunSection(device="cpu")),
            seed,
            {name: lambda name=name: batches(name) for name in sets},
            self.network.disabled,
        ).measure()


@pytest.fixture
def run(tiny_sd1: Path, tmp_path: Path) -> Iterator[Run]:
    made = Run(tiny_sd1, tmp_path)
    yield made
    made.network.detach()
    made.data.close()


def test_the_numbers_are_those_worked_out_by_hand(run: Run):
    networks.move(run.network)
    schedule = run.denoiser.schedule
    rows: list[Tensor] = []
    for sample in run.data.held_out:
        batch = run.data.batch(0, [sample], run.denoiser)
        shape = batch.mean.shape[1:]
        noise = torch.randn(shape, generator=generator(SEED, "validation", "validation", sample.position))[None]
        timesteps = torch.tensor([200, 800])
        noisy = schedule.add_noise(batch.mean.repeat(2, 1, 1, 1), noise.repeat(2, 1, 1, 1), timesteps)
        assert batch.conditions is not None
        conditions = {name: tensor.repeat(2, 1, 1) for name, tensor in batch.conditions.items()}
        with torch.no_grad():
            prediction = run.denoiser.predict(noisy, timesteps, conditions, batch.sizes.repeat(2, 1))
        rows.append((prediction - noise).square().flatten(1).mean(dim=1))
    early, late = torch.stack(rows).mean(dim=0).tolist()

    expected = {"validation": (early + late) / 2, "validation t=0.2": early, "validation t=0.8": late}
    assert run.measure() == pytest.approx(expected, rel=1e-5)  # pictures go through the model in other company


def test_the_numbers_are_the_same_each_time_and_whatever_was_drawn_before(run: Run):
    first = run.measure(prompts=("a stone",), sets=("validation", "train"))
    torch.manual_seed(99)
    torch.rand(7)
    state = torch.get_rng_state()
    again = run.measure(prompts=("a stone",), sets=("validation", "train"))

    assert again == first
    assert torch.equal(torch.get_rng_state(), state)  # nor does measuring change what a run draws
    assert list(first) == [
        *("validation", "validation t=0.2", "validation t=0.8"),
        *("train", "train t=0.2", "train t=0.8"),
        "leakage",
    ]
    assert run.measure(seed=4) != run.measure()


@pytest.mark.parametrize("size", [1, 3])
def test_the_size_of_a_pass_changes_nothing(run: Run, size: int):
    # Rounding only: products of more rows add up in another order.
    assert run.measure(size) == pytest.approx(run.measure(2), rel=1e-5)


def move_the_text_encoder(run: Run) -> None:
    random = torch.Generator().manual_seed(0)
    for group in run.network.groups():
        if group.name == "text_encoder":
            for parameter in group.parameters:
                parameter.data += torch.randn(parameter.shape, generator=random)


def test_captions_are_encoded_where_the_text_encoder_is_trained(run: Run):
    cached = run.measure()
    run.prepare(text=False)
    assert run.measure() == pytest.approx(cached, rel=1e-5)  # captions are encoded in other company

    move_the_text_encoder(run)

    assert run.measure() != pytest.approx(cached, rel=1e-4)


def test_cached_captions_stay_as_they_were_cached(run: Run):
    cached = run.measure()
    move_the_text_encoder(run)

    assert run.measure() == cached


def test_an_untrained_adapter_leaks_nothing_and_a_trained_one_does(run: Run):
    prompts = ("a stone", "the sea at night")
    assert run.measure(prompts=prompts)["leakage"] == 0.0

    networks.move(run.network)
    some = run.measure(prompts=prompts)["leakage"]
    networks.move(run.network, seed=1, size=0.1)

    assert 0 < some < run.measure(prompts=prompts)["leakage"]


def test_what_the_text_encoder_changes_is_leakage_too(run: Run):
    move_the_text_encoder(run)

    assert run.measure(prompts=("a stone",))["leakage"] > 0


def test_measuring_leaves_no_gradients(run: Run):
    run.prepare(text=False)
    run.measure(prompts=("a stone",))

    assert all(parameter.grad is None and parameter.requires_grad for parameter in run.network.parameters())
    assert torch.is_grad_enabled()


def test_without_pictures_there_is_nothing_to_say(run: Run):
    assert run.measure(sets=(), prompts=("a stone",)) == {}


def test_passes_are_of_one_size_of_picture_and_lose_none():
    sizes = [(64, 64), (96, 64), (64, 64), (64, 64), (64, 96), (96, 64), (64, 64)]
    samples = [Sample(place, place, View(size, size, (0, 0)), "") for place, size in enumerate(sizes)]

    passes = in_passes(samples, 3)

    assert [[sample.position for sample in own] for own in passes] == [[0, 2, 3], [6], [1, 5], [4]]
    assert in_passes([], 3) == []
