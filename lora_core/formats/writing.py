"""How a format is written: the name of a module, the suffix of each role, and where alpha / rank goes.

Reading knows every name that any program ever used; writing uses the one that the format's readers know best. What has
to be computed to get from one spelling to another (rows, sums, scales) is ``convert``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..architectures import Architecture, Component, Location

Scaling = Literal["alpha", "factors", "config"]


def own_modules(architecture: Architecture, component: Component) -> Mapping[str, Location]:
    """The model's own names."""
    return component.native


def diffusers_modules(architecture: Architecture, component: Component) -> Mapping[str, Location]:
    """The names of diffusers' own model: of the further ones (``Component.aliases``) only those of modules that it does
    not have in one, and of these the rows. The rest are names that versions of it changed, or that it has after fusing.
    """
    names = {module.diffusers: Location(path) for path, module in component.modules.items() if module.diffusers}
    other = {path for path, module in component.modules.items() if not module.diffusers}
    places = component.aliases.items()
    cut = {part.path for _, place in places for part in place.parts if part.slice}
    for name, place in places:
        if all(part.path in other and (part.slice or part.path not in cut) for part in place.parts):
            names[name] = place
    return names


@dataclass(frozen=True)
class Writing:
    """How files of a format are written.

    Args:
        prefix: what stands in front of the paths of a component.
        modules: the paths that may be written, and what they mean.
        suffixes: role -> end of the key. A role that is not here is put into others, or cannot be written.
        scale: where alpha / rank goes: into an ``alpha`` tensor, into the factors, or into a configuration.
        path: a path as it stands in the key.
        beside: role -> suffixes of its neighbours, where a module with it spells them in another way.
        embedding: (token, name of the encoder) -> key; None where the format has no embeddings.
        apart: other names that readers know too, for modules that cannot be joined to one of ``modules``.
    """

    prefix: Callable[[Component], str]
    modules: Callable[[Architecture, Component], Mapping[str, Location]]
    suffixes: Mapping[str, str]
    scale: Scaling
    path: Callable[[str], str] = str
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    embedding: Callable[[str, str], str] | None = None
    apart: Writing | None = None

    def key(self, component: Component, path: str) -> str:
        """``lora_unet_mid_block_attentions_0_proj_in``: what stands in front of the suffix."""
        return f"{self.prefix(component)}{self.path(path)}"

    def suffix(self, role: str, roles: Mapping[str, object]) -> str:
        """The end of a role's key, in a module with these roles."""
        for beside, suffixes in self.beside.items():
            if beside in roles and role in suffixes:
                return suffixes[role]
        return self.suffixes[role]


# The suffixes that kohya, LyCORIS and ComfyUI share: most are the roles' own names.
_PAIR = {"down": "lora_down.weight", "up": "lora_up.weight"}
_OWN = (
    *("alpha", "dora_scale", "reshape_weight"),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    *("diff", "diff_b", "diff_m", "w_norm", "b_norm", "set_weight"),
    *("oft_blocks", "rescale", "oft_diag"),
)
LYCORIS = {**_PAIR, "mid": "lora_mid.weight", "oft_R": "oft_R.weight"} | {role: role for role in _OWN}
# PEFT's names of a pair, for models that ComfyUI's own nodes and newer trainers write.
COMFY = {**LYCORIS, "down": "lora_A.weight", "up": "lora_B.weight"}
TUCKER = {"mid": _PAIR}
PEFT_LORA = {
    "down": "lora_A.weight",
    "up": "lora_B.weight",
    "up_bias": "lora_B.bias",
    "magnitude": "lora_magnitude_vector",
}
