"""The nodes: thin classes over ``lora_core``, one file a topic, all of them in ``NODES``."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ._files import add_demo_loras
from ._routes import add_routes
from .apply_stack import LoomApplyStack
from .convert_lora import LoomConvertLora
from .demo_model import LoomDemoModel
from .inspect_lora import LoomInspectLora
from .lora_loader import LoomLoraLoader
from .lora_stack import LoomLoraStack
from .lora_train import LoomLoraTrain
from .merge_to_checkpoint import LoomMergeToCheckpoint
from .prompt_loras import LoomPromptLoras
from .save_lora import LoomSaveLora
from .train_dataset import LoomTrainDataset
from .train_settings import LoomTrainSettings

NODES: tuple[type[io.ComfyNode], ...] = (
    LoomLoraLoader,
    LoomLoraStack,
    LoomApplyStack,
    LoomPromptLoras,
    LoomMergeToCheckpoint,
    LoomTrainDataset,
    LoomTrainSettings,
    LoomLoraTrain,
    LoomConvertLora,
    LoomInspectLora,
    LoomSaveLora,
    LoomDemoModel,
)


class LoomExtension(ComfyExtension):
    """What the host asks for nodes."""

    async def on_load(self) -> None:
        add_demo_loras()
        add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)
