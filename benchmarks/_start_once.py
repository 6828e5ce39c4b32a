"""One start: loads the pack as the host does, in a process that has what the host imports before, and tells the time.

    python benchmarks/_start_once.py FOLDER_FOR_COMPILED_FILES

Prints one line of JSON: CPU seconds of each part, and how many modules are new.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import sys
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(compiled: str) -> None:
    # The pack's own files are compiled into this folder; those of the host and of torch are where they always are.
    begun = time.process_time()
    import_module("comfy.cli_args").args.cpu = True
    for name in ("torch", "comfy.sd", "folder_paths", "nodes", "server", "comfy_api.latest"):
        import_module(name)
    taken = {"host": time.process_time() - begun}
    sys.dont_write_bytecode, sys.pycache_prefix = False, compiled
    gc.collect()  # else a collection of all that the host made, 0.3 s, may fall into what follows by chance
    before = set(sys.modules)

    clock = time.process_time()
    spec = importlib.util.spec_from_file_location("pack_x_y", ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    extension = asyncio.run(pack.comfy_entrypoint())
    taken["imports"] = time.process_time() - clock

    clock = time.process_time()
    asyncio.run(extension.on_load())
    for node in asyncio.run(extension.get_node_list()):
        node.GET_SCHEMA()
    taken["nodes"] = time.process_time() - clock

    new = set(sys.modules) - before
    own = sum(name.partition(".")[0] == "pack_x_y" for name in new)
    print(json.dumps({"taken": taken, "own": own, "others": len(new) - own}))


if __name__ == "__main__":
    main(sys.argv[1])
