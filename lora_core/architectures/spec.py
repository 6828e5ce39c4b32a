"""What an architecture is: the modules of each component with their shapes, names and blocks, as data.

Nothing here computes with tensors. A row of ``ARCHITECTURES`` is an ``Architecture``; builders such as
``unet.build`` and ``clip.build`` make its components from block counts and widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from ..types import DENOISER, ModuleKey, Shape, Slice, Target

BASE_BLOCK = "base"


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a component.

    Args:
        path: canonical path, the name in the model's own checkpoint without the file's prefix.
        shapes: parameter name -> shape, ``{"weight": (out, in), "bias": (out,)}``; a parameter that is in no layer
            (``x_pad_token``) is a module with a parameter ``""``.
        diffusers: the module's path in diffusers (text encoders: transformers); equal to ``path`` where
            both agree, "" where diffusers has no one module for it (``Component.aliases`` then has its rows).
        block: name of the block that block weights address, ``"base"`` outside blocks.
        also: parameter -> its other names: the ``scale`` of a norm is ``weight`` in diffusers and in ComfyUI.
    """

    path: str
    shapes: Mapping[str, Shape]
    diffusers: str
    block: str = BASE_BLOCK
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def keys(self, parameter: str) -> tuple[str, ...]:
        """Names of a parameter without a prefix, ours first."""
        return tuple(parameter_name(self.path, name) for name in (parameter, *self.also.get(parameter, ())))


class Place(NamedTuple):
    """Where a parameter lies in a checkpoint: key, slice of it, and whether it is stored transposed."""

    key: str
    slice: Slice | None = None
    transposed: bool = False


class Location(NamedTuple):
    """A module, or rows of one, under another library's name.

    Args:
        path: canonical path of the module.
        slice: the rows of it that the name means; None for all.
        more: where the following rows of the named matrix lie. A name may stand for several modules (a fused q, k
            and v where this family has three), or for rows in another order (shift and scale the other way round).
    """

    path: str
    slice: Slice | None = None
    more: tuple[Location, ...] = ()

    @property
    def parts(self) -> tuple[Location, ...]:
        """All of them, in the order of the named matrix's rows."""
        return (self._replace(more=()), *self.more) if self.more else (self,)


@dataclass(frozen=True)
class Component:
    """A denoiser or text encoder.

    Args:
        name: one of ``types.COMPONENTS``.
        modules: canonical path -> ``Module``.
        checkpoint_prefix: what a single-file checkpoint puts in front of the keys.
        kohya_prefixes: what kohya's names begin with, ``("lora_te1", "lora_te")``; the first is written.
        diffusers_prefix: folder of the diffusers pipeline, ``"unet"``.
        aliases: further diffusers paths: rows of a fused module (``to_q`` of a ``qkv``), and names that
            versions of the libraries changed.
        others: further paths that programs other than diffusers use (a trainer's own copy of the model).
        encoder: name of a text encoder in ComfyUI and in all-in-one files, ``"clip_l"``; "" for a denoiser.
        places: ``(path, parameter) -> Place`` where the checkpoint's layout differs from
            ``checkpoint_prefix + path + "." + parameter``.
    """

    name: str
    modules: Mapping[str, Module]
    checkpoint_prefix: str
    kohya_prefixes: tuple[str, ...]
    diffusers_prefix: str
    aliases: Mapping[str, Location] = field(default_factory=dict[str, Location])
    others: Mapping[str, Location] = field(default_factory=dict[str, Location])
    encoder: str = ""
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict[tuple[str, str], Place])

    @cached_property
    def native(self) -> Mapping[str, Location]:
        """Canonical path -> location (itself)."""
        return {path: Location(path) for path in self.modules}

    @cached_property
    def diffusers(self) -> Mapping[str, Location]:
        """Diffusers (transformers) path -> location."""
        own = {module.diffusers: Location(path) for path, module in self.modules.items() if module.diffusers}
        return own | dict(self.aliases)

    @cached_property
    def paths(self) -> Mapping[str, Location]:
        """Every path that any program uses -> location."""
        return {**self.others, **self.diffusers, **self.native}

    @property
    def host_prefix(self) -> str:
        """How ComfyUI's keys of this component begin: ``diffusion_model.``, ``clip_l.transformer.``."""
        return f"{self.encoder}.transformer." if self.encoder else "diffusion_model."

    def place(self, path: str, parameter: str) -> Place:
        """Where the checkpoint keeps this parameter."""
        found = self.places.get((path, parameter))
        return found or Place(f"{self.checkpoint_prefix}{parameter_name(path, parameter)}")


@dataclass(frozen=True)
class Architecture:
    """A model family.

    Args:
        name: id in tables and reports, ``"sd15"``.
        title: name for people, ``"SD 1.5"``.
        build: makes the denoiser and the text encoders, thousands of small objects: at first use, since importing
            the library would otherwise cost a host a tenth of a second per family.
        modelspec: values of ``modelspec.architecture`` that mean this family.
        base_versions: values of kohya's ``ss_base_model_version`` that mean it.
        pipeline: class names in ``model_index.json`` that mean it.
        variant_of: name of the family whose LoRAs fit this one too, as far as their modules are there: inpainting
            variants, image-to-video beside text-to-video. "" for a family of its own.
    """

    name: str
    title: str
    build: Callable[[], tuple[Component, ...]]
    modelspec: tuple[str, ...] = ()
    base_versions: tuple[str, ...] = ()
    pipeline: tuple[str, ...] = ()
    variant_of: str = ""

    @property
    def family(self) -> str:
        """The same for all variants of one model."""
        return self.variant_of or self.name

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """Denoiser and text encoders."""
        return self.build()

    def component(self, name: str) -> Component | None:
        """The component of that name, or None where the family has none."""
        return self._named.get(name)

    @cached_property
    def _named(self) -> Mapping[str, Component]:
        return {component.name: component for component in self.components}

    def module(self, key: ModuleKey) -> Module | None:
        """The module at a key, or None."""
        component = self.component(key.component)
        return component.modules.get(key.path) if component else None

    def shape(self, target: Target) -> Shape | None:
        """Shape of the parameter, or of its slice; None where the architecture has no such parameter."""
        module = self.module(target.module)
        shape = module.shapes.get(target.parameter) if module else None
        if shape is None or target.slice is None:
            return shape
        return sliced_shape(shape, target.slice)

    def block(self, key: ModuleKey) -> str:
        """The block of a module; modules outside blocks and text encoders are ``"base"``."""
        module = self.module(key)
        return module.block if module else BASE_BLOCK

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Block names in the order of the model, ``"base"`` first."""
        names = dict.fromkeys(module.block for _, module in self.walk())
        names.pop(BASE_BLOCK, None)
        return (BASE_BLOCK, *names)

    def place(self, target: Target) -> Place | None:
        """Checkpoint key and slice of a target; None where the architecture has no such module."""
        component = self.component(target.module.component)
        if component is None or target.module.path not in component.modules:
            return None
        place = component.place(target.module.path, target.parameter)
        if target.slice is None:
            return place
        if place.slice is None:
            return place._replace(slice=target.slice)
        inner, outer = target.slice, place.slice
        if inner.dim != outer.dim:
            raise ValueError(f"{target}: slice along {inner.dim} of a slice along {outer.dim}")
        return place._replace(slice=Slice(outer.dim, outer.start + inner.start, inner.length))

    def walk(self) -> Iterator[tuple[ModuleKey, Module]]:
        """All modules of all components."""
        for component in self.components:
            for path, module in component.modules.items():
                yield ModuleKey(component.name, path), module


def parameter_name(path: str, parameter: str) -> str:
    """``blocks.0.weight``; a module that is but one parameter has no name for it."""
    return f"{path}.{parameter}" if parameter else path


def rows_of(path: str, names: Sequence[str], lengths: Sequence[int]) -> dict[str, Location]:
    """Names of a fused module's parts, one below the other: ``("to_q", "to_k")`` with ``(64, 64)``."""
    starts = accumulate(lengths, initial=0)
    return {
        name: Location(path, Slice(0, start, length))
        for name, start, length in zip(names, starts, lengths, strict=False)
    }


def swapped(path: str, half: int) -> Location:
    """Both halves the other way round: diffusers' last norms have (scale, shift) where others have (shift, scale)."""
    return Location(path, Slice(0, half, half), (Location(path, Slice(0, 0, half)),))


def transformer(
    modules: Mapping[str, Module],
    aliases: Mapping[str, Location] | None = None,
    others: Mapping[str, Location] | None = None,
) -> Component:
    """A denoiser that is a transformer: all of them have the same prefixes."""
    return Component(
        name=DENOISER,
        modules=modules,
        checkpoint_prefix="model.diffusion_model.",
        kohya_prefixes=("lora_unet", "lora_transformer", "lycoris"),
        diffusers_prefix="transformer",
        aliases=aliases or {},
        others=others or {},
    )


def sliced_shape(shape: Shape, part: Slice) -> Shape:
    """The shape of a slice: ``(960, 320)`` with ``(0, 320, 320)`` is ``(320, 320)``."""
    return (*shape[: part.dim], part.length, *shape[part.dim + 1 :])


def linear(out: int, into: int, bias: bool = True) -> dict[str, Shape]:
    """Shapes of a linear layer."""
    return {"weight": (out, into)} | ({"bias": (out,)} if bias else {})


def conv(out: int, into: int, kernel: int) -> dict[str, Shape]:
    """Shapes of a 2-D convolution with bias."""
    return {"weight": (out, into, kernel, kernel), "bias": (out,)}


def norm(width: int) -> dict[str, Shape]:
    """Shapes of a layer norm or group norm."""
    return {"weight": (width,), "bias": (width,)}
