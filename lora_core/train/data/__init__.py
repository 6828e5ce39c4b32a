"""Pictures and captions: found, drawn, cut, encoded once, and handed to the loop."""

from .sample import Batch, Sample, View
from .training_data import TrainingData

__all__ = ["Batch", "Sample", "TrainingData", "View"]
