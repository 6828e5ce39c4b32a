"""Pictures and captions: found, drawn, cut, encoded once, and handed to the loop."""

from .sample import Batch, Sample, View

__all__ = ["Batch", "Sample", "View"]
