"""Settings that are each fine and cannot work together."""

from __future__ import annotations

from .train_config import TrainConfig


def cross_checks(config: TrainConfig) -> list[str]:
    """Each fault as a line that names the settings and what to do."""
    faults: list[str] = []
    if config.tokens.names and len(config.tokens.start) not in (0, len(config.tokens.names)):
        faults.append(
            f"tokens.start: expected a start for each of the {len(config.tokens.names)} tokens.names, "
            f"got {len(config.tokens.start)}"
        )
    return faults
