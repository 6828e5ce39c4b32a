"""The dialog about a LoRA: what it shows of a real file, what it does with words, and notes beside the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Request, Route, expect

import lora_files
from browser.loom_page import LoomPage
from host_harness.host import PACK_NAME, ComfyHost

pytestmark = pytest.mark.browser

MODULES = f"/extensions/{PACK_NAME}"
INK = "about/ink_wash.safetensors"
HOSTILE_TEXT = (
    "<img src=/loom/owned onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202egnp.exe\u0007"
)
HOSTILE = "about/<b onclick=alert(1)>bad<b>.safetensors"
TAGS = {"10_ink": {"ink wash style": 40, "mountain": 22, "river": 12}}


@pytest.fixture(scope="module")
def folder(comfy: ComfyHost) -> Path:
    """One file with all that may lie beside it, one of a stranger who means harm, one that is no LoRA."""
    folder = comfy.loras / "about"
    parts = lora_files.factors("sd15", seed=3, rank=2, modules=lora_files.ATTENTION, components=("denoiser",))
    tensors = lora_files.kohya(parts, alpha=1.0)
    lora_files.save(
        folder / "ink_wash.safetensors",
        tensors | {"lora_unet_no_such_module.lora_up.weight": torch.zeros(4, 2)},
        **{
            "modelspec.title": "Ink Wash", "modelspec.trigger_phrase": "ink wash style", "ss_network_dim": "2",
            "ss_tag_frequency": json.dumps(TAGS), "ss_output_name": "ink_wash",
        },
    )  # fmt: skip
    beside(folder)
    hostile = dict.fromkeys(("modelspec.title", "modelspec.trigger_phrase", "modelspec.description"), HOSTILE_TEXT)
    few = dict(list(tensors.items())[:6]) | {HOSTILE_TEXT: torch.zeros(2)}
    lora_files.save(comfy.loras / HOSTILE, few, **hostile, **{HOSTILE_TEXT: HOSTILE_TEXT})
    keys = ("description", "activation text", "negative text", "notes", "sd version")
    (comfy.loras / HOSTILE).with_suffix(".json").write_text(json.dumps(dict.fromkeys(keys, HOSTILE_TEXT)))
    (folder / "broken.safetensors").write_bytes(b"no LoRA at all")
    return folder


def beside(folder: Path) -> Path:
    """The sidecar as A1111 writes it."""
    sidecar = folder / "ink_wash.json"
    fields = {
        "description": "<p>Sumi-e <b>ink</b> &amp; wash.</p><ul><li>landscapes</li></ul>",
        "activation text": "ink wash style, sumi-e",
        "negative text": "photo, 3d",
        "preferred weight": 0.8,
        "notes": "Good at a low CFG.",
    }
    sidecar.write_text(json.dumps(fields))
    return sidecar


class About:
    def __init__(self, loom: LoomPage) -> None:
        self.loom, self.page = loom, loom.page
        self.dialog = self.page.locator("dialog.loom-about")
        self.facts = self.dialog.get_by_role("complementary", name="The file")
        self.notes = self.dialog.get_by_label("Notes")

    def open(self, name: str = INK, node: int | None = None) -> None:
        """As a part of the page does it. A strength that is taken from it lands in ``window.loomStrength``."""
        self.page.evaluate(
            """async ([at, name, id]) => {
                const { openAbout } = await import(`${at}/about/about.mjs`);
                const node = id === null ? undefined : app.graph.getNodeById(id);
                openAbout(name, { node, onStrength: (strength) => { window.loomStrength = strength; } });
            }""",
            [MODULES, name, node],
        )
        expect(self.dialog).to_be_visible()

    def tab(self, name: str) -> Locator:
        self.dialog.get_by_role("tab", name=name).click()
        return self.dialog.get_by_role("tabpanel")

    def section(self, name: str) -> Locator:
        return self.dialog.locator("section").filter(has=self.page.get_by_role("heading", name=name, exact=True))

    def close(self) -> None:
        self.page.keyboard.press("Escape")
        expect(self.dialog).to_have_count(0)


@pytest.fixture
def about(loom_canvas: LoomPage, folder: Path) -> Iterator[About]:
    yield About(loom_canvas)
    loom_canvas.page.evaluate("document.querySelectorAll('dialog.loom-about').forEach((one) => one.close())")


def test_it_says_what_is_known_of_the_file(about: About) -> None:
    about.open()
    expect(about.dialog.get_by_role("heading", name="Ink Wash")).to_be_visible()
    expect(about.dialog.get_by_text(INK)).to_be_visible()
    for text in ("SD 1.5", "kohya", "Rank2", "384 of 385"):
        expect(about.facts).to_contain_text(text)
    expect(about.section("Recommended strength")).to_contain_text("0.8")
    expect(about.section("Negative prompt")).to_contain_text("photo, 3d")
    expect(about.section("Description").locator("p")).to_have_text("Sumi-e ink & wash.\n• landscapes")
    expect(about.notes).to_have_value("Good at a low CFG.")
    about.close()


def test_a_click_on_a_word_copies_it(about: About) -> None:
    about.open()
    words = about.section("Trigger words")
    words.get_by_role("button", name="sumi-e", exact=True).click()
    assert about.page.evaluate("navigator.clipboard.readText()") == "sumi-e"
    words.get_by_role("button", name="Copy all").click()
    assert about.page.evaluate("navigator.clipboard.readText()") == "ink wash style, sumi-e"


def test_a_word_is_sent_to_the_prompt_that_the_nodes_clip_feeds(loom: LoomPage, folder: Path) -> None:
    loader = loom.add_node("LoomLoraLoader", at=(380, 160))
    loom.set_widget(loader, "lora_name", INK)
    good, bad = (loom.add_node("CLIPTextEncode", at=(760, y)) for y in (160, 420))
    sampler = loom.add_node("KSampler", at=(1180, 160))
    for prompt, role in ((bad, "negative"), (good, "positive")):
        loom.connect(loader, 1, prompt, "clip")
        loom.connect(prompt, 0, sampler, role)
    loom.set_widget(good, "text", "a boat on a lake")
    # What came by script is a state of its own, which undo comes back to.
    loom.page.evaluate("app.extensionManager.workflow.activeWorkflow?.changeTracker?.checkState()")
    about = About(loom)

    def send() -> None:
        loom.page.mouse.click(460, 152, button="right")
        loom.page.get_by_text("About this LoRA…").click()
        target = about.dialog.get_by_label("Send trigger words to")
        expect(target.locator("option:checked")).to_have_text(f"CLIP Text Encode (Prompt) #{good} (positive)")
        for _ in range(2):  # the second time it is there already
            about.dialog.get_by_role("button", name="Send “sumi-e”").click()
        about.close()
        assert loom.widget(good, "text") == "a boat on a lake, sumi-e"

    send()
    loom.page.keyboard.press("Control+z")
    loom.wait_for("(id) => app.graph.getNodeById(id)?.widgets[0].value === 'a boat on a lake'", good)
    loom.wait_for("(id) => app.graph.getNodeById(id)?.outputs[0].links?.length === 1", good)
    send()
    prompt = loom.prompt()
    assert prompt[str(good)]["inputs"]["text"] == "a boat on a lake, sumi-e"
    assert prompt[str(bad)]["inputs"]["text"] == ""


def test_a_training_tag_becomes_a_trigger_word_that_nodes_give_out(
    about: About, folder: Path, comfy: ComfyHost
) -> None:
    sidecar = beside(folder)
    about.open()
    about.dialog.get_by_text("Tags of the training pictures").click()
    about.dialog.get_by_role("button", name="Add “mountain” to trigger words").click()
    about.page.keyboard.press("Control+s")
    expect(about.dialog.get_by_text("Saved in ink_wash.json")).to_be_visible()
    about.close()
    assert json.loads(sidecar.read_text())["activation text"] == "ink wash style, sumi-e, mountain"
    ran = comfy.queue({"1": {"class_type": "LoomInspectLora", "inputs": {"lora_name": INK}}})
    report = json.loads(ran.outputs["1"]["text"][0])[0]
    assert report["trigger_words"] == ["ink wash style", "sumi-e", "mountain"]


def test_notes_are_saved_beside_the_file_and_the_rest_of_the_sidecar_stays(about: About, folder: Path) -> None:
    sidecar = beside(folder)
    about.open()
    save = about.dialog.get_by_role("button", name="Save")
    expect(save).to_be_disabled()
    about.notes.fill("Best at 0.7.\nNot for faces.")
    expect(about.dialog.get_by_text("Not saved yet")).to_be_visible()
    save.click()
    expect(about.dialog.get_by_text("Saved in ink_wash.json")).to_be_visible()
    held = json.loads(sidecar.read_text())
    assert held["notes"] == "Best at 0.7.\nNot for faces."
    assert (held["preferred weight"], held["negative text"]) == (0.8, "photo, 3d")


def test_what_was_not_saved_is_saved_when_the_dialog_closes(about: About, folder: Path) -> None:
    sidecar = beside(folder)
    about.open()
    about.notes.fill("written in haste")
    about.close()
    assert json.loads(sidecar.read_text())["notes"] == "written in haste"
    about.open()
    about.notes.fill("rather not")
    about.dialog.get_by_role("button", name="Revert").click()
    expect(about.notes).to_have_value("written in haste")
    about.close()
    assert json.loads(sidecar.read_text())["notes"] == "written in haste"


def test_notes_that_cannot_be_saved_keep_the_dialog_open(about: About, folder: Path) -> None:
    about.open()
    about.page.route(
        "**/loom/notes", lambda route: route.fulfill(status=400, json={"error": "the folder is read-only"})
    )
    about.notes.fill("lost?")
    about.page.keyboard.press("Escape")
    expect(about.dialog.get_by_text("Not saved: the folder is read-only")).to_be_visible()
    expect(about.notes).to_have_value("lost?")
    about.page.unroute("**/loom/notes")
    about.dialog.get_by_role("button", name="Save").click()
    expect(about.dialog.get_by_text("Saved in ink_wash.json")).to_be_visible()
    about.close()
    # The browser's own line about the answer that failed.
    assert all("400" in line for line in about.loom.complaints())


def test_the_norm_of_each_block_is_a_bar(about: About) -> None:
    about.open()
    panel = about.tab("Blocks")
    bars = panel.locator(".loom-norms-bar")
    expect(bars).to_have_count(16)
    bars.nth(2).hover()
    readout = panel.locator(".loom-norms-readout")
    first = readout.inner_text()
    about.page.keyboard.press("Tab")
    panel.get_by_role("img").focus()
    about.page.keyboard.press("End")
    expect(readout).not_to_have_text(first)
    expect(readout).to_contain_text("% of the greatest")
    panel.get_by_text("As a table").click()
    expect(panel.get_by_role("row")).to_have_count(17)


def test_norms_that_cannot_be_measured_can_be_asked_for_again(about: About) -> None:
    about.page.route("**/loom/norms*", lambda route: route.fulfill(status=400, json={"error": "no family is known"}))
    about.open()
    panel = about.tab("Blocks")
    expect(panel.get_by_role("alert")).to_have_text("no family is known")
    about.page.unroute("**/loom/norms*")
    panel.get_by_role("button", name="Try again").click()
    expect(panel.get_by_role("img")).to_be_visible()
    assert all("400" in line for line in about.loom.complaints())


def test_every_tensor_that_is_not_used_is_named(about: About) -> None:
    about.open()
    panel = about.tab("Report")
    expect(panel).to_contain_text("384 of 385 tensors used")
    panel.get_by_text("Unmatched: 1").click()
    expect(panel.get_by_text("lora_unet_no_such_module.lora_up.weight")).to_be_visible()


def test_metadata_is_searched_and_long_values_are_folded(about: About) -> None:
    about.open()
    panel = about.tab("Metadata")
    expect(panel.locator("tbody tr")).to_have_count(5)
    panel.get_by_label("Filter the metadata").fill("mountain")
    expect(panel.locator("tbody tr")).to_have_count(1)
    expect(panel.locator("pre")).to_be_hidden()
    panel.locator("summary").click()
    expect(panel.locator("pre")).to_contain_text('"mountain": 22')
    panel.get_by_role("button", name="Copy ss_tag_frequency").click()
    assert json.loads(about.page.evaluate("navigator.clipboard.readText()")) == TAGS


def test_tabs_go_by_arrow_keys(about: About) -> None:
    about.open()
    about.dialog.get_by_role("tab", name="Overview").focus()
    about.page.keyboard.press("ArrowRight")
    about.page.keyboard.press("ArrowRight")
    expect(about.dialog.get_by_role("tab", name="Report")).to_be_focused()
    expect(about.dialog.get_by_role("tabpanel")).to_contain_text("tensors used")
    about.page.keyboard.press("ArrowLeft")
    about.page.keyboard.press("Home")
    expect(about.dialog.get_by_role("tab", name="Overview")).to_have_attribute("aria-selected", "true")


def test_hashes_are_computed_when_asked_for_and_copied(about: About, comfy: ComfyHost) -> None:
    def without(route: Route) -> None:
        found: dict[str, Any] = route.fetch().json()
        known = [{**one, "sha256": None} for one in found.get("loras", [])]
        route.fulfill(json=found | ({"loras": known} if known else {"hashes": None}))

    about.page.route("**/loom/lora?*", without)
    about.page.route("**/loom/loras*", without)
    about.page.evaluate(
        "async (at) => (await import(`${at}/picker/library.mjs`)).library.refresh({ whole: true })", MODULES
    )
    about.open()
    about.facts.get_by_role("button", name="Compute hashes").click()
    about.facts.get_by_role("button", name="Copy SHA256").click()
    for route in ("**/loom/lora?*", "**/loom/loras*"):
        about.page.unroute(route)
    copied = about.page.evaluate("navigator.clipboard.readText()")
    assert copied == comfy.post("/loom/hash", {"name": INK})["sha256"]
    link = about.facts.get_by_role("link")
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer")


def test_the_recommended_strength_can_be_taken(about: About) -> None:
    about.open()
    about.dialog.get_by_role("button", name="Use 0.8").click()
    expect(about.dialog).to_have_count(0)
    assert about.page.evaluate("window.loomStrength") == 0.8


def test_text_of_strangers_is_text_everywhere(about: About) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    about.page.on("request", note)
    about.open(HOSTILE)
    expect(about.section("Description")).to_be_visible()
    for tab in ("Overview", "Blocks", "Report", "Metadata"):
        about.tab(tab)
        about.dialog.locator("details").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
        assert about.dialog.locator("img, script, b, [onerror], [onclick]").count() == 0
        assert "\u202e" not in about.dialog.inner_text()
        about.loom.shot(f"about_hostile_{tab.lower()}", about.dialog)
    assert "owned" not in about.page.title()
    assert not [url for url in asked if "owned" in url or not url.startswith(about.loom.host.url)]
    about.page.remove_listener("request", note)


def test_a_file_that_is_no_lora_or_not_there_says_so(about: About) -> None:
    about.open("about/broken.safetensors")
    expect(about.dialog.get_by_role("alert")).to_contain_text("truncated or not safetensors")
    about.close()
    about.open("about/gone.safetensors")
    expect(about.dialog.get_by_role("alert")).to_contain_text("no LoRA named 'about/gone.safetensors'")
    expect(about.dialog.get_by_role("button", name="Try again")).to_be_visible()
    assert all("404" in line for line in about.loom.complaints())


def test_keys_stay_in_the_dialog_and_a_press_beside_it_closes_it(about: About) -> None:
    node = about.loom.add_node("LoomLoraLoader", at=(30, 300))
    about.page.evaluate("(id) => app.canvas.select(app.graph.getNodeById(id))", node)
    about.open()
    about.dialog.get_by_role("tab", name="Overview").focus()
    for key in ("Delete", "Backspace", "Control+b", "."):
        about.page.keyboard.press(key)
    assert about.page.evaluate("(id) => app.graph.getNodeById(id)?.mode", node) == 0
    about.page.mouse.click(60, 700)
    expect(about.dialog).to_have_count(0)


# The picture for the README


def test_picture_for_the_readme(about: About, comfy: ComfyHost, folder: Path) -> None:
    from browser.test_picker import painted

    parts = lora_files.factors("sdxl", seed=5, rank=4, modules=lora_files.ATTENTION, components=("denoiser",))
    for part in parts:
        # Strongest in the middle, as a style is: a profile for the chart.
        part.up.mul_(0.4 + (hash_of(part.diffusers) % 100) / 160)
    lora_files.save(
        folder / "gouache_landscape.safetensors",
        lora_files.kohya(parts, alpha=4.0),
        **{
            "modelspec.title": "Gouache Landscape", "modelspec.author": "Mira", "ss_network_dim": "4",
            "modelspec.trigger_phrase": "gouache painting", "ss_base_model_version": "sdxl_base_v1-0",
            "ss_tag_frequency": json.dumps({"8_gouache": {"hills": 31, "river": 18, "dusk": 12}}),
        },
    )  # fmt: skip
    (folder / "gouache_landscape.webp").write_bytes(painted("gouache landscape"))
    fields = {
        "description": "Flat, matte colour and visible brush edges. Trained on 48 landscapes, 1024 pixels wide.",
        "activation text": "gouache painting, matte colours, brush edges",
        "preferred weight": 0.75,
        "notes": "Works with Ink Wash at 0.4. Above 0.9 the sky turns to stripes.",
    }
    (folder / "gouache_landscape.json").write_text(json.dumps(fields))
    comfy.get("/loom/loras")
    about.open("about/gouache_landscape.safetensors")
    about.facts.get_by_text("AutoV2").or_(about.facts.get_by_role("button", name="Compute hashes")).wait_for()
    if about.facts.get_by_role("button", name="Compute hashes").is_visible():
        about.facts.get_by_role("button", name="Compute hashes").click()
    expect(about.facts.get_by_text("AutoV2")).to_be_visible()
    about.loom.wait_for("document.querySelector('.loom-about img')?.naturalWidth > 0")
    about.loom.shot("about", about.dialog, readme=True)
    about.tab("Blocks").get_by_role("img").wait_for()
    about.dialog.locator(".loom-norms-bar").nth(5).hover()
    about.loom.shot("about_blocks", about.dialog, readme=True)


def hash_of(text: str) -> int:
    """The same in each process."""
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(text.split(".attn")[0]))
