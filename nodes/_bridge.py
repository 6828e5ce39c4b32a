"""The one file that knows how the host keeps weights and patches: MODEL and CLIP in, patched clones out.

One patch a weight. Its value is a ``LoomAdapter``, which computes with ``lora_core.apply_patch``, so that the live
weight is the merged weight to the last bit. Nothing is computed here: the host asks for a weight when it loads the
model, on the device and in the memory mode that it chose.
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy.weight_adapter import WeightAdapterBase

from ..lora_core import Stack, Target
from ..lora_core.adapters import Delta, Factors
from ..lora_core.architectures import ARCHITECTURES, Architecture
from ..lora_core.architectures.recognise import recognise
from ..lora_core.architectures.spec import parameter_name
from ..lora_core.errors import ConfigError
from ..lora_core.patching import Binding, Patch, apply_patch, bind
from ..lora_core.types import DENOISER, TEXT_ENCODERS, Shape
from ._quantised import QuantisedWeights

# What a MODEL's weights are called; a CLIP has a part for each of its text encoders (``clip_l``, ``t5xxl``).
MODEL_PART = "diffusion_model"


@dataclass(frozen=True, slots=True)
class HostModel:
    """A MODEL, a CLIP, or both, with the family they are of.

    Args:
        model: the host's ``ModelPatcher``, or None.
        clip: the host's ``CLIP``, or None.
        shapes: host key -> shape, of both.
        architecture: the family.
        quantised: which of the weights are quantised, and how.
    """

    model: Any
    clip: Any
    shapes: Mapping[str, Shape]
    architecture: Architecture
    quantised: QuantisedWeights

    @property
    def components(self) -> tuple[str, ...]:
        """What is connected."""
        return (() if self.model is None else (DENOISER,)) + (() if self.clip is None else TEXT_ENCODERS)

    def shape_of(self, target: Target) -> Shape | None:
        """Shape of a whole parameter, None where this model has none."""
        return self.shapes.get(self.key(target))

    def key(self, target: Target) -> str:
        """The host's name of a parameter."""
        return host_key(self.architecture, target, self.shapes)


def host_key(architecture: Architecture, target: Target, keys: Container[str] = ()) -> str:
    """``Target(ModuleKey("denoiser", "out.2"), "weight")`` -> ``diffusion_model.out.2.weight``.

    Args:
        keys: the model's; of a parameter's names the one that is there. FLUX.1's norms have a ``scale``, which newer
            versions of the host load as ``weight``.
    """
    component = architecture.component(target.module.component)
    prefix = component.host_prefix if component else "?."
    module = architecture.module(target.module)
    own = parameter_name(target.module.path, target.parameter)
    names = [prefix + name for name in (module.keys(target.parameter) if module else (own,))]
    return next((name for name in names if name in keys), names[0])


def read_model(model: Any, clip: Any) -> HostModel | None:
    """Names and shapes of what is connected, and its family; None when nothing is connected.

    Raises:
        ConfigError: the model is of no family in ``ARCHITECTURES``, or MODEL and CLIP are of different ones.
    """
    if model is None and clip is None:
        return None
    for_model = {} if model is None else _shapes(model.model)
    for_clip = {} if clip is None else _shapes(clip.cond_stage_model)
    shapes = for_model | for_clip
    of_model = set() if model is None else {MODEL_PART}
    parts = ([] if model is None else [model.model]) + ([] if clip is None else [clip.cond_stage_model])
    family = _family(shapes, of_model, _encoders(for_clip))
    return HostModel(model, clip, shapes, family, QuantisedWeights(parts))


def _shapes(module: Any) -> dict[str, Shape]:
    """Shapes as the layers have them. In the state dict quantised weights are packed and padded."""
    shapes: dict[str, Shape] = {key: tuple(weight.shape) for key, weight in module.state_dict().items()}
    logical = {key: tuple(weight.shape) for key, weight in module.named_parameters(remove_duplicate=False)}
    return {key: logical.get(key, shape) for key, shape in shapes.items()}


def _encoders(keys: Iterable[str]) -> set[str]:
    """The text encoders of a CLIP, by the host's names: ``{"clip_l", "t5xxl"}``."""
    return {key.partition(".")[0] for key in keys}


def _family(shapes: Mapping[str, Shape], of_model: set[str], of_clip: set[str]) -> Architecture:
    """The family of both together; the error says which of the two is not known."""

    if family := recognise(shapes, of_model | of_clip):
        return family
    parts = {"MODEL": of_model, "CLIP": of_clip}
    families = {name: recognise(shapes, part) for name, part in parts.items() if part}
    titles = ", ".join(row.title for row in ARCHITECTURES)
    for name, row in families.items():
        if row is None:
            raise ConfigError(name, [f"its family is not known to this version; known: {titles}. Load one of these"])
    different = " and ".join(row.title for row in families.values() if row)
    raise ConfigError("MODEL and CLIP", [f"they are of {different}: connect those of one checkpoint"])


def patched(host: HostModel, stack: Stack) -> tuple[Any, Any, Binding]:
    """Clones of MODEL and CLIP with the stack on them, and what fitted. What has no patch is returned as it came."""
    binding = bind(stack, host.shape_of, host.architecture, host.components)
    model, clip = host.model, host.clip
    patches = {host.key(target): patch for target, patch in binding.patches.items()}
    adapters = {key: LoomAdapter.of(patch, host.quantised.smooth(key)) for key, patch in patches.items()}
    for_model = {key: value for key, value in adapters.items() if key.startswith(f"{MODEL_PART}.")}
    for_clip = {key: value for key, value in adapters.items() if key not in for_model}
    if for_model:
        model = model.clone()
        _add(model, for_model, _for_component(stack, clip=0.0))
    if for_clip:
        clip = clip.clone()
        _add(clip.patcher, for_clip, _for_component(stack, model=0.0))
    return model, clip, binding


def _add(patcher: Any, adapters: Mapping[str, LoomAdapter], stack: Stack) -> None:
    """Add the patches; give the clone an id that depends on its parent and the stack alone.

    The host keeps the weights of a loaded model when the id of the next one is the same. Its own ids are random, so
    that a node which runs again would have every weight computed again.
    """
    parent = patcher.patches_uuid
    patcher.add_patches(adapters, 1.0)
    patcher.patches_uuid = uuid.uuid5(parent, stack.digest)


def _for_component(stack: Stack, **changes: float) -> Stack:
    """The stack with some strengths changed; entries that then do nothing are left out.

    So the id of a MODEL does not depend on the strengths of the CLIP, and the other way round.
    """
    entries = [replace(entry, strengths=replace(entry.strengths, **changes)) for entry in stack.entries]
    acting = [
        entry
        for entry in entries
        if entry.strengths.model or entry.strengths.clip or any(entry.strengths.components.values())
    ]
    return Stack(tuple(acting))


class LoomAdapter(WeightAdapterBase):
    """All that a stack does to one weight, as a patch value of the host.

    The host rebuilds a patch value as ``type(value)(value.loaded_keys, weights)`` with the tensors in ``weights`` on
    another device, and loses everything else. So ``weights`` is all there is: the patch; per part the factors as the
    file stores them (views of the file, no memory of their own) with their scale, or None where it has none; and the
    factor on the layer's input, or None. With such a factor ``y = W (x * smooth)``, so that the patch is for
    ``W * smooth``, and ``W`` is what it makes of that, divided by ``smooth``.
    """

    name = "loom"

    def __init__(self, loaded_keys: set[str], weights: tuple[Patch, tuple[Any, ...], Any]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights  # type: ignore[assignment]  # the host says list, and passes tuples itself

    @classmethod
    def of(cls, patch: Patch, smooth: torch.Tensor | None = None) -> LoomAdapter:
        factors = [part.delta.factors() for part in patch.parts]
        return cls(set(), (patch, tuple(found and tuple(found) for found in factors), smooth))

    def calculate_shape(self, key: str) -> Shape | None:
        """The weight's shape afterwards where it is another (the host then patches it when it loads), else None."""
        patch, _, _ = self.weights
        return None if patch.result == patch.shape else patch.result

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Any,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> torch.Tensor:
        """The patched weight, computed in float32 and returned in ``intermediate_dtype``.

        That is float32 when the host makes weights to keep, which it then rounds, once, to their own dtype; it is
        the weight's dtype when the host patches weights on their way to a layer.
        """
        patch, held, smooth = self.weights
        parts = [
            replace(part, delta=_Held(part.delta, Factors(*factors))) if factors else part
            for part, factors in zip(patch.parts, held, strict=True)
        ]
        patch = replace(patch, parts=tuple(parts))
        if smooth is None:
            result = apply_patch(weight, patch, dtype=intermediate_dtype)
        else:
            smooth = smooth.to(weight.device, torch.float32)
            result = (apply_patch(weight.float() * smooth, patch) / smooth).to(intermediate_dtype)
        return result if strength == 1.0 else torch.lerp(weight.to(intermediate_dtype), result, strength)


class _Held(Delta):
    """A delta whose factors are where the host put them."""

    def __init__(self, delta: Delta, factors: Factors) -> None:
        self.type, self.tensors, self.rank, self.scale = delta.type, delta.tensors, delta.rank, delta.scale
        self._delta, self._factors = delta, factors

    def factors(self, device: torch.device | str = "cpu") -> Factors:
        up, down, scale = self._factors
        return Factors(up.to(device), down.to(device), scale)

    def apply(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        return self._delta.apply(weight, strength)

    def shape_after(self, shape: Shape) -> Shape:
        return self._delta.shape_after(shape)
