"""The one file that knows how the host keeps weights and patches: MODEL and CLIP in, patched clones out.

One patch a weight. Its value is a ``LoomAdapter``, which computes with ``lora_core.apply_patch``, so that the live
weight is the merged weight to the last bit. Nothing is computed here: the host asks for a weight when it loads the
model, on the device and in the memory mode that it chose.
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

import comfy.lora
import comfy.lora_convert
import torch
from comfy.weight_adapter import WeightAdapterBase

from ..lora_core import Stack, Target
from ..lora_core.adapters import Delta, Factors
from ..lora_core.architectures import ARCHITECTURES, Architecture
from ..lora_core.architectures.own import own_family
from ..lora_core.architectures.recognise import DENOISER_PART, encoders_of, nearest, part_of, parts_of, recognise
from ..lora_core.architectures.spec import parameter_name
from ..lora_core.errors import ConfigError
from ..lora_core.patching import Binding, Patch, apply_patch, bind
from ..lora_core.types import Shape
from ._quantised import QuantisedWeights


@dataclass(frozen=True, slots=True)
class HostModel:
    """A MODEL, a CLIP, or both, with the family they are of.

    Args:
        model: the host's ``ModelPatcher``, or None.
        clip: the host's ``CLIP``, or None.
        shapes: host key -> shape, of both.
        parts: what is connected, by the first words of the host's keys: ``diffusion_model``, ``clip_l``, ``t5xxl``.
        architecture: the family.
        quantised: which of the weights are quantised, and how.
    """

    model: Any
    clip: Any
    shapes: Mapping[str, Shape]
    parts: Set[str]
    architecture: Architecture
    quantised: QuantisedWeights

    @property
    def components(self) -> tuple[str, ...]:
        """What of the family is connected."""
        own = parts_of(self.architecture, self.shapes, self.parts)
        return tuple(component.name for component in self.architecture.components if part_of(component) in own)

    @property
    def notes(self) -> list[str]:
        """What is connected and not of the family: no LoRA changes it."""
        foreign = sorted(self.parts - parts_of(self.architecture, self.shapes, self.parts))
        title = self.architecture.title
        return [f"{part} of the CLIP is no text encoder of {title}: it stays as it is" for part in foreign]

    def meant_for(self, families: Iterable[str]) -> HostModel:
        """A CLIP alone may be of several families: the first of the LoRAs' that has just its encoders is meant."""
        if self.model is not None:
            return self
        own = parts_of(self.architecture, self.shapes, self.parts)
        rows = (ARCHITECTURES.get(name) for name in families)
        taking = (row for row in rows if encoders_of(row) == own == parts_of(row, self.shapes, self.parts))
        return replace(self, architecture=next(taking, self.architecture))

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
        ConfigError: a CLIP alone is of no family in ``ARCHITECTURES``.
    """
    if model is None and clip is None:
        return None
    for_model = {} if model is None else _shapes(model.model)
    for_clip = {} if clip is None else _shapes(clip.cond_stage_model)
    shapes = for_model | for_clip
    encoders = {part for part, _, rest in (key.partition(".") for key in for_clip) if rest.startswith("transformer.")}
    parts = encoders | (set() if model is None else {DENOISER_PART})
    owners = ([] if model is None else [model.model]) + ([] if clip is None else [clip.cond_stage_model])
    return HostModel(model, clip, shapes, parts, _family(shapes, parts), QuantisedWeights(owners))


def _shapes(module: Any) -> dict[str, Shape]:
    """Shapes as the layers have them. In the state dict quantised weights are packed and padded."""
    shapes: dict[str, Shape] = {key: tuple(weight.shape) for key, weight in module.state_dict().items()}
    logical = {key: tuple(weight.shape) for key, weight in module.named_parameters(remove_duplicate=False)}
    return {key: logical.get(key, shape) for key, shape in shapes.items()}


def _family(shapes: Mapping[str, Shape], parts: Set[str]) -> Architecture:
    """The family of the MODEL, its own one where it is of none in the table, or that of a CLIP alone."""
    if family := recognise(shapes, parts):
        return family
    if DENOISER_PART in parts:
        return own_family(shapes, parts)
    row, fitting, total = nearest(shapes, parts)
    known = f"its family is none of the {len(ARCHITECTURES)} that this version knows"
    near = f"{row.title} comes nearest, {fitting} of its {total} modules are there" if fitting else "none comes near"
    raise ConfigError("CLIP", [known, f"{near}. Load a model of another family, or report this one"])


def patched(host: HostModel, stack: Stack) -> tuple[Any, Any, Binding]:
    """Clones of MODEL and CLIP with the stack on them, and what fitted. What has no patch is returned as it came."""
    binding = bind(stack, host.shape_of, host.architecture, host.components)
    model, clip = host.model, host.clip
    patches = {host.key(target): patch for target, patch in binding.patches.items()}
    adapters = {key: LoomAdapter.of(patch, host.quantised.smooth(key)) for key, patch in patches.items()}
    for_model = {key: value for key, value in adapters.items() if key.startswith(f"{DENOISER_PART}.")}
    for_clip = {key: value for key, value in adapters.items() if key not in for_model}
    if for_model:
        model = model.clone()
        _add(model, for_model, _for_component(stack, clip=0.0))
    if for_clip:
        clip = clip.clone()
        _add(clip.patcher, for_clip, _for_component(stack, model=0.0))
    return model, clip, binding


def count_read(model: Any, tensors: Mapping[str, torch.Tensor]) -> int:
    """How many patches the host itself makes of the tensors of a LoRA for this MODEL."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    return len(comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(tensors)), names, log_missing=False))


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
            wide = weight.float()
            # Of an input that is multiplied with 0 the layer hears nothing, whatever the weight.
            result = torch.where(smooth == 0, wide, apply_patch(wide * smooth, patch) / smooth).to(intermediate_dtype)
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
