"""Merging: a stack into a checkpoint, streamed."""

from .checkpoint import merge_to_checkpoint
from .dtypes import DTYPES
from .report import MergeReport
from .source import Checkpoint, open_checkpoint

__all__ = ["DTYPES", "Checkpoint", "MergeReport", "merge_to_checkpoint", "open_checkpoint"]
