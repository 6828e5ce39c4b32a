"""A MODEL and a CLIP, held for training, and given back to the host whenever it works with them itself.

Held, the host's memory management has loaded all of them, the graph's LoRAs are in their weights, adapters are in
place, and weights can take part in gradients. The host makes its weights under ``torch.inference_mode``, and such
tensors cannot; another tensor on the same memory can, so nothing is copied.

Lent, every parameter is the object that the host put there and no adapter is to be seen: the host may move, patch and
unload what it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from comfy import model_management
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ._host_cancel import cancellable

# More than there is: everything else leaves the device.
_ALL = 1e20

_PLAIN = (Tensor, nn.Parameter)

Place = tuple[dict[str, Any], str]


class Holding:
    """See the module.

    Args:
        patchers: the host's, clones of its own.
        parts: component -> module that is trained, inside of the patchers' models.
        checkpointing: activations of blocks are computed again for the gradient.
    """

    def __init__(self, patchers: list[Any], parts: Mapping[str, nn.Module], checkpointing: bool) -> None:
        self.patchers, self.parts, self._checkpointing = patchers, parts, checkpointing
        self.held = False
        self._originals: list[tuple[dict[str, Any], str, Tensor, Tensor]] = []
        self._layers: list[tuple[nn.Module, str, nn.Module]] = []
        self._changed: dict[tuple[int, str], Tensor] = {}
        self._wrapped: list[tuple[nn.Module, Any]] = []
        self._hooks: list[Any] = []

    def hold(self) -> None:
        """Loaded and ready to be trained; other models leave the device."""
        if self.held:
            return
        with torch.inference_mode(), cancellable():
            model_management.load_models_gpu(self.patchers, memory_required=_ALL, force_full_load=True)
        self.held = True
        for parent, name, layer in self._layers:
            setattr(parent, name, layer)
        for place, name in list(self._inference_tensors()):
            original = place[name]
            usable = trainable(original)
            changed = self._changed.pop((id(place), name), None)
            if changed is not None:
                usable.data = changed.to(usable.device)
            place[name] = usable
            self._originals.append((place, name, original, usable))
        if self._checkpointing:
            self._wrap()
        self._hooks = [norm.register_forward_pre_hook(_copied) for part in self.parts.values() for norm in norms(part)]
        model_management.in_training = True  # the host then uses kernels that have a gradient

    def lend(self) -> None:
        """As the host knows it."""
        if not self.held:
            return
        self.held = False
        model_management.in_training = False
        for module, forward in self._wrapped:
            del module.forward
            if forward is not None:  # another pack's
                module.forward = forward
        self._wrapped.clear()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for place, name, original, usable in self._originals:
            # Some starts of adapters take a part out of the base, where it is not quantised.
            if type(original) in _PLAIN and usable.data_ptr() != original.data_ptr():
                self._changed[id(place), name] = usable.data
            place[name] = original
        self._originals.clear()
        self._layers = list(self._adapters())
        for parent, name, layer in self._layers:
            setattr(parent, name, layer.get_base_layer())  # type: ignore[operator]

    def close(self) -> None:
        """The models as they came; those that were loaded for training are loaded no more."""
        self._changed.clear()
        self.lend()
        with torch.inference_mode():
            for patcher in self.patchers:
                for loaded in list(model_management.current_loaded_models):
                    if loaded.model is patcher:
                        loaded.model_unload()
                        model_management.current_loaded_models.remove(loaded)

    def _inference_tensors(self) -> Iterator[Place]:
        """Where parameters, buffers and other tensors of modules are that cannot take part in gradients."""
        for part in self.parts.values():
            for module in part.modules():
                for place in (module._parameters, module._buffers, vars(module)):
                    for name, value in place.items():
                        if isinstance(value, Tensor) and value.is_inference():
                            yield place, name

    def _adapters(self) -> Iterator[tuple[nn.Module, str, nn.Module]]:
        """(parent, name, layer) of PEFT's layers."""
        for part in self.parts.values():
            for path, module in list(part.named_modules()):
                if hasattr(module, "get_base_layer"):
                    parent, _, name = path.rpartition(".")
                    yield part.get_submodule(parent), name, module

    def _wrap(self) -> None:
        for part in self.parts.values():
            for block in blocks(part):
                self._wrapped.append((block, vars(block).get("forward")))
                block.forward = partial(_again, block.forward)  # type: ignore[method-assign]


def trainable(tensor: Tensor) -> Tensor:
    """The same numbers as a tensor that can take part in gradients, on the same memory where it is a plain one."""
    if type(tensor) in _PLAIN:
        made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        made.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    else:  # a quantised one, of several tensors
        made = tensor.detach().clone()
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def blocks(module: nn.Module) -> list[nn.Module]:
    """What activations are computed again for: the layers of a UNet's blocks, the blocks of a transformer.

    Blocks stand in lists, one level below the model. A UNet's are sequences that it goes through itself, so it is
    their layers that are called.
    """
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                found += list(block) if isinstance(block, (nn.Sequential, nn.ModuleList)) else [block]
        elif isinstance(child, nn.Sequential) and len(child) > 1:
            found += list(child)
    return [block for block in found if any(True for _ in block.parameters())]


def norms(module: nn.Module) -> list[nn.Module]:
    """What keeps its input for the gradient while blocks of the host's transformers go on adding to it in place.

    UNets add to nothing that is kept.
    """
    if isinstance(module, UNetModel):
        return []
    return [one for one in module.modules() if "norm" in type(one).__name__.lower()]


def _copied(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if not (torch.is_grad_enabled() and inputs and isinstance(inputs[0], Tensor) and inputs[0].requires_grad):
        return None
    return (inputs[0].clone(), *inputs[1:])


def _again(forward: Any, *arguments: Any, **named: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    if not torch.is_grad_enabled():
        return forward(*arguments, **named)

    def run(*arguments: Any, **named: Any) -> Any:
        with cancellable():  # the second time it is called out of the backward pass
            # The second time it has to begin with the same numbers, whatever the block does to its inputs.
            return forward(*map(_fresh, arguments), **{name: _fresh(value) for name, value in named.items()})

    return checkpoint(run, *arguments, use_reentrant=False, **named)


def _fresh(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and value.is_floating_point() else value
