"""What a pickle of tensors would make, found without making it: no class is imported and nothing is called.

The instructions are those that ``torch.load(weights_only=True)`` knows, and of classes and functions only what tensors
are made of; any other name is an error that says it. A tensor becomes a ``TensorOutline``: which storage, which part
of it. So names and shapes are known before a byte of a tensor is read, and whether the file can hold them.

A pickle is a program for a machine with a stack and a memory of numbered values. Sources: the opcodes of CPython's
``pickletools``; what they call in ``torch._utils``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .dtypes import NAMES
from .zip_members import Bytes

# The pickle itself, without tensors: that of two thousand takes 300 kB. A bad one may cost thirty times its bytes.
MAX_PICKLE = 8_000_000
MAX_CONTAINERS = 1_000_000


class Global(NamedTuple):
    """A class or function by its name."""

    name: str


class Storage(NamedTuple):
    """Numbers in a row, which tensors share.

    Args:
        key: its name in the file.
        dtype: of the numbers; uint8 where the tensors say theirs.
        numbers: how many.
    """

    key: str
    dtype: torch.dtype
    numbers: int

    @property
    def nbytes(self) -> int:
        return self.numbers * self.dtype.itemsize


class TensorOutline(NamedTuple):
    """A tensor that is not made: part of a storage, ``start`` and ``stride`` in numbers of ``dtype``."""

    storage: Storage
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Sequence(list[Any]):
    """What a pickle makes of a list, a tuple and a set: one kind, that nothing can be asked to do."""


class PickleFault(ValueError):
    """What is wrong with the pickle; the caller knows the file."""


# class of a storage -> dtype of its numbers
_STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
    }.items()
} | {"torch.storage.UntypedStorage": torch.uint8}
_DTYPES = {str(dtype): dtype for dtype in NAMES}
_CONSTANTS = frozenset({"torch.device", "torch.serialization._get_layout"})


class Machine:
    """Runs a pickle from ``position`` on. ``at`` is behind its end then; ``storages`` are those it names.

    >>> import pickle
    >>> Machine(pickle.dumps({"alpha": 4.0}, protocol=2)).run()
    {'alpha': 4.0}
    """

    def __init__(self, data: Bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.first = self.at = position
        self.end = min(len(data) if end is None else end, position + MAX_PICKLE)
        self.storages: dict[str, Storage] = {}
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.containers = 0

    def run(self) -> Any:
        """The outline of what the pickle makes.

        Raises:
            PickleFault: it is broken, or wants what is not known.
        """
        steps = _BY_CODE
        try:
            while self.at < self.end:
                code = self.data[self.at]
                self.at += 1
                if code == _STOP:
                    return self.stack.pop()
                step = steps.get(code)
                if step is None:
                    raise PickleFault(f"its instruction {code:#04x} at byte {self.at - 1} is not one of torch.save's")
                step(self)
            raise PickleFault(f"its pickle has no end within {self.end - self.first} bytes")
        except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
            raise PickleFault(f"its pickle breaks off or is damaged at byte {self.at} ({error})") from None
        except (TypeError, ValueError) as error:
            if isinstance(error, PickleFault):
                raise
            raise PickleFault(f"its pickle is damaged at byte {self.at} ({error})") from None

    # Reading

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def take(self, count: int) -> bytes:
        if self.at + count > self.end:
            raise PickleFault(f"its pickle breaks off at byte {self.at}")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, min(self.at + 1000, self.end))
        if end < 0:
            raise PickleFault(f"a name without an end at byte {self.at}")
        text = self.take(end - self.at).decode("ascii")
        self.at += 1
        return text

    # The stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def container(self, value: Any) -> None:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise PickleFault(f"its pickle makes more than {MAX_CONTAINERS} lists and tables")
        self.stack.append(value)

    def mark(self) -> None:
        if len(self.below) >= MAX_CONTAINERS:
            raise PickleFault(f"its pickle makes more than {MAX_CONTAINERS} lists and tables")
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def pack(self, count: int) -> None:
        items = Sequence(self.stack[-count:])
        if len(items) < count:
            raise PickleFault(f"its pickle is damaged at byte {self.at}")
        del self.stack[-count:]
        self.container(items)

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Sequence):
            raise PickleFault("its pickle appends to what is no list")
        self.stack[-1].extend(items)

    def put(self, items: list[Any]) -> None:
        table = self.stack[-1]
        if not isinstance(table, dict) or len(items) % 2:
            raise PickleFault("its pickle sets an entry of what is no table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Entries under numbers are an optimizer's, and numbers can be chosen so that a table of them is slow.
            if isinstance(key, str):
                table[key] = value

    def keep(self, index: int) -> None:
        if index > self.at:  # writers count from 0
            raise PickleFault(f"its pickle keeps a value under the number {index}")
        self.memo[index] = self.stack[-1]

    # Calls

    def named(self) -> None:
        name = f"{self.line()}.{self.line()}"
        if name not in _STORAGES and name not in _CALLS and name not in _CONSTANTS and name not in _DTYPES:
            raise PickleFault(f"it wants {name!r}, which is no part of a tensor: to load it could run code")
        self.push(Global(name))

    def persistent(self) -> None:
        """``("storage", class, key, device, count)``; elder files add None, or ``(key, start, count)`` of a view."""
        what, kind, key, _, count, *view = self.stack.pop()
        if what != "storage" or not isinstance(kind, Global) or kind.name not in _STORAGES:
            raise PickleFault("it refers to what is no storage of numbers")
        if not isinstance(key, str) or not _whole(count) or view not in ([], [None]):
            raise PickleFault("a storage of it has no name, no size, or is a part of another one")
        storage = Storage(key, _STORAGES[kind.name], count)
        if self.storages.setdefault(key, storage).nbytes != storage.nbytes:
            raise PickleFault(f"its storage {key!r} has two sizes")
        self.push(storage)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global):
            raise PickleFault("it calls what is no function")
        if function.name not in _CALLS:
            self.push(None)  # a device, say
            return
        self.container(_CALLS[function.name](*arguments))

    def build(self) -> None:
        """Attributes of the object below: ``_metadata`` of a ``state_dict``, which nobody needs."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise PickleFault("it sets attributes of what is no table")


def _whole(value: object) -> bool:
    return type(value) is int and value >= 0


def _table(pairs: object = None) -> dict[str, Any]:
    """An ordered table, in elder files with a list of pairs."""
    return {key: value for key, value in pairs if isinstance(key, str)} if isinstance(pairs, Sequence) else {}


def _size(sizes: object) -> Sequence:
    return sizes if isinstance(sizes, Sequence) else Sequence()


def _tensor(storage: object, start: object, shape: object, stride: object, *rest: object) -> TensorOutline:
    dtype = rest[2] if len(rest) > 2 else None  # behind grad and hooks: a dtype that no class of storages stands for
    if not isinstance(storage, Storage) or not isinstance(shape, Sequence) or not isinstance(stride, Sequence):
        raise PickleFault("a tensor of it has no storage or no shape")
    if not isinstance(start, int) or not all(_whole(number) for number in (start, *shape, *stride)):
        raise PickleFault("a tensor of it has sizes that are not whole numbers >= 0")
    kind = _DTYPES.get(dtype.name) if isinstance(dtype, Global) else storage.dtype
    if kind is None:
        raise PickleFault("a tensor of it has no dtype that is known")
    return TensorOutline(storage, start, tuple(shape), tuple(stride), kind)


def _parameter(tensor: object, *rest: object) -> TensorOutline:
    if not isinstance(tensor, TensorOutline):
        raise PickleFault("a parameter of it is no tensor")
    return tensor


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _table,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}

_STOP = ord(".")
_STEPS: dict[str, Callable[[Machine], object]] = {
    "\x80": lambda m: m.take(1),
    "N": lambda m: m.push(None),
    "\x88": lambda m: m.push(True),
    "\x89": lambda m: m.push(False),
    "K": lambda m: m.push(m.number("<B")),
    "M": lambda m: m.push(m.number("<H")),
    "J": lambda m: m.push(m.number("<i")),
    "\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    "G": lambda m: m.push(m.number(">d")),
    "X": lambda m: m.push(m.take(m.number("<I")).decode("utf-8")),
    "U": lambda m: m.push(m.take(m.number("<B")).decode("utf-8")),
    "]": lambda m: m.container(Sequence()),
    ")": lambda m: m.container(Sequence()),
    "\x8f": lambda m: m.container(Sequence()),
    "}": lambda m: m.container({}),
    "(": Machine.mark,
    "t": lambda m: m.container(Sequence(m.since_mark())),
    "\x85": lambda m: m.pack(1),
    "\x86": lambda m: m.pack(2),
    "\x87": lambda m: m.pack(3),
    "a": lambda m: m.append([m.stack.pop()]),
    "e": lambda m: m.append(m.since_mark()),
    "s": lambda m: m.put([m.stack.pop(-2), m.stack.pop()]),
    "u": lambda m: m.put(m.since_mark()),
    "h": lambda m: m.push(m.memo[m.number("<B")]),
    "j": lambda m: m.push(m.memo[m.number("<I")]),
    "q": lambda m: m.keep(m.number("<B")),
    "r": lambda m: m.keep(m.number("<I")),
    "c": Machine.named,
    "Q": Machine.persistent,
    "R": Machine.call,
    "b": Machine.build,
}
_BY_CODE = {ord(code): step for code, step in _STEPS.items()}
