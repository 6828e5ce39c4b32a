"""Tensor files: header-only reading, atomic streaming writing, dtypes."""

from .tensor_file import TensorFile
from .tensor_ref import TensorDict, TensorRef, TensorSource

__all__ = ["TensorDict", "TensorFile", "TensorRef", "TensorSource"]
