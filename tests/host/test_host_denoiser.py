"""The host's MODEL, CLIP and VAE as the engine's model: the same losses as through diffusers, and nothing left behind.

No server: one process of the host's Python trains the demo model in several ways, and says what it saw.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import small_runs
from host_harness import reduced_models
from host_harness.environment import HostEnvironment
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.loop import train

pytestmark = pytest.mark.host

# Runs that are made through both: name -> sections. All see two captions in a batch.
RUNS: dict[str, dict[str, Any]] = {
    "denoiser": {"network": {"targets": "attention+ff+proj+conv", "conv_rank": 2}, "run": {"steps": 6}},
    "text": {
        "network": {"targets": "attention"},
        "text_encoder": {"train": True, "learning_rate": 1e-3},
        "data": {"caption_dropout": 0.3, "latents": "mean"},
        "run": {"steps": 4},
    },
    "words": {
        "tokens": {"names": ["<s1>", "<s2>"], "start": ["heart", "<rand-0.02>"], "steps": 2, "keep_training": True},
        "data": {"trigger": "<s1> <s2>"},
        "network": {"targets": "attention"},
        "run": {"steps": 4},
    },
    "objective": {
        "objective": {"weighting": "min_snr", "noise_offset": 0.1},
        "network": {"start": "pissa", "targets": "attention"},
    },
}

CODE = r"""
import asyncio, importlib, importlib.util, json, shutil, sys
from pathlib import Path
import torch, comfy.model_management, comfy.sample, comfy.samplers, comfy.sd, comfy.utils

root, folder, runs, flux = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
spec = importlib.util.spec_from_file_location("pack_x_y", root / "__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
asyncio.run(pack.comfy_entrypoint())
def part(name):
    return importlib.import_module("pack_x_y." + name)
files, demo_model = part("nodes._files"), part("nodes._demo_model")
HostDenoiser = part("nodes._host_denoiser").HostDenoiser
bridge, core = part("nodes._bridge"), part("lora_core")
parse, loop = part("lora_core.train.config").parse_config, part("lora_core.train.loop")
stops, state = part("lora_core.train.stops"), part("lora_core.train.state")
literal = part("nodes._host_text").literal
interrupt = comfy.model_management.interrupt_current_processing
said = {}

def traces(demo):
    "All that a training might leave in the host's models."
    found = {}
    models = {"model": demo.model.model, "clip": demo.clip.cond_stage_model, "vae": demo.vae.first_stage_model}
    for name, model in models.items():
        for path, module in model.named_modules():
            found[name, path] = type(module), module.training, len(module._forward_hooks), "forward" in vars(module)
        for path, one in (*model.named_parameters(), *model.named_buffers()):
            found[name, path, "tensor"] = id(one), one.requires_grad, one.is_inference(), one.double().sum().item()
    found["words"] = len(demo.clip.tokenizer.clip_l.tokenizer)
    for patcher in (demo.model, demo.clip.patcher):
        found[id(patcher)] = len(patcher.patches), len(patcher.object_patches), patcher.patches_uuid
    found["training"] = comfy.model_management.in_training
    loaded = [one.model for one in comfy.model_management.current_loaded_models]
    found["loaded"] = len([one for one in loaded if "model_sampling" in one.object_patches])
    return found

def differing(before, after, objects=True):
    kept = lambda key, found: found[1:] if key[-1:] == ("tensor",) and not objects else found
    names = [key for key in {**before, **after} if isinstance(key, tuple)]
    rest = [key for key in {**before, **after} if not isinstance(key, tuple)]
    wrong = [key for key in names if kept(key, before.get(key, ())) != kept(key, after.get(key, ()))]
    return sorted(map(str, wrong + [key for key in rest if before.get(key) != after.get(key)]))

def config(name, place="host", **sections):
    whole = json.loads(json.dumps(runs[name]))
    for section, values in sections.items():
        whole.setdefault(section, {}).update(values)
    whole["output"] |= {"folder": str(folder / place / name)}
    whole["data"]["cache"] = str(folder / "host_cache")
    return parse(whole)

def train(config, demo, watcher=None, change=None, **more):
    with torch.inference_mode(False), torch.enable_grad():
        texts = config.text_encoder.train or bool(config.tokens.names)
        denoiser = HostDenoiser(demo.model, demo.clip, demo.vae, text_encoders=texts, **more)
        if change is not None:
            change(denoiser)
        try:
            return loop.train(config, watcher=watcher, denoiser=denoiser)
        finally:
            denoiser.close()

def tensors(config):
    saved = Path(config.output.folder) / f"{config.output.name}.run" / "state"
    return state.load_state(saved, state.saved_steps(saved)[-1]).tensors

def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

with torch.inference_mode():
    demo = demo_model.load_demo(files.DEMO_MODEL, files.DEMO_MODEL)
    comfy.model_management.load_models_gpu([demo.model, demo.clip.patcher])
    comfy.model_management.unload_all_models()
    before = traces(demo)
    for name in runs:
        result = train(config(name), demo)
        said[name] = {"finished": result.finished, "steps": result.steps, "warnings": result.report["warnings"]}
    said["left behind"] = differing(before, traces(demo))

    # Checkpointing computes the same twice.
    again = config("denoiser", "checkpointed")
    train(again, demo, checkpointing=True)
    once, twice = tensors(config("denoiser")), tensors(again)
    said["checkpointed"] = max((once[name] - twice[name]).abs().max().item() for name in once if once[name].numel())
    said["left behind by checkpointing"] = differing(before, traces(demo))

    # The host's cancel button, out of the depth of a pass, of a checkpoint's second pass, and of a sample.
    for kind, calls in (("pass", 5), ("again", 11), ("sample", 3)):
        sections = {"samples": {"prompts": ["a red thing"], "steps": 2, "every": 3, "first": False}}
        cancelled = config("objective", f"cancelled_{kind}", **sections)
        seen = []
        def press(denoiser):
            if kind == "sample":
                plain = denoiser.sample
                def sample(*arguments, **named):
                    interrupt(True)
                    return plain(*arguments, **named)
                denoiser.sample = sample
                return
            block = denoiser._parts["denoiser"].middle_block[1]
            forward = block.forward
            def pressing(*arguments, **named):
                seen.append(1)
                if len(seen) == calls:
                    interrupt(True)
                comfy.model_management.throw_exception_if_processing_interrupted()
                return forward(*arguments, **named)
            block.forward = pressing
            said.setdefault("blocks", []).append(block)
        stopped = train(cancelled, demo, change=press, checkpointing=kind == "again")
        interrupt(False)
        for block in said.pop("blocks", []):
            vars(block).pop("forward", None)
        finished = train(cancelled, demo, checkpointing=kind == "again")
        whole = config("objective", f"whole_{kind}", **sections)
        train(whole, demo, checkpointing=kind == "again")
        said["cancelled in a " + kind] = [
            stopped.finished, stopped.steps > 0, stopped.path is not None and stopped.path.exists(), finished.finished,
            equal(tensors(cancelled), tensors(whole)), differing(before, traces(demo)),
        ]

    # An error of the model leaves as little.
    def breaks(denoiser):
        def predict(*arguments):
            raise RuntimeError("broken")
        denoiser.predict = predict
    try:
        train(config("text", "broken"), demo, change=breaks)
    except RuntimeError as error:
        said["broken"] = [str(error), differing(before, traces(demo))]

    def no_memory(denoiser):
        plain = denoiser.predict
        seen = []
        def predict(*arguments):
            seen.append(1)
            if len(seen) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return plain(*arguments)
        denoiser.predict = predict
    try:
        train(config("text", "no_memory"), demo, change=no_memory)
    except stops.OutOfMemoryError as error:
        said["no memory"] = [str(error), error.saved, differing(before, traces(demo))]
        said["no memory in the node"] = str(part("nodes._train_words").error_of_the_node(error))

    # LoRAs of the graph are part of the frozen weights.
    style = core.load_adapter(files.DEMO_LORAS / "demo_style_high_contrast.safetensors")
    stack = core.Stack((core.StackEntry(style, core.Strengths(1.0, 1.0)),))
    styled = demo._replace(model=bridge.patched(bridge.read_model(demo.model, demo.clip), stack)[0])
    longer = {"run": {"steps": 8}}
    noise, sizes = torch.randn(2, 16, 8, 8), torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    def asked(demo, captions=("red heart", "a (blue) box"), rows=slice(None)):
        with torch.inference_mode(False), torch.no_grad():
            denoiser = HostDenoiser(demo.model, demo.clip, demo.vae)
            try:
                given = denoiser.encode_text(list(captions))
                return denoiser.predict(noise.clone()[rows], torch.tensor([300, 700])[rows], given, sizes.clone()[rows])
            finally:
                denoiser.close()
    plain, with_style = asked(demo), asked(styled)
    said["the graph's LoRA counts"] = (plain - with_style).abs().max().item() > 0.1
    # Weights that it patched the host puts back as new objects, whoever loaded them.
    said["left behind by the graph's LoRA"] = differing(before, traces(demo), objects=False)
    try:
        train(config("denoiser", **longer), styled)
        said["another base"] = ""
    except stops.ResumeError as error:
        said["another base"] = str(error)

    # Each picture has its own caption, and brackets are brackets.
    alone = torch.cat([asked(demo, ("red heart",), slice(0, 1)), asked(demo, ("a (blue) box",), slice(1, 2))])
    said["own captions"] = (plain - alone).abs().max().item()
    said["captions matter"] = (plain - asked(demo, ("a (blue) box", "red heart"))).abs().max().item()
    tokens = lambda text: [one for one, _ in demo.clip.tokenize(text)["l"][0]]
    weights = {weight for _, weight in demo.clip.tokenize(literal("a (blue) box"))["l"][0]}
    said["brackets"] = [weights == {1.0}, tokens(r"a \(blue\) box") == tokens(literal("a (blue) box"))]

    # A sample is what the host's own sampler draws.
    with torch.inference_mode(False), torch.no_grad():
        denoiser = HostDenoiser(demo.model, demo.clip, demo.vae)
        ours = denoiser.sample("red heart", "", seed=3, steps=4, guidance=3.0, width=64, height=64)
        denoiser.close()
    start = torch.randn((1, 16, 8, 8), generator=torch.Generator().manual_seed(3))
    def cond(text):
        return demo.clip.encode_from_tokens_scheduled(demo.clip.tokenize(text))
    conds = cond("red heart"), cond("")
    latents = comfy.sample.sample(demo.model, start, 4, 3.0, "euler", "normal", *conds, torch.zeros_like(start))
    theirs = demo.vae.decode(latents)[0].movedim(-1, 0)
    said["sample"] = (ours - theirs).abs().max().item()

    # In the number type of GPUs the same is learned, about.
    half = config("denoiser", "half", run={"precision": "bf16"}, model={"dtype": "bf16"})
    said["half"] = [train(half, demo, dtype=torch.bfloat16).finished, differing(before, traces(demo), objects=False)]

    # FLUX's shape: a flow with a shift and a guidance, two text encoders, blocks that add to their input in place.
    model = comfy.sd.load_diffusion_model(flux["model"])
    texts = [comfy.utils.load_torch_file(flux[name]) for name in ("clip_l", "t5")]
    kind = {"clip_type": comfy.sd.CLIPType.FLUX, "model_options": flux["options"]}
    clip = comfy.sd.load_text_encoder_state_dicts(texts, **kind)
    flow = demo._replace(model=model, clip=clip, vae=comfy.sd.VAE(sd=comfy.utils.load_torch_file(flux["vae"])))
    blocks = {"network": {"targets": "attention+ff"}, "run": {"steps": 2}}
    for name, checkpointing in (("flux", False), ("flux_checkpointed", True)):
        train(config("objective", name, **blocks, objective={"weighting": "none", "noise_offset": 0.0}), flow,
              checkpointing=checkpointing)
    with torch.inference_mode(False), torch.enable_grad():
        denoiser = HostDenoiser(flow.model, flow.clip, flow.vae)
        chosen = parse({**runs["objective"], **blocks, "network": {"targets": "attention+ff", "rank": 2}})
        network = part("lora_core.train.network").Network.attach(
            denoiser, chosen.network, chosen.text_encoder, 0, 1e-3
        )
        said["flux schedule"] = [denoiser.schedule.prediction, denoiser.schedule.shift]
        random = torch.Generator().manual_seed(1)
        parameters = list(network.parameters())
        for one in parameters:
            one.data = torch.randn(one.shape, generator=random) * 0.1
        noise = torch.randn(2, 16, 8, 8, generator=random)
        given = denoiser.encode_text(["a thing", "long " * 300])
        said["flux texts"] = sorted(given), list(given["cross_attn"].shape)
        times = torch.tensor([300.0, 800.0])
        def loss():
            return denoiser.predict(noise, times, given, sizes.clone()).square().mean()
        gradients = torch.autograd.grad(loss(), parameters)
        said["flux gradients"] = min(one.norm().item() for one in gradients)
        length = sum(one.square().sum() for one in gradients).sqrt()
        def moved(by):
            with torch.no_grad():
                for one, gradient in zip(parameters, gradients):
                    one += by * gradient / length
                found = loss().double()
                for one, gradient in zip(parameters, gradients):
                    one -= by * gradient / length
            return found
        said["flux slope"] = ((moved(0.01) - moved(-0.01)) / 0.02 / length).item()
        network.detach()
        denoiser.close()

    # What cannot be trained is told in a line.
    def fault(make):
        try:
            with torch.inference_mode(False):
                make()
            return ""
        except core.errors.LoomError as error:
            return str(error)
    odd = demo.model.clone()
    class Odd(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.X0):
        pass
    odd.add_object_patch("model_sampling", Odd(demo.model.model.model_config))
    said["odd sampling"] = fault(lambda: HostDenoiser(odd, demo.clip, demo.vae))
    hooked = demo.model.clone()
    hooked.set_injections("bypass_lora", [object()])
    said["hooked"] = fault(lambda: HostDenoiser(hooked, demo.clip, demo.vae))
    said["other vae"] = ""
    channels, demo.vae.latent_channels = demo.vae.latent_channels, 4
    said["other vae"] = fault(lambda: HostDenoiser(demo.model, demo.clip, demo.vae))
    demo.vae.latent_channels = channels
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("host_denoiser")


@pytest.fixture(scope="module")
def said(
    comfy_environment: HostEnvironment, repository: Path, folder: Path, flux_reduced: reduced_models.FlowModel
) -> dict[str, Any]:
    runs = {name: small_runs.settings(folder, **sections) for name, sections in RUNS.items()}
    clip_l, t5 = reduced_models.flux_text_reduced()
    flux = {"model": flux_reduced.model, "vae": flux_reduced.vae, "clip_l": clip_l, "t5": t5}
    files = {**{name: str(path) for name, path in flux.items()}, "options": reduced_models.T5_OPTIONS}
    output = comfy_environment.run_code(CODE, str(repository), str(folder), json.dumps(runs), json.dumps(files))
    return json.loads(output.strip().splitlines()[-1])


@pytest.mark.parametrize("name", RUNS)
def test_each_step_has_the_loss_that_it_has_through_diffusers(name: str, said: dict[str, Any], folder: Path):
    """Scaling, schedule, conditions, batches, start values, order of data: one that is wrong would show."""
    theirs = small_runs.config(folder, f"diffusers/{name}", **RUNS[name])
    demo = DiffusersDenoiser.load(theirs.model)
    train(theirs, denoiser=demo)

    ours = small_runs.config(folder, f"host/{name}", **RUNS[name])

    warnings = said[name].pop("warnings")
    assert said[name] == {"finished": True, "steps": theirs.run.steps}
    assert ["that has embeddings in it" in warning for warning in warnings] == ([True] if name == "words" else [])
    expected, found = small_runs.losses_of(theirs), small_runs.losses_of(ours)
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=2e-5)
    # The files have the same names, and nearly the same numbers.
    through_diffusers, through_host = small_runs.tensors_of(theirs), small_runs.tensors_of(ours)
    assert through_host.keys() == through_diffusers.keys()
    for key, tensor in through_host.items():
        torch.testing.assert_close(tensor, through_diffusers[key], rtol=1e-2, atol=1e-4)


def test_the_models_leave_as_they_came(said: dict[str, Any]):
    """The same objects with the same numbers and flags; no adapters, hooks, patches; nothing loaded."""
    assert said["left behind"] == []
    assert said["left behind by the graph's LoRA"] == []


def test_checkpointing_changes_nothing_but_the_memory(said: dict[str, Any]):
    assert said["checkpointed"] < 1e-5
    assert said["left behind by checkpointing"] == []


def test_in_bf16_the_same_is_learned_about(said: dict[str, Any], folder: Path):
    assert said["half"] == [True, []]
    whole, half = (
        small_runs.losses_of(small_runs.config(folder, f"{place}/denoiser", **RUNS["denoiser"]))
        for place in ("host", "half")
    )
    assert len(half) == 6
    assert list(half.values()) == pytest.approx(list(whole.values()), rel=0.02)


def test_a_flow_of_fluxs_shape_has_the_right_gradients(said: dict[str, Any], folder: Path):
    """Captions of two lengths in a batch; the slope along the gradient is its length."""
    assert said["flux texts"] == [["cross_attn", "cross_attn.shape", "pooled_output"], [2, 1, 301, 768]]
    assert said["flux schedule"] == ["flow", pytest.approx(math.exp(1.15), rel=1e-4)]
    assert said["flux gradients"] > 0
    assert said["flux slope"] == pytest.approx(1, abs=0.02)
    one, again = (
        small_runs.losses_of(small_runs.config(folder, f"{place}/objective", run={"steps": 2}))
        for place in ("flux", "flux_checkpointed")
    )
    assert len(one) == 2
    assert list(again.values()) == pytest.approx(list(one.values()), rel=1e-5)


@pytest.mark.parametrize("where", ["pass", "again", "sample"])
def test_the_cancel_button_saves_and_the_next_call_goes_on(where: str, said: dict[str, Any]):
    """The host raises in whatever layer is at work; the end is that of a run that nobody cancelled, bit by bit."""
    stopped, some_steps, is_there, finished, same, left = said[f"cancelled in a {where}"]

    assert (stopped, some_steps, is_there, finished, same, left) == (False, True, True, True, True, [])


def test_after_an_error_the_models_are_as_they_were(said: dict[str, Any]):
    assert said["broken"] == ["broken", []]


def test_no_memory_is_one_line_and_the_state_is_kept(said: dict[str, Any]):
    message, saved, left = said["no memory"]

    assert message.startswith("step 4: cpu has no memory left. Lower run.batch (and raise run.accumulate)")
    assert "\n" not in message
    assert said["no memory in the node"] == (
        "step 4: cpu has no memory left. In LoRA Train Settings lower run_batch (and raise run_accumulate), in LoRA "
        "Dataset lower the resolution, or load the model in fewer bits. The state after step 3 is saved: run the graph "
        "again to go on."
    )
    assert saved
    assert left == []


def test_the_loras_of_the_graph_are_part_of_the_base(said: dict[str, Any]):
    assert said["the graph's LoRA counts"]
    assert "the base model is not the one that the run was begun with" in said["another base"]


def test_each_picture_of_a_batch_is_predicted_with_its_own_caption(said: dict[str, Any]):
    assert said["own captions"] < 1e-5
    assert said["captions matter"] > 0.01


def test_brackets_of_captions_are_no_weights(said: dict[str, Any]):
    assert said["brackets"] == [True, True]


def test_a_sample_is_what_the_hosts_own_sampler_draws(said: dict[str, Any]):
    assert said["sample"] < 1e-5


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("odd sampling", "only epsilon, v and flow models can be trained"),
        ("hooked", "hooks LoRAs into its layers"),
        ("other vae", "makes latents of 4 channels, and the MODEL takes 16: connect the VAE of this model"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(what: str, message: str, said: dict[str, Any]):
    assert message in said[what]
    assert "\n" not in said[what]
