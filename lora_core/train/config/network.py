"""``[network]``, ``[text_encoder]`` and ``[tokens]``: what is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from .section import Section

Fraction = Annotated[float, Field(ge=0, lt=1)]
Targets = str | tuple[str, ...]


class NetworkSection(Section):
    """The adapter that PEFT puts into the denoiser."""

    type: Literal["lora", "dora", "loha", "lokr", "oft"] = Field(default="lora", description="kind of the adapter")
    rank: int = Field(default=16, ge=1, le=4096, description="for OFT the size of a block")
    alpha: float | None = Field(
        default=None, gt=0, description="scale is alpha / rank; as large as the rank when left out"
    )
    rslora: bool = Field(default=False, description="scale alpha / sqrt(rank) in place of alpha / rank")
    conv_rank: int = Field(default=0, ge=0, description="LoCon: 3x3 convolutions too, at this rank; 0 leaves them")
    conv_alpha: float | None = Field(default=None, gt=0, description="as large as conv_rank when left out")
    start: Literal["kaiming", "gaussian", "pissa", "olora", "orthogonal"] = Field(
        default="kaiming", description="the factors at the start; pissa and olora begin at the base's own directions"
    )
    targets: Targets = Field(
        default="attention+ff",
        description="attention, ff, proj, conv, all, joined by +; `regex:...`; or a list of module names",
    )
    exclude: tuple[str, ...] = Field(default=(), description="regular expressions of module names to leave out")
    block_ranks: dict[str, int] = Field(default={}, description="block name -> rank; 0 leaves the block out")
    block_alphas: dict[str, float] = Field(default={}, description="block name -> alpha")
    dropout: Fraction = Field(default=0.0, description="of the adapter's input values (neuron dropout)")
    rank_dropout: Fraction = Field(default=0.0, description="of ranks")
    module_dropout: Fraction = Field(default=0.0, description="of whole modules, per step")
    decompose_factor: int = Field(default=-1, description="LoKr: size of the small factor; -1 for the most even split")
    lora_plus: float = Field(
        default=1.0, ge=1, description="LoRA+: learning rate of up over that of down, 16 in the paper"
    )
    train: bool = Field(default=True, description="false trains the text encoder or the tokens alone")
    continue_from: str = Field(default="", description="a LoRA file to start from")

    @field_validator("block_ranks")
    @classmethod
    def _not_negative(cls, value: dict[str, int]) -> dict[str, int]:
        if wrong := [name for name, rank in value.items() if rank < 0]:
            raise ValueError(f"ranks are 0 or more, got less for {', '.join(wrong)}")
        return value


class TextEncoderSection(Section):
    """Adapters in the text encoders."""

    train: bool = Field(default=False, description="train adapters in the text encoders too")
    rank: int | None = Field(default=None, ge=1, description="as the network's when left out")
    alpha: float | None = Field(
        default=None, gt=0, description="as the network's when rank is left out too, else as large as the rank"
    )
    targets: Targets = Field(default="attention+ff", description="as in [network]")
    learning_rate: float = Field(default=1e-5, gt=0, description="of the text encoders' adapters")
    until: float = Field(default=1.0, gt=0, le=1, description="share of the steps after which the text encoders stay")


class TokensSection(Section):
    """Pivotal tuning (textual inversion in the same run): new words whose embeddings are trained."""

    names: tuple[str, ...] = Field(default=(), description="placeholder words, `<s1>`; each is one new token")
    start: tuple[str, ...] = Field(default=(), description="for each: a word to start from, `<rand-0.017>` or `<zero>`")
    learning_rate: float = Field(default=5e-4, gt=0, description="of the embeddings")
    steps: int = Field(default=0, ge=0, description="first steps in which the embeddings alone are trained")
    keep_training: bool = Field(default=False, description="go on with the embeddings beside the adapter")
    norm: float = Field(default=0.4, ge=0, description="length that embeddings decay towards; 0 for no decay")
    norm_decay: float = Field(
        default=0.1, ge=0, le=1, description="share of the way a step, times the learning rate over 5e-4"
    )
    templates: Literal["none", "object", "style"] = Field(
        default="none", description="captions made of the placeholder words, for pictures without captions"
    )
