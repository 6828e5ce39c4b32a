"""The nodes: thin classes over ``lora_core``, one file a topic, all of them in ``NODES``."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ._files import add_demo_loras
from .apply_stack import LoomApplyStack
from .convert_lora import LoomConvertLora
from .demo_model import LoomDemoModel
from .inspect_lora import LoomInspectLora
from .lora_loader import LoomLoraLoader
from .lora_stack import LoomLoraStack
from .merge_to_checkpoint import LoomMergeToCheckpoint
from .prompt_loras import LoomPromptLoras

NODES: tuple[type[io.ComfyNode], ...] = (
    LoomLoraLoader,
    LoomLoraStack,
    LoomApplyStack,
    LoomPromptLoras,
    LoomMergeToCheckpoint,
    LoomConvertLora,
    LoomInspectLora,
    LoomDemoModel,
)


class LoomExtension(ComfyExtension):
    """What the host asks for nodes."""

    async def on_load(self) -> None:
        add_demo_loras()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)
