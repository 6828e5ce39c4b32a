"""How much memory a run takes, and in what words there is none left."""

from __future__ import annotations

import pytest
import torch

from lora_core.train.memory import forget, is_out_of_memory, peak, spilled

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GiB, other allocations: 1.00 GiB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_each_library_has_its_words(error: Exception):
    assert is_out_of_memory(error)


def test_other_errors_are_none():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(OSError(28, "No space left on device"))


def test_the_cpu_has_no_count_of_its_own():
    forget(CPU)

    assert peak(CPU) > 2**20
    assert spilled(CPU) == ""
