"""New words for the text encoders, whose embeddings are trained: pivotal tuning, textual inversion.

    ids < first    -> the encoder's own table, frozen
    ids >= first   -> rows, a float32 parameter of (words, width)

The rows are a parameter of their own, so the optimizer sees a few thousand numbers and not the whole table, and no
other word can move. Source of the method: Gal et al. 2022; of the decay of lengths: cloneofsimo's lora.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ..architectures import Architecture
from ..errors import ConfigError
from .config import TokensSection
from .denoiser import Denoiser
from .network.group import Group
from .seeds import generator

# Where a word starts that nothing is said of; the deviation is that of CLIP's own embeddings, about.
DEFAULT_START = "<rand-0.017>"
# The learning rate at which ``norm_decay`` is meant.
DECAY_RATE = 5e-4

_RANDOM = re.compile(r"^<rand-(\d*\.?\d+(?:e-?\d+)?)>$")
_ZERO = "<zero>"


class Encoder(Protocol):
    """A text encoder whose words can be added to: transformers' CLIP and its tokenizer."""

    component: str
    model: Any
    tokenizer: Any


@runtime_checkable
class TakesWords(Protocol):
    """A denoiser whose text encoders are at hand."""

    @property
    def architecture(self) -> Architecture: ...

    @property
    def encoders(self) -> Sequence[Encoder]: ...


class TokenEmbedding(nn.Module):
    """In the place of an encoder's table of words: the table, and rows for the words from ``first`` on."""

    def __init__(self, table: nn.Embedding, rows: Tensor, first: int) -> None:
        super().__init__()
        self.table, self.first = table, first
        self.rows = nn.Parameter(rows.to(table.weight.device, torch.float32))

    def get_base_layer(self) -> nn.Embedding:
        """The table, by the name that PEFT's layers have for what they stand in the place of."""
        return self.table

    def forward(self, ids: Tensor, **named: Any) -> Tensor:
        """(b, tokens) -> (b, tokens, width) in the table's dtype; hosts tell their tables more, as another dtype."""
        new = ids >= self.first
        known = self.table(ids.masked_fill(new, 0), **named)
        rows = self.rows[(ids - self.first).clamp_min(0)]
        return torch.where(new.unsqueeze(-1), rows.to(known.dtype), known)


class TokenEmbeddings:
    """The new words of a denoiser; made by ``add_tokens``.

    Attributes:
        names: the words.
        modules: component -> what stands in the place of its table.
    """

    def __init__(self, denoiser: TakesWords, section: TokensSection, modules: Mapping[str, TokenEmbedding]) -> None:
        self.names = section.names
        self.modules = modules
        self._architecture, self._encoders, self._section = denoiser.architecture, denoiser.encoders, section
        self._tokenizers = [encoder.tokenizer for encoder in self._encoders]
        for encoder in self._encoders:
            encoder.tokenizer = _with_words(encoder.tokenizer, section.names)
            _embeddings_of(encoder.model).token_embedding = modules[encoder.component]
        norms = {name: _lengths(module.table.weight.float()).mean().item() for name, module in modules.items()}
        first = next(iter(norms.values()))
        # Words are longer in some encoders than in others; the setting is for the first one.
        self._lengths = {name: section.norm * norm / first for name, norm in norms.items()}

    def parameters(self) -> list[nn.Parameter]:
        return [module.rows for module in self.modules.values()]

    def group(self) -> Group:
        """For the optimizer."""
        return Group("tokens", self.parameters(), self._section.learning_rate)

    @torch.no_grad()
    def decay(self, learning_rate: float) -> None:
        """After a step: draw each row towards its encoder's length, the less the smaller the learning rate.

        ``|row| <- |row| + min(1, norm_decay * learning_rate / 5e-4) * (length - |row|)``
        """
        share = min(1.0, self._section.norm_decay * learning_rate / DECAY_RATE)
        if self._section.norm == 0 or share == 0:
            return
        for name, module in self.modules.items():
            norm = _lengths(module.rows)
            wanted = norm + share * (self._lengths[name] - norm)
            module.rows.mul_(wanted / norm.clamp_min(torch.finfo(torch.float32).tiny))

    def embeddings(self) -> dict[str, dict[str, Tensor]]:
        """Word -> encoder in ComfyUI's names (``clip_l``) -> (1, width) float32 on the CPU, as LoRA files hold them."""
        found: dict[str, dict[str, Tensor]] = {name: {} for name in self.names}
        for component, module in self.modules.items():
            own = self._architecture.component(component)
            encoder = own.encoder if own else component
            for name, row in zip(self.names, module.rows.detach().cpu(), strict=True):
                found[name][encoder] = row[None].clone()
        return found

    def state(self) -> dict[str, Tensor]:
        """For resuming: component -> rows."""
        return {name: module.rows.detach().cpu().clone() for name, module in self.modules.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, module in self.modules.items():
            module.rows.copy_(state[name])

    def detach(self) -> None:
        """Leave the encoders and tokenizers as they came."""
        for encoder, tokenizer in zip(self._encoders, self._tokenizers, strict=True):
            encoder.tokenizer = tokenizer
            _embeddings_of(encoder.model).token_embedding = self.modules[encoder.component].table


def add_tokens(denoiser: Denoiser, section: TokensSection, seed: int = 0) -> TokenEmbeddings:
    """Teach the tokenizers the words, and put rows for them into the text encoders.

    Args:
        denoiser: one whose text encoders are transformers' CLIPs.
        section: words, and for each what it starts from.
        seed: of random starts.

    Raises:
        ConfigError: all faults of the words and their starts.
    """
    if not isinstance(denoiser, TakesWords):
        raise ConfigError("tokens.names", ["the text encoders of this model take no new words; leave the list empty"])
    starts = section.start or (DEFAULT_START,) * len(section.names)
    if faults := _faults(denoiser.encoders, section.names, starts):
        raise ConfigError("tokens", faults)
    modules: dict[str, TokenEmbedding] = {}
    for encoder in denoiser.encoders:
        table = cast(nn.Embedding, _embeddings_of(encoder.model).token_embedding)
        rows = [
            _first_row(table, encoder, start, generator(seed, "token", name, encoder.component))
            for name, start in zip(section.names, starts, strict=True)
        ]
        modules[encoder.component] = TokenEmbedding(table, torch.stack(rows), len(encoder.tokenizer))
    return TokenEmbeddings(denoiser, section, modules)


def _faults(encoders: Sequence[Encoder], names: Sequence[str], starts: Sequence[str]) -> list[str]:
    faults: list[str] = []
    if len(starts) != len(names):
        faults.append(f"start has {len(starts)} entries for {len(names)} words; give one for each")
    faults += [f"{name!r} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    faults += [f"{name!r} has spaces; a word has none" for name in names if name.split() != [name]]
    for encoder in encoders:
        known = encoder.tokenizer.get_vocab()
        faults += [
            f"{name!r} is a word that the {encoder.component} knows; choose another, as <s1>"
            for name in names
            if name.lower() in known or f"{name.lower()}</w>" in known
        ]
        for start in starts:
            if _is_word(start) and (count := len(_ids(encoder.tokenizer, start))) != 1:
                pieces = f"{count} tokens in the {encoder.component}"
                faults.append(f"start {start!r} is {pieces}; give a common word, <rand-0.017> or <zero>")
    return list(dict.fromkeys(faults))


def _is_word(start: str) -> bool:
    return start != _ZERO and not _RANDOM.match(start)


def _first_row(table: nn.Embedding, encoder: Encoder, start: str, random: torch.Generator) -> Tensor:
    """(width,) float32 on the CPU."""
    if start == _ZERO:
        return torch.zeros(table.embedding_dim)
    if found := _RANDOM.match(start):
        return torch.randn(table.embedding_dim, generator=random) * float(found[1])
    return table.weight[_ids(encoder.tokenizer, start)[0]].detach().float().cpu()


def _lengths(rows: Tensor) -> Tensor:
    """(n, width) -> (n, 1)"""
    return rows.square().sum(dim=1, keepdim=True).sqrt()


def _ids(tokenizer: Any, word: str) -> list[int]:
    return list(tokenizer(word, add_special_tokens=False).input_ids)


def _with_words(tokenizer: Any, names: Sequence[str]) -> Any:
    """A copy that knows the words. Words of letters are not found inside longer ones."""
    from tokenizers import AddedToken

    made = copy.deepcopy(tokenizer)
    made.add_tokens([AddedToken(name, single_word=name[0].isalnum() and name[-1].isalnum()) for name in names])
    return made


def _embeddings_of(model: Any) -> Any:
    """What holds an encoder's ``token_embedding``; transformers 5 has it one level higher."""
    return getattr(model, "text_model", model).embeddings
