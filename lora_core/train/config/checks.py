"""Settings that are each fine and cannot work together, and those that nothing would look at.

Each check is a function of the whole that gives faults as lines: the setting, what is wrong, what to do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches

from ...convert import WRITERS
from ...errors import ConfigError
from .keys import either
from .train_config import TrainConfig

DEVICE = re.compile(r"auto|[a-z]+(:\d+)?")


def cross_checks(config: TrainConfig) -> list[str]:
    """All faults, in the order of the file's tables."""
    checks = (_model, _data, _validation, _network, _tokens, _objective, _optimizer, _run, _samples, _output)
    return [fault for check in checks for fault in check(config)]


def _model(config: TrainConfig) -> Iterator[str]:
    model = config.model
    if model.zero_terminal_snr and model.prediction in ("epsilon", "flow"):
        yield (
            f"model.zero_terminal_snr: from pure noise {model.prediction} says nothing of the picture; it needs "
            'prediction = "v"'
        )
    if model.quantise != "none" and config.network.start in ("pissa", "olora"):
        yield f"network.start: {config.network.start} changes the weights that model.quantise holds in fewer bits"


def _data(config: TrainConfig) -> Iterator[str]:
    data = config.data
    if min(data.resolution) < 8:
        yield f"data.resolution: expected at least 8 pixels, got {min(data.resolution)}"
    if data.prior.generate and not (data.prior.caption and data.prior.folder):
        yield "data.prior.generate: needs data.prior.caption, what to draw, and data.prior.folder, where to keep it"


def _validation(config: TrainConfig) -> Iterator[str]:
    validation = config.validation
    if validation.split and validation.folder:
        yield "validation.split: validation.folder has pictures of its own; leave one of them out"
    if wrong := [fraction for fraction in validation.timesteps if not 0 <= fraction <= 1]:
        yield f"validation.timesteps: expected fractions from 0 to 1, got {wrong[0]:g}"
    if not validation.timesteps:
        yield "validation.timesteps: is empty; give fractions of the schedule, such as 0.5"
    if validation.every and not (validation.split or validation.folder or validation.train_subset):
        yield "validation.every: there is nothing to measure; give validation.split or validation.folder"


def _network(config: TrainConfig) -> Iterator[str]:
    from ..network.starts import check_start
    from ..network.targets import unwanted, wanted

    network, text_encoder = config.network, config.text_encoder
    if not (network.train or text_encoder.train or config.tokens.names):
        yield "network.train: is false, and nothing else trains; set it, text_encoder.train or tokens.names"
    try:
        check_start(network, "network")
    except ConfigError as error:
        yield from (f"network: {fault}" for fault in error.faults)
    if network.decompose_factor != -1 and network.type != "lokr":
        yield f"network.decompose_factor: is for lokr, not for {network.type}; leave it out"
    if network.decompose_factor < 1 and network.decompose_factor != -1:
        yield f"network.decompose_factor: expected -1 or at least 1, got {network.decompose_factor}"
    if network.lora_plus != 1 and config.optimizer.name == "prodigy":
        yield "network.lora_plus: prodigy has one learning rate for all; leave it out"
    for where, targets in (("network.targets", network.targets), ("text_encoder.targets", text_encoder.targets)):
        try:
            wanted(targets, where)
        except ConfigError as error:
            yield error.message
        if not targets:
            yield f"{where}: is empty; give words such as attention+ff, or names of modules"
    try:
        unwanted(network.exclude, "network.exclude")
    except ConfigError as error:
        yield error.message


def _tokens(config: TrainConfig) -> Iterator[str]:
    tokens = config.tokens
    if not tokens.names:
        for setting in ("start", "steps"):
            if getattr(tokens, setting):
                yield f"tokens.{setting}: needs tokens.names, the new words"
        if tokens.templates != "none":
            yield "tokens.templates: needs tokens.names, the words that captions are made of"
        return
    if twice := [name for name, count in Counter(tokens.names).items() if count > 1]:
        yield f"tokens.names: {twice[0]!r} is there twice"
    for name in tokens.names:
        if not name or any(char.isspace() for char in name):
            yield f"tokens.names: expected words without spaces, got {name!r}"
    if tokens.start and len(tokens.start) != len(tokens.names):
        yield (
            f"tokens.start: expected one for each of the {len(tokens.names)} words of tokens.names, got "
            f"{len(tokens.start)}"
        )
    others = config.network.train or config.text_encoder.train
    if others and tokens.steps >= config.run.steps:
        yield (
            f"tokens.steps: the embeddings alone train for all {config.run.steps} steps of the run; give fewer, or "
            "switch network.train and text_encoder.train off"
        )
    if not others and 0 < tokens.steps < config.run.steps and not tokens.keep_training:
        yield (
            f"tokens.steps: nothing trains after step {tokens.steps} of {config.run.steps}; set it to 0, since there "
            "are embeddings alone"
        )


def _objective(config: TrainConfig) -> Iterator[str]:
    low, high = config.objective.timestep_range
    if low >= high:
        yield f"objective.timestep_range: expected the smaller fraction first, got {low:g} and {high:g}"


def _optimizer(config: TrainConfig) -> Iterator[str]:
    optimizer = config.optimizer
    rates = {"optimizer.learning_rate": optimizer.learning_rate}
    if config.text_encoder.train:
        rates["text_encoder.learning_rate"] = config.text_encoder.learning_rate
    if config.tokens.names:
        rates["tokens.learning_rate"] = config.tokens.learning_rate
    for name, rate in rates.items():
        if optimizer.name == "prodigy" and rate < 0.1:
            yield f"{name}: prodigy finds the learning rate, and this is a factor on it; expected about 1, got {rate:g}"
        elif optimizer.name not in ("prodigy", "sgd") and rate >= 0.5:
            yield f"{name}: {rate:g} is for prodigy; {optimizer.name} needs about 0.0001"
    if optimizer.name == "schedulefree_adamw" and not optimizer.schedule.startswith("constant"):
        yield (
            "optimizer.schedule: schedulefree_adamw has none; expected constant or constant_with_warmup, got "
            f"{optimizer.schedule}"
        )
    if optimizer.betas is not None:
        expected = 3 if optimizer.name == "came" else 2
        if len(optimizer.betas) != expected:
            yield f"optimizer.betas: expected {expected} numbers for {optimizer.name}, got {len(optimizer.betas)}"
        if wrong := [beta for beta in optimizer.betas if not 0 <= beta < 1]:
            yield f"optimizer.betas: expected numbers from 0 to below 1, got {wrong[0]:g}"


def _run(config: TrainConfig) -> Iterator[str]:
    run = config.run
    if not DEVICE.fullmatch(run.device):
        near = get_close_matches(run.device.lower(), ("auto", "cpu", "cuda", "mps"), n=1)
        yield (
            f"run.device: expected auto, cpu, cuda, cuda:1 or mps, got {run.device!r}"
            f"{f'; did you mean {near[0]!r}?' if near else ''}"
        )
    if run.device == "cpu" and run.precision == "fp16":
        yield "run.precision: fp16 is for GPUs; expected fp32 or bf16 on the CPU"
    if config.model.dtype != "fp32" and run.precision == "fp32":
        held = config.model.dtype
        yield (
            f"run.precision: weights in {held} (model.dtype) are computed with in {held}, not in fp32; "
            f'expected {held}, or model.dtype = "fp32"'
        )


def _samples(config: TrainConfig) -> Iterator[str]:
    samples = config.samples
    if samples.every and not samples.prompts:
        yield "samples.every: there is nothing to draw; give samples.prompts"
    for side in ("width", "height"):
        if (value := getattr(samples, side)) and value % 8:
            yield f"samples.{side}: expected a multiple of 8, got {value}"


def _output(config: TrainConfig) -> Iterator[str]:
    output = config.output
    if output.format not in WRITERS:
        near = get_close_matches(output.format, WRITERS, n=1)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        yield f"output.format: expected {either(list(WRITERS))}, got {output.format!r}{advice}"
    if output.name.endswith(".safetensors") or output.name in (".", ".."):
        yield f"output.name: expected a name without .safetensors, got {output.name!r}"
    if output.keep and not output.save_every:
        yield "output.keep: needs output.save_every, which is 0"
