"""What a run leaves on disk.

Adapter ── saving      a LoRA file, written beside its place, read back (checking), and put there
facts   ── metadata    ``modelspec.*``, kohya's ``ss_*``, the settings
events  ── curves      loss.csv, loss.png, TensorBoard's logs
        ── pictures    samples, a sheet of them, the thumbnail
"""

from .checking import CheckReport, NotAsTrainedError, check_embeddings, check_saved
from .curves import FileWatcher
from .facts import BaseFacts, PictureFolder, RunFacts, base_facts
from .folder import RunFolder
from .metadata import metadata
from .saving import SavedLora, save_embeddings, save_lora

__all__ = [
    "BaseFacts",
    "CheckReport",
    "FileWatcher",
    "NotAsTrainedError",
    "PictureFolder",
    "RunFacts",
    "RunFolder",
    "SavedLora",
    "base_facts",
    "check_embeddings",
    "check_saved",
    "metadata",
    "save_embeddings",
    "save_lora",
]
