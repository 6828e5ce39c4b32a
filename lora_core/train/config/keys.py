"""Every setting by its dotted name: what faults, ``--set``, its completion, ``--init`` and the documentation go by."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .train_config import TrainConfig


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the TOML file.

    Args:
        name: dotted, ``data.prior.folder``.
        kind: for people: ``whole number``, ``number, left out for none``, ``adamw, lion or sgd``.
        default: as Python has it; ``NEEDED`` where there is none.
        choices: of a literal, else empty.
    """

    name: str
    kind: str
    default: Any
    description: str
    choices: tuple[str, ...]

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[2]


NEEDED: Any = PydanticUndefined


@cache
def settings() -> dict[str, Setting]:
    """Dotted name -> setting, in the order of the file."""
    return {setting.name: setting for setting in _walk(TrainConfig, "")}


@cache
def sections() -> tuple[str, ...]:
    """``model``, ``data``, ``data.prior``, ...: the tables of the file."""
    return tuple(dict.fromkeys(setting.section for setting in settings().values() if setting.section))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    inner: list[Iterator[Setting]] = []
    for key, info in model.model_fields.items():
        section = _section(info.annotation)
        if section is not None:
            inner.append(_walk(section, f"{prefix}{key}."))  # tables come after the table's own keys
        else:
            yield Setting(prefix + key, kind(info.annotation), _default(info), info.description or "", _choices(info))
    for tables in inner:
        yield from tables


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _default(info: FieldInfo) -> Any:
    return NEEDED if info.is_required() else info.get_default(call_default_factory=True)


def _choices(info: FieldInfo) -> tuple[str, ...]:
    return get_args(info.annotation) if get_origin(info.annotation) is Literal else ()


KINDS: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def kind(annotation: Any) -> str:
    """What a value has to be, in words."""
    if annotation in KINDS:
        return KINDS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(arguments[0])
    if origin is Literal:
        return either([str(choice) for choice in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_plural(kind(arguments[0]))}"
    if origin is tuple:
        return f"list of {len(arguments)} {_plural(kind(arguments[0]))}"
    if origin is dict:
        return f"table of {_plural(kind(arguments[1]))}"
    if origin in (Union, types.UnionType):
        return either(list(dict.fromkeys(kind(part) for part in arguments if part is not types.NoneType)))
    raise TypeError(f"no words for the type {annotation!r}")


def either(words: list[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _plural(words: str) -> str:
    return words if words.endswith(("s", "or false")) or " or " in words else f"{words}s"
