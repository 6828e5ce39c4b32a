"""Every module of the key inventories of OFT files fits the base that the file was made for."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import inventories
from lora_core import load_adapter, map_source
from lora_core.adapters import ADAPTER_TYPES, Group
from lora_core.io import TensorDict, TensorRef
from lora_core.types import Shape

pytestmark = pytest.mark.usefixtures("keys")

# Inventory -> the base whose weights its names are of, the role of its blocks, the type of the deltas.
FILES: dict[str, tuple[str, str, str]] = {
    "sd15__kohya__diag-oft": ("sd15__kohya-modules", "oft_blocks", "diag-oft"),
    "sd15__kohya__boft": ("sd15__kohya-modules", "oft_blocks", "boft"),
    "sd15__kohya__oft_diag-oft-legacy": ("sd15__kohya-modules", "oft_diag", "oft-diag"),
    "sd15__kohya__oft_kohya-oft": ("sd15__kohya-modules", "kohya_oft_blocks", "kohya-oft"),
    "sdxl__kohya-ldm__diag-oft": ("sdxl__kohya-modules", "oft_blocks", "diag-oft"),
    "sdxl__kohya-ldm__diag-oft-rescaled": ("sdxl__kohya-modules", "oft_blocks", "diag-oft"),
    "sdxl__kohya-ldm__oft_kohya-oft": ("sdxl__kohya-modules", "kohya_oft_blocks", "kohya-oft"),
    "sdxl__onetrainer-legacy__oft2": ("sdxl__kohya-modules-diffusersunet", "oft_R", "oft2"),
    "flux__kohya-oft__oft": ("flux-schnell__native", "kohya_oft_blocks", "kohya-oft"),
    "sd15__peft-raw__oft": ("sd15__diffusers_unet", "peft_oft_R", "peft-oft"),
}
STORED = {"kohya_oft_blocks": "oft_blocks", "peft_oft_R": "oft_R.weight", "oft_R": "oft_R.weight"}


def module_names(path: str) -> tuple[str, ...]:
    """What the writers call a base's module: kohya, kohya's OFT, PEFT."""
    flat = path.replace(".", "_")
    return f"lora_{flat}", f"oft_{flat}", f"oft_unet_{flat}", f"base_model.model.{path}"


@cache
def weights(base: str) -> dict[str, Shape]:
    stored = json.loads((inventories.FOLDER.parent / "base" / f"{base}.json").read_text())["tensors"]
    paths = {key.removesuffix(".weight"): tuple(shape) for key, shape in stored.items() if key.endswith(".weight")}
    return {name: shape for path, shape in paths.items() for name in module_names(path)}


def groups(name: str, role: str) -> dict[str, dict[str, TensorRef]]:
    """Module -> role -> tensor; the alphas are left out."""
    source: TensorDict = inventories.source(inventories.read(inventories.FOLDER / f"{name}.json"), name)
    found: defaultdict[str, dict[str, TensorRef]] = defaultdict(dict)
    stored = STORED.get(role, role)
    for key, ref in source.items():
        module, _, suffix = key.partition(f".{stored}")
        if suffix or module != key:
            found[module][role + suffix] = ref
        elif key.endswith(".rescale"):
            found[key.removesuffix(".rescale")]["rescale"] = ref
        else:
            assert key.endswith(".alpha")
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_module_fits(name: str) -> None:
    base, role, kind = FILES[name]
    shapes = weights(base)
    modules = groups(name, role)
    assert len(modules) > 100
    for module, roles in modules.items():
        group = Group(name, module, roles, {"weight": shapes[module]}, alpha=0.0)
        best = max(ADAPTER_TYPES, key=lambda row: len(row.takes(frozenset(roles))))
        [(parameter, delta)] = best.build(group).items()
        assert (parameter, delta.type) == ("weight", kind)
        assert set(delta.tensor_names) == {ref.name for ref in roles.values()}


def test_flux_has_q_k_v_and_mlp_apart() -> None:
    """The rows of diffusers' separate matrices are runs of the fused one."""
    modules = groups("flux__kohya-oft__oft", "kohya_oft_blocks")
    fused = modules["oft_unet_single_blocks_0_linear1"]
    shape = weights("flux-schnell__native")["oft_unet_single_blocks_0_linear1"]
    delta = ADAPTER_TYPES.get("kohya-oft").build(Group("", "linear1", fused, {"weight": shape}, 1e-3))["weight"]
    assert shape == (3 * 3072 + 12288, 3072)
    assert [delta.rows(3072 * part, 3072) is None for part in range(3)] == [False, False, False]
    assert delta.rows(3 * 3072, 12288) is not None
    assert delta.rows(1536, 3072) is not None
    assert delta.rows(100, 3072) is None


def test_a_module_of_an_inventory_with_values() -> None:
    """The widest of a real file's modules in numbers: the norms of columns stay."""
    inventory = inventories.read(inventories.FOLDER / "sd15__kohya__boft.json")
    key = "lora_te_text_model_encoder_layers_0_mlp_fc1.oft_blocks"
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(inventory["tensors"][key], generator=generator) / 10
    weight = torch.randn(3072, 4, generator=generator)
    source = TensorDict({"oft_blocks": blocks}, "test.safetensors")
    group = Group("test.safetensors", "fc1", dict(source), {"weight": (3072, 4)}, alpha=0.0)
    changed = ADAPTER_TYPES.get("boft").build(group)["weight"].apply(weight, 1.0)
    assert (changed - weight).abs().max() > 0.5
    # Nine stages of float32 rotations: a few 1e-7 each, of norms around 55.
    torch.testing.assert_close(changed.norm(dim=0), weight.norm(dim=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_read_as_its_type(name: str) -> None:
    """From keys to deltas, without telling which format or model it is."""
    adapter = map_source(inventories.source(inventories.read(inventories.FOLDER / f"{name}.json"), name))
    assert adapter.report.complete
    assert {delta.type for _, delta in adapter.deltas} == {FILES[name][2]}


def first_modules(name: str, count: int, **options: bool) -> dict[str, torch.Tensor]:
    inventory = inventories.read(inventories.FOLDER / f"{name}.json")
    kept = dict(list(inventory["tensors"].items())[:count])
    return inventories.tensors({**inventory, "tensors": kept}, **options)


@pytest.mark.parametrize("exact", [False, True])
def test_pefts_configuration_decides_how_rotations_are_made(exact: bool) -> None:
    """The Cayley transform keeps norms of rows; the series, the default, is one only for small angles."""
    tensors = first_modules("sd15__peft-raw__oft", 4, values=True)
    config = {"adapter_config": json.dumps({"peft_type": "OFT", "use_cayley_neumann": not exact})}
    adapter = map_source(TensorDict(tensors, "test.safetensors", config))
    for (_, delta), vectors in zip(adapter.deltas, tensors.values(), strict=True):
        weight = torch.randn(8, vectors.shape[0] * 32, generator=torch.Generator().manual_seed(0))
        part = delta.rows(0, 8)
        assert part is not None
        changed = part.apply(weight, 1.0)
        error = (changed.norm(dim=1) / weight.norm(dim=1) - 1).abs().max()
        assert (error < 1e-5) == exact  # float32: solutions and sums of 32 numbers


@pytest.mark.parametrize("prefix", ["lora_unet_", "unet."], ids=["kohya", "diffusers"])
def test_onetrainers_mark_is_read_from_the_file(tmp_path: Path, prefix: str) -> None:
    """A bool of no dimension, whose key has a dot more than others."""
    vectors = first_modules("sdxl__onetrainer-legacy__oft2", 1, values=True)
    [(key, numbers)] = vectors.items()
    module = key.removesuffix(".weight") if prefix == "lora_unet_" else "unet.down_blocks.1.attentions.0.proj_in.oft_R"
    tensors = {f"{module}.weight": numbers}
    weight = torch.randn(640, 640, generator=torch.Generator().manual_seed(0))

    def changed(name: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        save_file(tensors, tmp_path / name)
        adapter = load_adapter(tmp_path / name, "sdxl")
        assert adapter.report.complete
        [(_, delta)] = adapter.deltas
        return delta.apply(weight, 1.0)

    marked = changed("marked.safetensors", tensors | {f"{module}.scaled_oft": torch.tensor(True)})
    divided = changed("divided.safetensors", {f"{module}.weight": numbers / (2 * 31**0.5)})
    torch.testing.assert_close(marked, divided)
    assert (marked - changed("plain.safetensors", tensors)).abs().max() > 0.1
