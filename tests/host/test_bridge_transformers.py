"""Keys of a transformer in the host: each parameter of the family is found, also where the host renames it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from host_harness.environment import HostEnvironment

pytestmark = pytest.mark.host

CODE = """
import asyncio, importlib, importlib.util, json, sys
from pathlib import Path
from types import SimpleNamespace
import torch, comfy.model_detection
root, inventory = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
spec = importlib.util.spec_from_file_location("pack_x_y", root / "__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
asyncio.run(pack.comfy_entrypoint())
bridge = importlib.import_module("pack_x_y.nodes._bridge")
core = importlib.import_module("pack_x_y.lora_core")

# FLUX.1 dev without memory, as the host builds it for the published file.
prefix = "model.diffusion_model."
meta = {k[len(prefix):]: torch.empty(s, device="meta") for k, s in inventory["tensors"].items() if k.startswith(prefix)}
model = comfy.model_detection.model_config_from_unet(meta, "").get_model({}, "", device=torch.device("meta"))
host = bridge.read_model(SimpleNamespace(model=model), None)
component = host.architecture.component("denoiser")
targets = [
    (core.Target(core.ModuleKey("denoiser", path), parameter), shape)
    for path, module in component.modules.items()
    for parameter, shape in module.shapes.items()
]
norm = core.Target(core.ModuleKey("denoiser", "single_blocks.0.norm.key_norm"), "scale")
print(json.dumps({
    "family": host.architecture.name,
    "elsewhere": [str(target) for target, shape in targets if host.shape_of(target) != shape],
    "all": len({host.key(target) for target, _ in targets}),
    "keys": sum(key.startswith("diffusion_model.") for key in host.shapes),
    "norm": host.key(norm),
}))
"""


def test_every_parameter_of_flux_is_found_by_the_hosts_name(
    comfy_environment: HostEnvironment, repository: Path, keys: Path
) -> None:
    inventory = keys / "base" / "flux-dev__comfy-allinone.json"
    said = json.loads(comfy_environment.run_code(CODE, str(repository), str(inventory)).splitlines()[-1])

    assert said["family"] == "flux"
    assert said["elsewhere"] == []
    assert said["all"] == said["keys"] > 700
    # The file says scale; so do older versions of the host.
    assert said["norm"] in [f"diffusion_model.single_blocks.0.norm.key_norm.{name}" for name in ("weight", "scale")]
