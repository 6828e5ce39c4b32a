"""Which modules an adapter goes into: words for groups of them, expressions, or names.

The words hold for the names of diffusers and transformers, and for those of checkpoints and hosts:

| word | modules | names |
|---|---|---|
| attention | queries, keys, values and outputs | ``attn1.to_q``, ``to_out.0``, ``img_attn.qkv``, ``self_attn.q_proj`` |
| ff | feed-forward layers of blocks | ``ff.net.0.proj``, ``img_mlp.0``, ``ffn.2``, ``mlp.fc1`` |
| proj | entry and exit of a UNet's transformers | ``attentions.0.proj_in``, ``input_blocks.1.1.proj_out`` |
| conv | convolutions of residual blocks and samplers | ``resnets.0.conv1``, ``in_layers.2``, ``downsamplers.0.conv`` |
| all | every linear layer and 1x1 convolution | |

Several are joined by ``+``. Single-stream blocks have attention and feed-forward in one matrix (``linear1``), so both
words mean it. ``regex:...`` is searched in the module's path; a list holds whole paths or their endings, as in PEFT.
Layers with kernels larger than 1x1 are left out by ``all``, and by ``conv`` without a rank for them; names and
expressions that mean one take it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from ...errors import ConfigError, UnknownNameError
from ..config.network import Targets

Names = tuple[str, ...]  # of one module: the path in the library's model, and the canonical one
Wanted = Callable[[Names], bool]

REGEX = "regex:"
_BOTH = re.compile(
    r"(^|\.)(single_transformer_blocks\.\d+\.(proj_mlp|proj_out)|single_blocks\.\d+\.linear[12]|attn\.to_qkv_mlp_proj)$"
)
_ATTENTION = re.compile(r"(^|_)(attn\d*|(self|encdec)?attention(_blocks)?)$", re.IGNORECASE)
_FF = re.compile(r"^((img|txt|audio)_)?(ff|ffn|mlp|feed_?forward)(_context)?$|^DenseReluDense$", re.IGNORECASE)
_PROJ = re.compile(r"(^|\.)(\d+|temporal_transformer)\.proj_(in|out)$")
_CONV = re.compile(
    r"(^|\.)(resnets\.\d+\.conv(1|2|_shortcut)|in_layers\.2|out_layers\.3|skip_connection|\d+\.op|\d+\.conv)$"
)
# How far from its end a path may say that it is in an attention or a feed-forward: attn1.to_out.0, ff.net.0.proj.
_NEAR = 4


def is_attention(path: str) -> bool:
    """Whether a path is of a layer of attention."""
    return bool(_BOTH.search(path)) or any(_ATTENTION.search(part) for part in path.split(".")[-_NEAR:])


def is_ff(path: str) -> bool:
    """Whether a path is of a feed-forward layer in a block: in front of it is a number, so embedders' are none."""
    if _BOTH.search(path):
        return True
    parts = path.split(".")
    found = next((place for place in range(len(parts)) if _FF.search(parts[place])), None)
    return found is not None and len(parts) - found <= _NEAR and any(part.isdigit() for part in parts[:found])


def is_proj(path: str) -> bool:
    """Whether a path is of the entry or exit of a UNet's transformer."""
    return bool(_PROJ.search(path)) and not _BOTH.search(path)


def is_conv(path: str) -> bool:
    """Whether a path is of a convolution of a UNet's residual blocks, downsamplers and upsamplers."""
    return bool(_CONV.search(path))


WORDS: Mapping[str, Callable[[str], bool]] = {
    "attention": is_attention,
    "ff": is_ff,
    "proj": is_proj,
    "conv": is_conv,
    "all": lambda path: True,
}


def is_explicit(targets: Targets) -> bool:
    """Whether modules are named, so that layers with kernels are meant too."""
    return not isinstance(targets, str) or targets.startswith(REGEX)


def wanted(targets: Targets, where: str) -> Wanted:
    """The test for the names of a module.

    Args:
        targets: of the settings.
        where: the setting, for errors: ``"network.targets"``.

    Raises:
        ConfigError: an unknown word, or an expression that is none.
    """
    if not isinstance(targets, str):
        listed = tuple(targets)
        return lambda names: any(is_named(name, one) for name in names for one in listed)
    if targets.startswith(REGEX):
        pattern = expression(targets[len(REGEX) :], where)
        return lambda names: any(pattern.search(name) for name in names)
    tests: list[Callable[[str], bool]] = []
    for word in targets.split("+"):
        if word.strip() not in WORDS:
            unknown = UnknownNameError("group of modules", word.strip(), tuple(WORDS))
            raise ConfigError(where, [f"{unknown} Or give `{REGEX}...`, or a list of names."])
        tests.append(WORDS[word.strip()])
    return lambda names: any(test(name) for test in tests for name in names)


def unwanted(exclude: Sequence[str], where: str) -> Wanted:
    """The test whether one of the expressions is found in a name of a module; errors as ``wanted``."""
    patterns = [expression(text, where) for text in exclude]
    return lambda names: any(pattern.search(name) for pattern in patterns for name in names)


def is_named(path: str, name: str) -> bool:
    """Whether a path is the name or ends in it, at a dot."""
    return path == name or path.endswith(f".{name}")


def expression(text: str, where: str) -> re.Pattern[str]:
    """A regular expression; ``ConfigError`` where it is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(where, [f"{text!r} is no regular expression: {error}"]) from None
