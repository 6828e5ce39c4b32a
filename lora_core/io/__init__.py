"""Tensor files: header-only reading, atomic streaming writing, dtypes, hashes."""

from .hashes import FileHashes, file_hashes
from .opening import holds_tensors, open_tensors, state_of, tensors_path
from .tensor_file import TensorFile
from .tensor_ref import TensorDict, TensorRef, TensorSource
from .writer import Entry, stream_safetensors

__all__ = [
    "Entry",
    "FileHashes",
    "TensorDict",
    "TensorFile",
    "TensorRef",
    "TensorSource",
    "file_hashes",
    "holds_tensors",
    "open_tensors",
    "state_of",
    "stream_safetensors",
    "tensors_path",
]
