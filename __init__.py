"""LoRA Loom for ComfyUI: what the host reads when it loads this folder from `custom_nodes`.

The nodes are imported when the host asks for them, not before: test tools import this file too, without a host.
"""

import logging

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    try:
        from .nodes import LoomExtension
    except Exception:
        # The host shows only the last line of such an error; this one says where it came from.
        logging.getLogger(__name__).exception("LoRA Loom could not load its nodes")
        raise
    return LoomExtension()
