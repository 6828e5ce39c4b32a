"""What test_host_denoiser.py runs in the host's Python, once; it prints what it saw as JSON."""

import asyncio
import importlib
import importlib.util
import json
import sys
from pathlib import Path

import comfy.conds
import comfy.ldm.models.autoencoder
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import torch

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
    def kept(key, found):
        return found[1:] if key[-1:] == ("tensor",) and not objects else found

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

        def press(denoiser, kind=kind, calls=calls):
            seen = []
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
            stopped.finished,
            stopped.steps > 0,
            stopped.path is not None and stopped.path.exists(),
            finished.finished,
            equal(tensors(cancelled), tensors(whole)),
            differing(before, traces(demo)),
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
    for name, sections in (("another base", longer), ("another base, finished", {})):
        try:
            train(config("denoiser", **sections), styled)
            said[name] = ""
        except stops.ResumeError as error:
            said[name] = str(error)

    # Each picture has its own caption, and brackets are brackets.
    alone = torch.cat([asked(demo, ("red heart",), slice(0, 1)), asked(demo, ("a (blue) box",), slice(1, 2))])
    said["own captions"] = (plain - alone).abs().max().item()
    said["captions matter"] = (plain - asked(demo, ("a (blue) box", "red heart"))).abs().max().item()

    def tokens(text):
        return [one for one, _ in demo.clip.tokenize(text)["l"][0]]

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
        train(
            config("objective", name, **blocks, objective={"weighting": "none", "noise_offset": 0.0}),
            flow,
            checkpointing=checkpointing,
        )
    with torch.inference_mode(False), torch.enable_grad():
        denoiser = HostDenoiser(flow.model, flow.clip, flow.vae)
        chosen = parse({**runs["objective"], **blocks, "network": {"targets": "attention+ff", "rank": 2}})
        network = part("lora_core.train.network").Network.attach(denoiser, chosen.network, chosen.text_encoder, 0, 1e-3)
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
                for one, gradient in zip(parameters, gradients, strict=True):
                    one += by * gradient / length
                found = loss().double()
                for one, gradient in zip(parameters, gradients, strict=True):
                    one -= by * gradient / length
            return found

        said["flux slope"] = ((moved(0.01) - moved(-0.01)) / 0.02 / length).item()
        network.detach()
        denoiser.close()

    # Families whose VAE works on films, and that are told how many words there are: stand-ins for the host's objects.
    conditions, host_vae = part("nodes._host_conditions"), part("nodes._host_vae")

    class Words:
        def extra_conds(self, cross_attn, noise, device, **_):
            said.setdefault("told", []).append("guidance" in _)
            return {
                "c_crossattn": comfy.conds.CONDRegular(cross_attn),
                "num_tokens": comfy.conds.CONDConstant(cross_attn.shape[1]),
            }

    def one_pass(noisy, times, given):
        said.setdefault("passes", []).append([len(noisy), given["num_tokens"]])
        return noisy * given["num_tokens"] + times.view(-1, 1, 1, 1)

    rows = [{"cross_attn": torch.ones(1, count, 2)} for count in (3, 5, 3)]
    pictures, times = torch.arange(3.0).view(3, 1, 1, 1), torch.tensor([10.0, 20.0, 30.0])
    answered = conditions.run(Words(), rows, sizes[:1].repeat(3, 1), pictures, times, None, one_pass)
    said["counted words"] = [answered.flatten().tolist(), said.pop("passes"), said.pop("told")]

    class Film:
        latent_channels = 2
        process_in = staticmethod(lambda latents: (latents - 1) * 3)
        process_out = staticmethod(lambda latents: latents / 3 + 1)

    class FilmVae:
        first_stage_model = None
        encode = staticmethod(lambda pixels: pixels.movedim(-1, 1)[:, :2, None])
        decode = staticmethod(lambda latents: latents[:, [0, 1, 0]].movedim(1, -1))

    pixels = torch.rand(2, 3, 4, 4) * 2 - 1
    made = host_vae.encode(FilmVae, Film, pixels)
    again = host_vae.decode(FilmVae, Film, made.mean[:1].unsqueeze(2))
    said["films"] = [list(made.mean.shape), made.std is None, (again[:2] * 2 - 1 - pixels[0, :2]).abs().max().item()]

    # FLUX.2's VAE makes something else of its distribution, and with too little memory the host encodes tiles, whose
    # channels it knows beforehand: the middle is taken.
    class Stage:
        regularization = comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer()

    class OddVae:
        first_stage_model = Stage()

        @classmethod
        def encode(cls, pixels):
            if isinstance(cls.first_stage_model.regularization, host_vae._Moments):
                raise RuntimeError("The size of tensor a (4) must match the size of tensor b (8)")
            return pixels.movedim(-1, 1)[:, :2]

    tiled = host_vae.encode(OddVae, Film, pixels)
    said["tiles"] = [list(tiled.mean.shape), list(tiled.std.shape), tiled.std.abs().max().item()]
    Stage.bn = object()
    said["normalising VAE"] = host_vae.encode(OddVae, Film, pixels).std is None

    # Models that the host loads piece by piece.
    models = part("nodes._host_models")

    class Piecewise:
        def __init__(self, known):
            self.known, self.patches = known, {}

        def is_dynamic(self):
            return True

        def clone(self, disable_dynamic=False):
            if not self.known:
                raise RuntimeError("Cannot create non-dynamic delegate")
            return "whole" if disable_dynamic else "piecewise"

    said["piecewise"] = [models.own(Piecewise(True), "MODEL")]
    try:
        models.own(Piecewise(False), "MODEL")
    except core.errors.ConfigError as error:
        said["piecewise"].append(str(error))
    with_stack = bridge.patched(bridge.read_model(demo.model, demo.clip), stack)
    digests = [models.patches_digest(one.patches) for one in (demo.model, styled.model, with_stack[0])]
    weaker = core.Stack((core.StackEntry(style, core.Strengths(0.5, 1.0)),))
    other = bridge.patched(bridge.read_model(demo.model, demo.clip), weaker)[0]
    digests.append(models.patches_digest(other.patches))
    said["patches"] = [digests[0] == "", digests[1] == digests[2] != "", digests[3] != digests[1]]
    attention = demo.model.clone()
    attention.set_model_attn1_patch(lambda *arguments: arguments)
    said["unused patches"] = [models.unused_patches(demo.model), models.unused_patches(attention)]

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
