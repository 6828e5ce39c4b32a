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
    seed: int = Field(default=0, ge=0, lt=2**63, description="of start values, noise, timesteps and the order of data")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        default="fp32", description="of the computation; factors stay fp32"
    )
    checkpointing: bool = Field(default=False, description="less memory, about a third more time")
    compile: bool = Field(default=False, description="torch.compile; the first step of each shape takes longer")
    channels_last: bool = Field(default=False, description="memory layout that suits convolutions on a GPU")
    attention: Literal["auto", "sdpa", "sliced"] = Field(
        default="auto", description="sliced takes less memory and more time"
    )
    log_every: int = Field(
        default=10, ge=1, description="steps between two looks at the loss; each waits for the device"
    )
    stuck_after: int = Field(default=50, ge=1, description="steps after which a part that has not moved is an error")


class SamplesSection(Section):
    """Pictures drawn on the way, always from the same noise."""

    prompts: tuple[str, ...] = Field(default=(), description="a picture is drawn for each")
    negative: str = Field(default="", description="negative prompt of all")
    every: int = Field(default=0, ge=0, description="steps; 0 for the end only")
    seed: int = Field(default=0, ge=0, description="of their noise")
    steps: int = Field(default=20, ge=1, description="of the sampler")
    guidance: float = Field(default=7.0, ge=0, description="classifier-free guidance scale")
    width: Side | None = Field(default=None, description="the training resolution when left out")
    height: Side | None = Field(default=None, description="the training resolution when left out")
    first: bool = Field(default=True, description="before the first step too")


class OutputSection(Section):
    """The file, its name, and what it says of itself."""

    folder: str = Field(
        default="loras", description="where the file goes, and beside it <name>.run with state, samples, curves"
    )
    runs: str = Field(default="", description="where <name>.run goes, when not beside the file")
    name: str = Field(
        default="lora", min_length=1, pattern=r"^[^/\\]+$", description="name of the file, without .safetensors"
    )
    format: str = Field(default="kohya", description="kohya, diffusers, peft or comfy")
    dtype: Literal["fp32", "fp16", "bf16"] = Field(default="fp16", description="number type in the file")
    save_every: int = Field(
        default=0, ge=0, description="steps between two files <name>-000500.safetensors; 0 for the end only"
    )
    keep: int = Field(default=0, ge=0, description="of those files, the newest; 0 for all")
    state_every: int = Field(
        default=0, ge=0, description="steps between two saves of the state; 0 for as often as files"
    )
    title: str = Field(default="", description="for the metadata, as the next five")
    author: str = Field(default="", description="who made it")
    description: str = Field(default="", description="what it is for")
    license: str = Field(default="", description="what others may do with it")
    tags: tuple[str, ...] = Field(default=(), description="words to find it by")
    comment: str = Field(default="", description="anything else")
    thumbnail: bool = Field(default=True, description="the last sample in the metadata")
    tensorboard: bool = Field(default=True, description="curves for TensorBoard in <name>.run/logs")
    plot: bool = Field(default=True, description="curves as a picture, <name>.run/loss.png")
