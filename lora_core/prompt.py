"""``<lora:name:...>`` tags: text -> text without tags, and the LoRAs in their order.

Arguments are split at ``:``. Programs disagree on what the numbers mean, so the dialect is the caller's choice:

- ``a1111`` (A1111, Forge): strength of the text encoder, then of the model, which defaults to it, then ``dyn``;
  named ``te= unet= dyn=``, and ``lbw= start= stop= step=`` of the LoRA Block Weight extension.
- ``lora-manager``: strength of the model, then of CLIP, which defaults to it.
- ``sdnext``: one strength for both; ``te= unet= dyn= lbw=``, ``in= mid= out=`` (strengths of those blocks, not
  factors), ``module=``; a strength may be a schedule, ``0.2@0.2,1@0.5`` (strength @ position, up to 1 a
  fraction of the steps, linear in between).

What this version carries but does not apply (schedules, ``dyn``, ``module``) is said in ``PromptLora.notes``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

from .errors import ConfigError, UnknownNameError
from .numeric import finite, shown
from .rows import StackItem

_TAG = re.compile(r"<(?:lora|lyco):([^<>]*)>", re.IGNORECASE)
_OPEN = re.compile(r"<(?:lora|lyco):[^<>]*(?=<|$)", re.IGNORECASE)
_OTHER = re.compile(r"<hypernet:[^<>]*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PromptLora:
    """One tag.

    Args:
        tag: as it stands in the text.
        name: of the LoRA, not resolved.
        model, clip: strengths.
        blocks: block weights as text (``blocks.parse_blocks``).
        schedule: ``0.2@0.2,1@0.5`` (``model=...;clip=...`` where they differ) or ``start=5,stop=10`` (steps); ""
            for a constant strength.
        dyn: use only so many ranks; None for all.
        module: only this part of the model; "" for all.
        notes: what of it this version does not apply, for the user.
    """

    tag: str
    name: str
    model: float = 1.0
    clip: float = 1.0
    blocks: str = ""
    schedule: str = ""
    dyn: int | None = None
    module: str = ""
    notes: tuple[str, ...] = ()

    @property
    def item(self) -> StackItem:
        """As an entry of a ``LORA_STACK``."""
        return StackItem(self.name, self.model, self.clip, self.blocks, schedule=self.schedule)


class Prompt(NamedTuple):
    """A text without its tags, the LoRAs, and remarks for the user."""

    text: str
    loras: tuple[PromptLora, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a program reads the arguments: names of the positional ones in order, and all that may be named."""

    name: str
    positional: tuple[str, ...]
    named: frozenset[str] = field(default_factory=frozenset[str])
    schedules: bool = False

    @property
    def first(self) -> str:
        """The strength that the other defaults to."""
        return self.positional[0]

    @property
    def second(self) -> str:
        return "unet" if self.first == "te" else "te"


DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect("a1111", ("te", "unet", "dyn"), frozenset({"te", "unet", "dyn", "lbw", "start", "stop", "step"})),
        Dialect("lora-manager", ("unet", "te")),
        Dialect(
            "sdnext", ("te",), frozenset({"te", "unet", "dyn", "lbw", "in", "mid", "out", "module"}), schedules=True
        ),
    )
}


def parse_prompt(text: str, dialect: str = "a1111") -> Prompt:
    """Take the LoRA tags out of a prompt.

    Args:
        text: the prompt. Without tags it comes back as it is; where a tag stood, spaces and commas are tidied.
        dialect: name in ``DIALECTS``.

    Raises:
        UnknownNameError: no such dialect.
        ConfigError: every fault of every tag.

    >>> parse_prompt("a cat, <lora:ink:0.8>, night").text
    'a cat, night'
    """
    if dialect not in DIALECTS:
        raise UnknownNameError("prompt dialect", dialect, tuple(DIALECTS))
    faults: list[str] = []
    loras: list[PromptLora] = []
    for match in _TAG.finditer(text):
        lora = _Tag(match[0], DIALECTS[dialect], faults).read(match[1])
        if lora:
            loras.append(lora)
    pieces = [piece for index, piece in enumerate(_TAG.split(text)) if index % 2 == 0]
    rest = " ".join(pieces)
    faults += [f"{_quoted(match[0])} has no > at its end" for match in _OPEN.finditer(rest)]
    if faults:
        raise ConfigError("prompt", faults)
    notes = [note for lora in loras for note in lora.notes]
    notes += [f"{_quoted(match[0])} is not a LoRA; it is left in the text" for match in _OTHER.finditer(rest)]
    return Prompt(_join(pieces), tuple(loras), tuple(notes))


class _Tag:
    """Reads one tag; what is wrong is added to the faults, with the tag quoted."""

    def __init__(self, tag: str, dialect: Dialect, faults: list[str]) -> None:
        self.tag, self.dialect, self.faults = tag, dialect, faults
        self.arguments: dict[str, str] = {}
        self.schedules: dict[str, str] = {}
        self.notes: list[str] = []
        self.good = True

    def fault(self, what: str) -> None:
        self.faults.append(f"{_quoted(self.tag)}: {what}")
        self.good = False

    def note(self, what: str) -> None:
        self.notes.append(f"{_quoted(self.tag)}: {what}")

    def read(self, inside: str) -> PromptLora | None:
        name, *arguments = inside.split(":")
        if not name.strip():
            self.fault("no name")
        self._split(arguments)
        first = self._strength(self.dialect.first, 1.0)
        second = self._strength(self.dialect.second, first)
        clip, model = (first, second) if self.dialect.first == "te" else (second, first)
        blocks = self.arguments.get("lbw", "").replace("\n", " ").strip()
        blocks = self._kinds(model) or blocks
        steps = self._steps()
        dyn = self._whole("dyn")
        module = self.arguments.get("module", "").strip()
        if dyn is not None:
            self.note(f"dyn={dyn} (only {dyn} ranks) is not applied: all ranks are used")
        if module:
            self.note(f"module={module} is not applied: all parts of the model are changed")
        if steps:
            self.note(f"{steps} (steps) is not applied: the LoRA is on from the first step to the last")
        if not self.good:
            return None
        schedule = ";".join(filter(None, [self._schedules(), steps]))
        return PromptLora(
            self.tag, name.strip(), model, clip, blocks, schedule, dyn, module, tuple(dict.fromkeys(self.notes))
        )

    def _split(self, arguments: Sequence[str]) -> None:
        """Arguments by name, whether they were named or not."""
        positions = iter(self.dialect.positional)
        named: set[str] = set()
        for argument in arguments:
            key, equals, value = argument.partition("=")
            key = key.strip().lower()
            if not equals:
                key, value = next(positions, ""), argument
                if not key:
                    known = ", ".join(self.dialect.positional)
                    self.fault(f"too many numbers at {argument!r:.40}; {self.dialect.name} has {known}")
                    continue
            elif key not in self.dialect.named:
                known = ", ".join(sorted(self.dialect.named)) or "none"
                self.fault(f"no argument {key!r:.40} in {self.dialect.name}; known: {known}")
                continue
            elif key in named:  # a named one may replace a positional one, as in A1111
                self.fault(f"{key}= stands twice")
            elif not value.strip():
                self.fault(f"{key}= has no value")
            if equals:
                named.add(key)
            if value.strip():
                self.arguments[key] = value.strip()

    def _strength(self, key: str, default: float) -> float:
        """A strength; of a schedule its last one, and the schedule is noted."""
        text = self.arguments.get(key)
        if text is None:
            return default
        number = finite(text)
        if number is not None:
            return number
        points = _schedule(text) if self.dialect.schedules else None
        if points is None:
            hint = "; block weights are written lbw=..." if "," in text and not self.dialect.schedules else ""
            self.fault(f"{key} is {text!r:.40}, expected a number{hint}")
            return default
        self.schedules[key] = text
        last = max(points, key=lambda point: point[1])[0]
        self.note(f"the schedule {text} of {key} is not applied: the strength is {shown(last)} from the first step on")
        return last

    def _schedules(self) -> str:
        """``0.2@0.2,1@0.5`` for both strengths, ``clip=...;model=...`` where they differ."""
        names = {"te": "clip", "unet": "model"}
        both = self.dialect.second not in self.arguments
        return ";".join(
            text if both and key == self.dialect.first else f"{names.get(key, key)}={text}"
            for key, text in self.schedules.items()
        )

    def _kinds(self, model: float) -> str:
        """SD.Next's in, mid, out: strengths in place of the model's, as factors on it."""
        kinds = {kind: self._strength(kind, model) for kind in ("in", "mid", "out") if kind in self.arguments}
        if not kinds:
            return ""
        if "lbw" in self.arguments:
            self.fault("lbw= and in=, mid=, out= exclude each other")
        if model == 0 and any(kinds.values()):
            self.fault("in=, mid=, out= need a model strength other than 0: write unet=1 and the other two as 0")
            return ""
        factors = {kind: value / model if model else 0.0 for kind, value in kinds.items()}
        if not all(isfinite(factor) for factor in factors.values()):
            self.fault(f"in=, mid=, out= are too large beside a model strength of {model}")
        return ", ".join(f"{kind}={shown(factor)}" for kind, factor in factors.items() if isfinite(factor))

    def _steps(self) -> str:
        """start, stop and step of LoRA Block Weight, as ``start=5,stop=10``."""
        start, stop = self._whole("start"), self._whole("stop")
        step = self.arguments.get("step")
        if step is not None:
            match = re.fullmatch(r"(\d+)\s*-\s*(\d+)", step)
            if not match:
                self.fault(f"step is {step!r:.40}, expected two steps such as 5-10")
                return ""
            if start is not None or stop is not None:
                self.fault("step= and start=, stop= exclude each other")
            start, stop = int(match[1]), int(match[2])
        if start is not None and stop is not None and stop < start:
            self.fault(f"stops at step {stop}, before it starts at {start}")
        pairs = (("start", start), ("stop", stop))
        return ",".join(f"{name}={value}" for name, value in pairs if value is not None)

    def _whole(self, key: str) -> int | None:
        text = self.arguments.get(key)
        if text is None:
            return None
        if not re.fullmatch(r"[0-9]{1,9}", text):
            self.fault(f"{key} is {text!r:.40}, expected a whole number")
            return None
        return int(text)


def _schedule(text: str) -> list[tuple[float, float]] | None:
    """``0.2@0.2,1@0.5`` as (strength, position), position 1 where none is given; None where it is no schedule."""
    if "@" not in text:
        return None
    points: list[tuple[float, float]] = []
    for part in re.split(r"[,;]", text):
        value, at, position = part.partition("@")
        strength, place = finite(value), finite(position) if at else 1.0
        if strength is None or place is None or place < 0:
            return None
        points.append((strength, place))
    return points


def _join(pieces: Sequence[str]) -> str:
    """The text around the tags, without the spaces, commas and empty lines that the tags leave behind."""
    text = pieces[0]
    for piece in pieces[1:]:
        left, right = text.rstrip(" \t"), piece.lstrip(" \t")
        spaced = left != text or right != piece
        if left in ("",) or left[-1] in ",\n":
            right = re.sub(r"^,[ \t]*", "", right)
        if left.endswith(",") and (not right or right[0] == "\n"):
            left = left[:-1]
        if left[-1:] in ("", "\n") and right.startswith("\n"):
            right = right[1:]
        between = " " if left and right and left[-1] != "\n" and right[0] not in ",\n" and spaced else ""
        text = left + between + right
    return text if len(pieces) == 1 else text.strip(" \t")


def _quoted(tag: str) -> str:
    line = " ".join(tag.split())
    return line if len(line) <= 80 else line[:77] + "..."
