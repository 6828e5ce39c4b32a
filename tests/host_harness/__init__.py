"""A real ComfyUI for tests and for nox. How to use it:

In a test, through the fixtures of `tests/conftest.py`:

    import pytest
    from host_harness.prompts import HostPromptError

    # A test that asks for `comfy` or `comfy_environment` is marked `host` by itself.
    def test_something(comfy, sd15_checkpoint):       # comfy: ComfyHost, one process per pytest session
        name = comfy.add_model(sd15_checkpoint, "checkpoints")        # linked into models/; returns the loader's name
        comfy.loras / "styles" / "ink.safetensors"    # also .checkpoints .input .output .pack .base_directory (Path)
        info = comfy.object_info("LoomLoraStack")     # or object_info() for all
        mark = comfy.log_mark()
        result = comfy.queue(prompt, timeout=240)     # prompt: the API form, {"1": {"class_type": ..., "inputs": ...}}
        result.outputs["9"]["text"]                   # also .executed .cached .progress .previews .messages .seconds
        pixels = comfy.images(result)                 # uint8 arrays (height, width, 3); or images(result, "9")
        assert comfy.problems(since=mark) == []       # error lines in the log; problems(): at the start

        with pytest.raises(HostPromptError, match="no such file") as caught:
            comfy.queue(bad_prompt)
        caught.value.node_errors                      # refused: {node id: {"errors": [{"message", "details", ...}]}}
        caught.value.node_id, caught.value.exception_type, caught.value.exception_message   # failed while running
        assert comfy.alive

        running = comfy.submit(prompt)                # returns at once
        running.wait_for(lambda kind, data: kind == "progress" and data["value"] >= 2)
        comfy.interrupt()
        with pytest.raises(HostPromptError) as caught:
            running.wait()
        assert caught.value.interrupted

        comfy.get("/view_metadata/loras?filename=x"); comfy.post("/route", {"a": 1}); comfy.free()

Without a server, code that runs where `comfy` can be imported (`calculate_weight`, key maps), returning its output:

    def test_numbers(comfy_environment, tmp_path):    # HostEnvironment(comfy: Path, python: Path)
        text = comfy_environment.run_code("import sys, comfy.lora; print(sys.argv[1])", str(tmp_path / "in"))

Other fixtures: `repository` (Path), `keys` (Path: LOOM_KEYS or ../shared/keys, skips when missing),
`sd15_checkpoint` (Path of a full-size random SD 1.5 checkpoint in the cache), `sd15_reduced` and `sdxl_reduced` (Paths
of small ones), `flux_reduced` and `sd3_reduced` (FlowModel; `.loaders(comfy)` gives the nodes model, clip and vae).

Outside pytest (the demo): `ComfyHost(prepare(), repository=ROOT)` is a context manager; needs websocket-client only
for prompts, Pillow and numpy only for images.

Environment variables: LOOM_CACHE (where everything is kept), COMFYUI_PATH and COMFYUI_PYTHON (your own ComfyUI),
LOOM_TORCH (see torch_pin.py), LOOM_KEEP_HOST=1 (keep the temporary folder with host.log).
"""
