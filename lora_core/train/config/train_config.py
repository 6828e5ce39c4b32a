"""The sections as one."""

from __future__ import annotations

from pydantic import Field

from .data import DataSection, ValidationSection
from .model import ModelSection
from .network import NetworkSection, TextEncoderSection, TokensSection
from .objective import ObjectiveSection
from .optimizer import OptimizerSection
from .run import OutputSection, RunSection, SamplesSection
from .section import Section


class TrainConfig(Section):
    """A training run. A table of the TOML file for each field; ``preset`` stands in front of the tables."""

    preset: str = Field(default="", description="settings to start from; `loom train --presets` lists them")
    model: ModelSection
    data: DataSection
    validation: ValidationSection = ValidationSection()
    network: NetworkSection = NetworkSection()
    text_encoder: TextEncoderSection = TextEncoderSection()
    tokens: TokensSection = TokensSection()
    objective: ObjectiveSection = ObjectiveSection()
    optimizer: OptimizerSection = OptimizerSection()
    run: RunSection = RunSection()
    samples: SamplesSection = SamplesSection()
    output: OutputSection = OutputSection()
