"""Graphs in the host's API form, for tests: a few nodes with names of their own."""

from __future__ import annotations

from typing import Any

Graph = dict[str, dict[str, Any]]
MODEL, CLIP, VAE = ["base", 0], ["base", 1], ["base", 2]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def demo(**inputs: Any) -> Graph:
    """The base model: the one that comes with the pack."""
    return {"base": node("LoomDemoModel", **inputs)}


def checkpoint(name: Any) -> Graph:
    """The base model: a checkpoint through the host's own loader."""
    return {"base": node("CheckpointLoaderSimple", ckpt_name=name)}


def picture(
    model: Any = None, clip: Any = None, *, text: str = "red heart", steps: int = 1, seed: int = 1, cfg: float = 1.0
) -> Graph:
    """Sample 64x64 pixels with the model and save them, in the node ``picture``."""
    return {
        "text": node("CLIPTextEncode", text=text, clip=clip or CLIP),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampler": node(
            "KSampler", model=model or MODEL, positive=["text", 0], negative=["text", 0], latent_image=["latent", 0],
            seed=seed, steps=steps, cfg=cfg, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=VAE),
        "picture": node("SaveImage", images=["decoded", 0], filename_prefix="picture"),
    }  # fmt: skip


def loaded(lora: str, model: float = 1.0, clip: float = 1.0, **inputs: Any) -> Graph:
    """Our loader on the base, and a picture of it."""
    loader = node(
        "LoomLoraLoader", model=MODEL, clip=CLIP, lora_name=lora, strength_model=model, strength_clip=clip, **inputs
    )
    return {"lora": loader, **picture(["lora", 0], ["lora", 1])}


def stacked(rows: Any, **inputs: Any) -> Graph:
    """Our stack on the base, and a picture of it."""
    return {"lora": node("LoomLoraStack", model=MODEL, clip=CLIP, rows=rows, **inputs)} | picture(
        ["lora", 0], ["lora", 1]
    )


def chained(*loras: tuple[str, float, float]) -> Graph:
    """The host's own loaders, one behind the other, and a picture of the last."""
    graph: Graph = {}
    last = "base"
    for index, (name, model, clip) in enumerate(loras):
        graph[f"core{index}"] = node(
            "LoraLoader", model=[last, 0], clip=[last, 1], lora_name=name, strength_model=model, strength_clip=clip
        )
        last = f"core{index}"
    return graph | picture([last, 0], [last, 1])


def shown(source: list[Any], name: str = "shown") -> Graph:
    """A text output of a node, as an output of the prompt."""
    return {name: node("PreviewAny", source=source)}


def training(folder: str, name: str, *, data: Any = None, settings: Any = None, **inputs: Any) -> Graph:
    """LoRA Train in the node ``train`` on the base, with what feeds it: few small steps, unless the inputs say so.

    ``data`` and ``settings``: inputs of LoRA Dataset and LoRA Train Settings.
    """
    quick: dict[str, Any] = {
        "samples_prompts": "a thing",
        "samples_steps": 1,
        "samples_guidance": 1.0,
        "samples_first": "no",
    }
    quick |= {"output_plot": "no", "output_tensorboard": "no"}
    fewest = {"run_batch": 1, "network_targets": "attention", "network_conv_rank": 0, **quick, **(settings or {})}
    given = {"model": MODEL, "clip": CLIP, "vae": VAE, "steps": 2, "rank": 2, "learning_rate": 2e-3, "resume": "auto"}
    return {
        "data": node("LoomTrainDataset", **{"folder": folder, "resolution": 64, **(data or {})}),
        "settings": node("LoomTrainSettings", **{"preset": "auto-style", **fewest}),
        "train": node("LoomLoraTrain", dataset=["data", 0], settings=["settings", 0], name=name, **(given | inputs)),
    }


def named(graph: Graph, prefix: str) -> Graph:
    """The same nodes under names of their own, so that several such graphs fit into one. Other links stay."""

    def link(value: Any) -> Any:
        return [prefix + value[0], value[1]] if isinstance(value, list) and value[0] in graph else value

    return {
        prefix + name: {**one, "inputs": {key: link(value) for key, value in one["inputs"].items()}}
        for name, one in graph.items()
    }
