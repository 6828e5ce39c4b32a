"""``[run]``, ``[samples]`` and ``[output]``: length, precision, pictures on the way, and what is left on disk."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import Section

Side = Annotated[int, Field(ge=8)]


class RunSection(Section):
    """Length, batch, seed and precision."""

    steps: int = Field(default=1000, ge=1, description="of the optimizer")
    batch: int = Field(default=1, ge=1, description="pictures a pass, on each process")
    accumulate: int = Field(default=1, ge=1, description="passes a step")
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        default="fp32", description="of the computation; factors stay fp32"
    )
    checkpointing: bool = Field(default=False, description="less memory, about a third more time")
    compile: bool = Field(default=False, description="torch.compile; the first step of each shape takes longer")
    channels_last: bool = False
    attention: Literal["auto", "sdpa", "sliced"] = "auto"
    log_every: int = Field(
        default=10, ge=1, description="steps between two looks at the loss; each waits for the device"
    )
    stuck_after: int = Field(default=50, ge=1, description="steps after which a part that has not moved is an error")


class SamplesSection(Section):
    """Pictures drawn on the way, always from the same noise."""

    prompts: tuple[str, ...] = ()
    negative: str = ""
    every: int = Field(default=0, ge=0, description="steps; 0 for the end only")
    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=20, ge=1)
    guidance: float = Field(default=7.0, ge=0)
    width: Side | None = Field(default=None, description="the training resolution when left out")
    height: Side | None = None
    first: bool = Field(default=True, description="before the first step too")


class OutputSection(Section):
    """The file, its name, and what it says of itself."""

    folder: str = "loras"
    name: str = Field(
        default="lora", min_length=1, pattern=r"^[^/\\]+$", description="name of the file, without .safetensors"
    )
    format: str = Field(default="kohya", description="kohya, diffusers, peft or comfy")
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16"
    save_every: int = Field(
        default=0, ge=0, description="steps between two files <name>-000500.safetensors; 0 for the end only"
    )
    keep: int = Field(default=0, ge=0, description="of those files, the newest; 0 for all")
    state_every: int = Field(
        default=0, ge=0, description="steps between two saves of the state; 0 for as often as files"
    )
    title: str = ""
    author: str = ""
    description: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    comment: str = ""
    thumbnail: bool = True
    tensorboard: bool = True
    plot: bool = True
