"""``TrainConfig``: all that a training run is told, checked as a whole before anything is loaded.

A TOML file has a table a section. ``load_config`` reads one, ``parse_config`` takes the same as nested
dictionaries; both list every fault at once, each with the nearest name for a key that does not exist.
"""

from .data import DataSection, PriorSection, ValidationSection
from .keys import Setting, settings
from .loading import dump_config, load_config, override, parse_config
from .model import ModelSection
from .network import NetworkSection, TextEncoderSection, TokensSection
from .objective import ObjectiveSection
from .optimizer import OptimizerSection
from .presets import PRESETS
from .run import OutputSection, RunSection, SamplesSection
from .train_config import TrainConfig

__all__ = [
    "PRESETS",
    "DataSection",
    "ModelSection",
    "NetworkSection",
    "ObjectiveSection",
    "OptimizerSection",
    "OutputSection",
    "PriorSection",
    "RunSection",
    "SamplesSection",
    "Setting",
    "TextEncoderSection",
    "TokensSection",
    "TrainConfig",
    "ValidationSection",
    "dump_config",
    "load_config",
    "override",
    "parse_config",
    "settings",
]
