"""The LoRA of this moment as a file, with all that is known of the run in its metadata."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from PIL.Image import Image

from .optimizers import averaged
from .output import (
    PictureFolder,
    RunFacts,
    SavedLora,
    base_facts,
    check_embeddings,
    metadata,
    save_embeddings,
    save_lora,
)
from .output.pictures import last_sample
from .pieces import Pieces
from .seeds import number

# Wall clock and process number make the session; it names a run, and nothing is drawn from it.
_SESSION = 2**31


def new_session() -> int:
    """A number for ``ss_session_id``, the same in all files of a run."""
    return number(time.time_ns(), "session") % _SESSION


@dataclass
class Writer:
    """Writes LoRAs of a run.

    Args:
        pieces: of the run.
        session, started: of the run, when it first began.
        thumbnail: the last sample.
    """

    pieces: Pieces
    session: int = field(default_factory=new_session)
    started: float = field(default_factory=time.time)
    thumbnail: Image | None = None

    def write(self, path: Path, step: int, loss: float | None, comment: str = "") -> SavedLora:
        """Over the file that may be there, once it is known to do what was trained.

        The weights that are written are those to be used: the average, where one is kept.
        """
        pieces, output = self.pieces, self.pieces.config.output
        pieces.network.train(False)
        try:
            with averaged(pieces.optimizer), pieces.averages():
                embeddings = pieces.tokens.embeddings() if pieces.tokens is not None else {}
                if not pieces.network.parts:
                    files = save_embeddings(embeddings, path, output.dtype)
                    check_embeddings(files, embeddings)
                    return SavedLora(files[0], files, None, ())
                deltas = pieces.network.deltas()
                facts = replace(self._facts, step=step, loss=loss, comment=comment, thumbnail=self._thumbnail())
                return save_lora(
                    pieces.network.adapter(),
                    embeddings,
                    path,
                    output.format,
                    output.dtype,
                    metadata(pieces.config, facts),
                    deltas=deltas,
                    weight_of=deltas.weight,
                )
        finally:
            pieces.network.train()

    def _thumbnail(self) -> Image | None:
        return self.thumbnail or last_sample(self.pieces.folder)

    @cached_property
    def _facts(self) -> RunFacts:
        """What stays the same over the run; the hash of a large base is computed once."""
        pieces = self.pieces
        model, data = pieces.config.model, pieces.data
        return RunFacts(
            architecture=pieces.denoiser.architecture.name,
            prediction=pieces.denoiser.schedule.prediction,
            base=base_facts(getattr(pieces.denoiser, "base", model.base)),
            vae=base_facts(model.vae),
            processes=pieces.processes.count,
            epoch_size=data.epoch_draws,
            held_out=len(data.held_out),
            folders=_folders(pieces),
            tag_frequency=data.tag_frequency(),
            bucket_info=data.bucket_info(),
            started=self.started,
            session=self.session,
        )


def check_format(pieces: Pieces) -> None:
    """Faults of the file's format are found before hours of training: the adapter as it is now can be written.

    Raises:
        as ``convert``.
    """
    from ..convert import convert

    if pieces.network.parts:
        convert(pieces.network.adapter(), pieces.config.output.format, pieces.config.output.dtype)


def _folders(pieces: Pieces) -> dict[str, PictureFolder]:
    """Of the pictures that are trained on."""
    plan: Any = pieces.data.plan
    held_out = set(cast("tuple[int, ...]", plan.held_out))
    trained = [picture for index, picture in enumerate(pieces.data.pictures) if index not in held_out]
    counts = Counter((picture.group, picture.repeats, picture.prior) for picture in trained)
    found: dict[str, PictureFolder] = {}
    for (group, repeats, prior), count in counts.items():
        # A table may give pictures of one folder repeats of their own, and folders of both kinds may share a name.
        name = group if group not in found else f"{'reg/' if prior else ''}{repeats}_{group}"
        found[name] = PictureFolder(count, repeats, prior)
    return found
