"""Captions made of placeholder words, for pivotal tuning on pictures that have none."""

from __future__ import annotations

from ..config import TokensSection

# Each says little beside the new word, and says it in another way, so that the word takes in what all pictures share.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "none": (),
    "object": (
        "a photo of {}",
        "a picture of {}",
        "{} seen close up",
        "{} from a distance",
        "a clear photo of one {}",
        "a snapshot that shows {}",
        "a bright photo of {}",
        "a dim photo of {}",
        "the {} in the middle of a photo",
        "a photo with {} and nothing else",
        "{} in good light",
        "a cut-out of {}",
        "a sharp picture of the {}",
        "a plain view of {}",
    ),
    "style": (
        "a picture in the style of {}",
        "art in the style of {}",
        "{}, a work of art",
        "something drawn the way of {}",
        "a scene in the style of {}",
        "a close view in the style of {}",
        "a colourful picture in the style of {}",
        "a quiet picture in the style of {}",
        "a large work in the style of {}",
        "a small work in the style of {}",
        "a detail in the style of {}",
        "a composition in the style of {}",
    ),
}


def captions_of(tokens: TokensSection) -> tuple[str, ...]:
    """Alternatives for a picture without a caption; none where no template or no placeholder word is set."""
    word = "".join(tokens.names)
    return tuple(template.format(word) for template in TEMPLATES[tokens.templates]) if word else ()
