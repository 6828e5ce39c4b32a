"""ComfyUI takes a checkpoint of a row's names and shapes for the model that the row says, and builds just these.

So a family of which no inventory is at hand is checked too. The host needs shapes alone: all tensors are on the meta
device, and the largest model takes no memory.
"""

from __future__ import annotations

import json
import textwrap

import pytest

from host_harness.environment import HostEnvironment
from lora_core.architectures import Architecture, Component, cosmos, hunyuan_video, krea2, wan
from lora_core.architectures.spec import parameter_name

# row -> class of ComfyUI's model_base
MODELS = (
    (wan.T2V_14B, "WAN21"),
    (wan.I2V_14B, "WAN21"),
    (wan.I2V_A14B, "WAN21"),
    (wan.VACE_14B, "WAN21_Vace"),
    (wan.T2V_1_3B, "WAN21"),
    (wan.VACE_1_3B, "WAN21_Vace"),
    (wan.TI2V_5B, "WAN22"),
    (hunyuan_video.ARCHITECTURE, "HunyuanVideo"),
    (hunyuan_video.I2V, "HunyuanVideoI2V"),
    (hunyuan_video.SKYREELS, "HunyuanVideoSkyreelsI2V"),
    (cosmos.ANIMA, "Anima"),
    (cosmos.PREDICT2_2B, "CosmosPredict2"),
    (cosmos.PREDICT2_2B_VIDEO, "CosmosPredict2"),
    (cosmos.PREDICT2_14B, "CosmosPredict2"),
    (cosmos.PREDICT2_14B_VIDEO, "CosmosPredict2"),
    (krea2.ARCHITECTURE, "Krea2"),
)


# row -> class, names and shapes
Built = dict[str, dict[str, object]]


def described(component: Component) -> dict[str, list[int]]:
    return {
        parameter_name(path, parameter): list(shape)
        for path, module in component.modules.items()
        for parameter, shape in module.shapes.items()
    }


@pytest.fixture(scope="module")
def built(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Row -> the class that the host takes it for, and names and shapes of what it builds; one process for all."""
    code = """
    import json, sys
    from pathlib import Path
    import torch
    from comfy import model_detection

    torch.set_grad_enabled(False)
    found = {}
    for name, shapes in json.loads(Path(sys.argv[1]).read_text()).items():
        tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        config = model_detection.model_config_from_unet(tensors, "")
        model = config.get_model(tensors, "", device="meta")
        encoder = config.clip_target(tensors).clip(device="meta", dtype=torch.bfloat16)
        found[name] = {
            "class": type(model).__name__,
            "denoiser": {key: list(tensor.shape) for key, tensor in model.diffusion_model.state_dict().items()},
            "encoders": {key: list(tensor.shape) for key, tensor in encoder.state_dict().items()},
        }
    Path(sys.argv[2]).write_text(json.dumps(found))
    """
    folder = tmp_path_factory.mktemp("host")
    given, answer = folder / "given.json", folder / "answer.json"
    given.write_text(json.dumps({row.name: described(row.components[0]) for row, _ in MODELS}))
    comfy_environment.run_code(textwrap.dedent(code), str(given), str(answer))
    return json.loads(answer.read_text())


@pytest.mark.parametrize(("row", "kind"), [pytest.param(*pair, id=pair[0].name) for pair in MODELS])
def test_the_host_builds_the_model_of_a_row(row: Architecture, kind: str, built: Built) -> None:
    found = built[row.name]
    assert found["class"] == kind
    assert found["denoiser"] == described(row.components[0])


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row, _ in MODELS])
def test_the_host_builds_the_text_encoders_of_a_row(row: Architecture, built: Built) -> None:
    """Under the names of the row; Qwen3-VL's eye and CLIP's projection, which no family here reads, are not in it."""
    ours = {
        component.host_prefix + key: shape
        for component in row.components[1:]
        for key, shape in described(component).items()
    }
    theirs = built[row.name]["encoders"]
    assert isinstance(theirs, dict)
    assert ours.items() <= theirs.items()
    rest = {key.partition(".transformer.")[2] for key in theirs.keys() - ours.keys()}
    assert {key for key in rest if not key.startswith(("visual.", "text_projection."))} <= {""}
