"""``[data]``, ``[data.prior]`` and ``[validation]``: pictures, captions, and how a sample is drawn from them."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import Field, field_validator

from .section import Section

Fraction = Annotated[float, Field(ge=0, le=1)]


class PriorSection(Section):
    """DreamBooth's prior preservation: pictures of the class keep the model from forgetting it."""

    folder: str = Field(default="", description="pictures of the class; kohya's `reg` folders are found without it")
    select: dict[str, str] = Field(default={}, description="of the folder's metadata, as in [data]")
    caption: str = Field(default="", description="one caption for them, `photo of a dog`")
    weight: float = Field(default=1.0, ge=0, description="of their loss beside the subject's")
    generate: int = Field(default=0, ge=0, description="pictures that the base draws from the caption before training")


class DataSection(Section):
    """The training pictures."""

    folder: str = Field(default="", description="pictures with metadata.jsonl or .csv, text files, or kohya's folders")
    caption: str = Field(default="", description="one caption for all pictures that have none")
    caption_extensions: tuple[str, ...] = Field(
        default=(".txt", ".caption"), description="of text files with a picture's name"
    )
    text_column: str = Field(default="text", description="of metadata.jsonl and .csv")
    select: dict[str, str] = Field(
        default={}, description="only rows of metadata whose columns have these values; !value for all but it"
    )
    repeats: int = Field(default=1, ge=1, description="times that a picture counts in an epoch")
    trigger: str = Field(default="", description="word put in front of every caption and saved as the trigger phrase")

    resolution: tuple[int, int] = Field(default=(512, 512), description="width and height, or one number for both")
    buckets: bool = Field(default=True, description="keep the pictures' proportions in buckets of equal area")
    bucket_step: int = Field(default=64, ge=8, description="sides of buckets are multiples of it, in pixels")
    max_aspect: float = Field(default=2.0, ge=1, description="the widest and tallest bucket")
    upscale: bool = Field(default=False, description="allow enlarging pictures that are smaller than their bucket")
    crop: Literal["center", "random"] = Field(default="center", description="which part of a picture fills its bucket")
    flip: Fraction = Field(default=0.0, description="share of draws that are mirrored")
    colour_jitter: Fraction = Field(default=0.0, description="brightness, contrast and saturation change by up to this")
    latents: Literal["sample", "mean"] = Field(
        default="sample", description="draw from the VAE's distribution, or its mean"
    )

    caption_dropout: Fraction = Field(default=0.0, description="share of draws with an empty caption")
    tag_dropout: Fraction = Field(default=0.0, description="share of tags left out, beyond keep_tokens")
    shuffle_tags: bool = Field(default=False, description="tags in random order, beyond keep_tokens")
    keep_tokens: int = Field(default=0, ge=0, description="tags in front that stay first and are never dropped")
    separator: str = Field(default=",", min_length=1, description="text between tags")
    wildcards: bool = Field(default=False, description="{red|blue} in a caption is one of them; lines are alternatives")

    masks: Literal["none", "file", "alpha", "auto"] = Field(
        default="none", description="weigh the loss by <stem>.mask.png or the alpha channel"
    )
    mask_floor: Fraction = Field(default=0.1, description="weight where the mask is black")
    cache: str = Field(default="", description="folder of cached latents and text; beside the output when empty")
    cache_latents: bool = Field(default=True, description="encode each view of a picture once and keep it on disk")
    cache_text: bool = Field(default=True, description="the same for captions, where no text encoder is trained")
    workers: int = Field(default=1, ge=0, le=64, description="threads that read the next pictures")
    prior: PriorSection = PriorSection()

    @field_validator("resolution", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        if isinstance(value, list):  # what a validator returns is checked strictly, and a list is no tuple
            return tuple(cast("list[object]", value))
        return (value, value) if isinstance(value, int) else value


class ValidationSection(Section):
    """The loss on pictures that are not trained on, with fixed noise at fixed timesteps."""

    split: float = Field(default=0.0, ge=0, lt=1, description="share of the pictures held out, by their content")
    folder: str = Field(default="", description="or pictures of their own")
    select: dict[str, str] = Field(default={}, description="of the folder's metadata, as in [data]")
    every: int = Field(default=0, ge=0, description="steps between two measurements; 0 for the start and the end only")
    timesteps: tuple[float, ...] = Field(default=(0.2, 0.4, 0.6, 0.8), description="as fractions of the schedule")
    train_subset: int = Field(
        default=8, ge=0, description="training pictures measured the same way: the gap is overfitting"
    )
    prompts: tuple[str, ...] = Field(
        default=(), description="unrelated captions: how much the prediction changes there"
    )
