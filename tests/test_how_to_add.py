"""docs/how_to_add.md does what it says: its files, with one row each, in a copy of the library."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "how_to_add.md").read_text("utf-8")
# path in the repository -> content, from the blocks that begin with a path
FILES: dict[str, str] = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))
ROWS = (("formats", "loomer.FORMAT"), ("adapters", "gain.TYPE"), ("architectures", "koala.ARCHITECTURE"))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The library under another name, with the page's files and rows."""
    folder = tmp_path_factory.mktemp("extended")
    copied = folder / "extended_lora_core"
    shutil.copytree(ROOT / "lora_core", copied, ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in FILES.items():
        if path.startswith("lora_core/"):
            (copied / Path(path).relative_to("lora_core")).write_text(code, "utf-8")
    for package, row in ROWS:
        add_row(copied / package / "__init__.py", row)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("extended_lora_core")
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith("extended_lora_core")]:
        del sys.modules[name]


def add_row(file: Path, row: str) -> None:
    """What a person does: import the module, and write the row into the table."""
    text = file.read_text("utf-8")
    text, imports = re.subn(r"^from \. import \(?", rf"\g<0>{row.split('.')[0]}, ", text, count=1, flags=re.MULTILINE)
    text, rows = re.subn(r'= Registry\(\s*"[^"]+",\s*\(', rf"\g<0>{row}, ", text, count=1)
    assert (imports, rows) == (1, 1)
    file.write_text(text, "utf-8")


def source(library: Any, tensors: dict[str, torch.Tensor]) -> Any:
    return importlib.import_module(f"{library.__name__}.io").TensorDict(tensors, label="example")


def test_the_page_has_a_file_for_each_kind():
    assert list(FILES) == [
        "lora_core/formats/loomer.py",
        "lora_core/adapters/gain.py",
        "lora_core/architectures/koala.py",
        "nodes/trigger_words.py",
    ]


def test_a_format_is_one_file_and_one_row(extended: Any):
    path = "model/down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {
        f"{path}/a": torch.randn(4, 320),
        f"{path}/b": torch.randn(320, 4),
        f"{path}/alpha": torch.tensor(2.0),
        "model/steps": torch.tensor(100),
    }

    adapter = extended.map_source(source(extended, tensors), architecture="sd15")

    assert adapter.report.format == "loomer"
    assert adapter.report.complete
    assert set(adapter.report.ignored) == {"model/steps"}
    ((target, delta),) = adapter.deltas
    assert target.module.path == "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    assert delta.scale == 0.5


def test_an_adapter_type_is_one_file_and_one_row(extended: Any):
    gain = torch.randn(320)

    adapter = extended.map_source(source(extended, {"lora_unet_input_blocks_1_1_proj_in.gain": gain}), "sd15")

    ((target, delta),) = adapter.deltas
    weight = torch.randn(320, 320, 1, 1)
    assert (delta.type, target.parameter) == ("gain", "weight")
    torch.testing.assert_close(delta.apply(weight, 0.5), weight * (1 + gain / 2)[:, None, None, None])
    wrong = extended.map_source(
        source(
            extended,
            {"lora_unet_input_blocks_1_1_proj_in.gain": gain, "lora_unet_input_blocks_2_1_proj_in.gain": gain[:7]},
        ),
        "sd15",
    )
    assert [(misfit.expected, misfit.got) for misfit in wrong.report.misfit] == [((320,), (7,))]


def test_an_architecture_is_one_file_and_one_row(extended: Any):
    """Its modules are those of the model that diffusers makes, and a LoRA for it is recognised."""
    table = importlib.import_module(f"{extended.__name__}.architectures").ARCHITECTURES
    family = table.get("koala_1b")
    denoiser = family.component(extended.types.DENOISER)

    described = {
        f"{module.diffusers}.{parameter}": tuple(shape)
        for module in denoiser.modules.values()
        for parameter, shape in module.shapes.items()
    }
    assert described == {key: tuple(weight.shape) for key, weight in koala().named_parameters()}

    # No module of SDXL: there the third input block is the way to the next level.
    name = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k"
    lora = {f"{name}.lora_down.weight": torch.randn(4, 2048), f"{name}.lora_up.weight": torch.randn(640, 4)}
    assert extended.map_source(source(extended, lora)).architecture == "koala_1b"


def koala() -> torch.nn.Module:
    """KOALA 1B's UNet as its config.json has it, without weights."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 2, 6),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )


def test_a_node_uses_what_there_is():
    """It cannot be imported without a host, but all that it takes from its neighbours must be there."""
    tree = ast.parse(FILES["nodes/trigger_words.py"])
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("_files", "_inputs")
        ):
            neighbour = (ROOT / "nodes" / f"{node.value.id}.py").read_text("utf-8")
            assert re.search(rf"^(def )?{node.attr}\b", neighbour, flags=re.MULTILINE), ast.unparse(node)
    assert (ROOT / "nodes" / "__init__.py").read_text("utf-8").count("NODES: ") == 1
