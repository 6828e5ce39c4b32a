"""The search popup: LoRAs are found among thousands, by keyboard and by mouse, and chosen."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Route, expect

import lora_files
from browser.loom_page import LoomPage
from browser.picker_view import MODULES, SDXL, Picker, entry
from host_harness.host import ComfyHost

pytestmark = pytest.mark.browser

FEW = [
    entry("boat.safetensors", title="Wooden boats", trigger_words=["clinker hull"]),
    entry("flux/neon.safetensors", architecture="flux", base="Flux.1"),
    entry("styles/film/vintage_film.safetensors", strength=0.8),
    entry("styles/ink_wash.safetensors", title="Ink Wash", problems=12, used=2154),
]


@pytest.fixture
def picker(loom_canvas: LoomPage) -> Iterator[Picker]:
    """The popup over a few files, with nothing remembered."""
    made = Picker(loom_canvas)
    made.page.evaluate("['loom.picker', 'loom.recent'].forEach((key) => localStorage.removeItem(key))")
    made.pretend(FEW)
    yield made
    made.page.keyboard.press("Escape")
    made.page.unroute("**/loom/loras*")
    made.read_all()


def test_a_few_letters_find_a_file_and_enter_chooses_it(picker: Picker) -> None:
    picker.open()
    expect(picker.options).to_have_count(4)
    picker.page.keyboard.type("vntge flm")
    expect(picker.options).to_have_count(1)
    assert picker.active.locator("mark").all_inner_texts()[:3] == ["v", "nt", "ge"]
    picker.page.keyboard.press("Enter")
    assert picker.chosen() == ["styles/film/vintage_film.safetensors"]
    expect(picker.popup).to_have_count(0)


def test_trigger_words_are_searched_and_shown_when_they_are_why(picker: Picker) -> None:
    picker.open()
    picker.page.keyboard.type("clinker")
    expect(picker.options).to_have_count(1)
    expect(picker.option("clinker hull").locator("mark")).to_have_text("clinker")


def many(count: int) -> list[dict[str, Any]]:
    words = ("ink", "wash", "film", "grain", "neon", "city", "pixel", "portrait", "vintage", "detail", "studio")
    draw = random.Random(1)
    folders = ["", "styles/", "people/", "concepts/light/"]
    return [
        entry(f"{draw.choice(folders)}{'_'.join(draw.sample(words, 3))}_v{number}.safetensors")
        for number in range(count)
    ]


def test_five_thousand_files_are_listed_with_a_few_dozen_elements(picker: Picker) -> None:
    picker.pretend(many(5000))
    picker.open()
    expect(picker.status).to_have_text("5,000 LoRAs")
    assert picker.options.count() < 40
    expect(picker.options.first).to_have_attribute("aria-setsize", "5000")
    picker.page.keyboard.press("End")
    expect(picker.active).to_have_attribute("aria-posinset", "5000")
    expect(picker.active).to_be_in_viewport()
    assert picker.options.count() < 40
    picker.page.keyboard.type("v4999")
    expect(picker.options).to_have_count(1)
    expect(picker.status).to_have_text("1 of 5,000 LoRAs")


def test_the_list_is_worked_by_keyboard(picker: Picker) -> None:
    picker.pretend([entry(f"lora {number:02}.safetensors") for number in range(40)])
    picker.open(selected="lora 20.safetensors")
    press = picker.page.keyboard.press
    expect(picker.active).to_have_attribute("aria-selected", "true")
    for key, place in (
        ("ArrowDown", "22"), ("ArrowUp", "21"), ("End", "40"), ("ArrowDown", "40"), ("Home", "1"), ("ArrowUp", "1"),
    ):  # fmt: skip
        press(key)
        expect(picker.active).to_have_attribute("aria-posinset", place)
    press("PageDown")
    assert int(picker.active.get_attribute("aria-posinset") or 0) > 4
    expect(picker.active).to_be_in_viewport()
    press("PageUp")
    expect(picker.active).to_have_attribute("aria-posinset", "1")
    # Tab goes around inside the popup.
    press("Shift+Tab")
    expect(picker.popup.get_by_role("button", name="Choose")).to_be_focused()
    # What the index tells meanwhile takes the focus from no button.
    picker.read_all()
    picker.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(picker.popup.get_by_role("button", name="Choose")).to_be_focused()
    press("Tab")
    expect(picker.search).to_be_focused()
    press("Escape")
    assert picker.chosen() is None


def test_the_anchor_gets_the_focus_back(picker: Picker) -> None:
    picker.page.evaluate(
        """async (at) => {
            const button = Object.assign(document.createElement("button"), { id: "loom-anchor", textContent: "Add" });
            button.style.cssText = "position: fixed; left: 1000px; top: 860px; z-index: 9999";
            document.body.append(button);
            const { openPicker } = await import(`${at}/picker/picker.mjs`);
            button.addEventListener("click", () => openPicker({ anchor: button }));
        }""",
        MODULES,
    )
    button = picker.page.locator("#loom-anchor")
    button.click()
    expect(picker.search).to_be_focused()
    box = picker.popup.bounding_box()
    assert box
    assert 0 <= box["x"] <= 1500 - box["width"]
    assert 0 <= box["y"] <= 860 - box["height"]
    picker.page.keyboard.press("Escape")
    expect(button).to_be_focused()
    button.evaluate("(button) => button.remove()")


def test_a_press_elsewhere_dismisses(picker: Picker) -> None:
    picker.open()
    picker.page.mouse.click(1400, 500)
    assert picker.chosen() is None
    expect(picker.popup).to_have_count(0)


def test_several_are_marked_and_added_in_their_order(picker: Picker) -> None:
    picker.open(multiple=True)
    picker.page.keyboard.press("End")
    picker.page.keyboard.press("Control+Enter")
    picker.option("Wooden boats").locator("[data-act=check]").click()
    expect(picker.option("Wooden boats")).to_have_attribute("aria-selected", "true")
    expect(picker.popup.get_by_role("button", name="Add 2")).to_be_visible()
    # A click on a row marks too while others are marked: nothing that was marked is lost.
    picker.option("neon").click()
    picker.option("neon").click()
    picker.search.focus()
    picker.page.keyboard.press("Enter")
    assert picker.chosen() == ["styles/ink_wash.safetensors", "boat.safetensors"]


def test_folders_narrow_the_list_step_by_step(picker: Picker) -> None:
    picker.open()
    folders = picker.popup.get_by_role("navigation", name="Folders")
    folders.get_by_role("button", name="styles").click()
    expect(picker.options).to_have_count(2)
    folders.get_by_role("button", name="film").click()
    expect(picker.options).to_have_count(1)
    expect(folders.get_by_role("button", name="film")).to_have_attribute("aria-current", "true")
    folders.get_by_role("button", name="All folders").click()
    expect(picker.options).to_have_count(4)


def test_the_connected_models_family_is_the_default_and_all_is_one_click_away(picker: Picker) -> None:
    picker.open(model=SDXL)
    base = picker.popup.get_by_role("combobox", name="Base model")
    expect(base).to_have_value("sdxl")
    expect(picker.options).to_have_count(3)
    picker.popup.get_by_role("button", name="Show all").click()
    expect(picker.options).to_have_count(4)
    picker.page.keyboard.press("Escape")
    # It is remembered, until the family is chosen again.
    picker.open(model=SDXL)
    expect(picker.options).to_have_count(4)
    base.select_option("sdxl")
    picker.page.keyboard.press("Escape")
    picker.open(model={"architecture": "flux", "title": "Flux.1"})
    expect(base).to_have_value("flux")
    assert picker.names == ["neon"]


def test_what_was_used_lately_comes_first_in_its_own_list(picker: Picker) -> None:
    for name in ("neon", "Ink"):
        picker.open()
        picker.option(name).click()
        picker.chosen()
    picker.open()
    picker.popup.get_by_role("button", name="Recent").click()
    assert picker.names == ["Ink Wash", "neon"]


def test_favourites_are_kept_by_the_host(picker: Picker, comfy: ComfyHost) -> None:
    picker.open()
    favourites = picker.popup.get_by_role("button", name="Favourites", exact=True)
    with picker.page.expect_response("**/userdata/loom%2Ffavourites.json*"):
        picker.option("Ink Wash").locator("[data-act=star]").click()
    assert comfy.get("/userdata/loom%2Ffavourites.json") == ["styles/ink_wash.safetensors"]
    favourites.click()
    assert picker.names == ["Ink Wash"]
    # By keyboard, beside the list; another click takes it out.
    star = picker.popup.get_by_role("button", name="Favourite", exact=True)
    expect(star).to_have_attribute("aria-pressed", "true")
    with picker.page.expect_response("**/userdata/loom%2Ffavourites.json*"):
        star.press("Enter")
    expect(picker.popup.get_by_text("There are no favourites yet.")).to_be_visible()
    assert comfy.get("/userdata/loom%2Ffavourites.json") == []


def test_details_of_the_active_file_lie_beside_the_list(picker: Picker) -> None:
    picker.open()
    picker.option("Ink Wash").hover()
    details = picker.popup.get_by_role("complementary")
    for text in ("Ink Wash", "styles/ink_wash.safetensors", "SDXL", "12 of 2,166 tensors match no module", "228 MB"):
        expect(details).to_contain_text(text)


def test_files_that_are_new_or_broken_say_so(picker: Picker) -> None:
    unknown = {"architecture": "", "base": "", "rank": "", "types": [], "used": 0, "total": 0}
    picker.pretend(
        [
            entry("broken.safetensors", **unknown, state="failed", error="the header is cut off"),
            entry("new.safetensors", **unknown, state="new"),
        ],
        described=1,
        busy=True,
    )
    picker.open(model=SDXL)
    # A family does not hide what nobody looked into yet.
    assert picker.names == ["new"]
    expect(picker.option("not looked into yet")).to_be_visible()
    expect(picker.status).to_have_text("1 of 2 LoRAs · looking into files: 1 of 2")
    picker.popup.get_by_role("button", name="Show all").click()
    expect(picker.option("cannot be read: the header is cut off")).to_be_visible()


def test_nothing_to_list_says_what_to_do(picker: Picker) -> None:
    picker.open()
    picker.search.fill("zebra")
    expect(picker.popup.get_by_text("No LoRA matches “zebra”.")).to_be_visible()
    picker.popup.get_by_role("button", name="Clear search").click()
    expect(picker.options).to_have_count(4)
    expect(picker.search).to_be_focused()
    picker.popup.get_by_role("button", name="Recent").click()
    expect(picker.popup.get_by_text("Nothing was used yet.")).to_be_visible()
    picker.popup.get_by_role("button", name="Show all").click()
    picker.pretend([])
    expect(picker.popup.get_by_text("models/loras")).to_be_visible()
    picker.loom.shot("picker_empty", picker.popup)


def test_a_server_that_does_not_answer_can_be_asked_again(picker: Picker) -> None:
    picker.page.unroute("**/loom/loras*")
    picker.page.route("**/loom/loras*", lambda route: route.fulfill(status=400, json={"error": "the index is locked"}))
    picker.open()
    expect(picker.popup.get_by_role("alert")).to_have_text("The list may be old: the index is locked")
    picker.pretend(FEW[:1])
    picker.popup.get_by_role("button", name="Refresh").click()
    expect(picker.popup.get_by_role("alert")).to_be_empty()
    expect(picker.options).to_have_count(1)
    # The browser writes a line of its own about the answer that failed.
    assert all("400" in line for line in picker.loom.complaints())


def test_keys_and_wheel_stay_in_the_popup(picker: Picker) -> None:
    picker.pretend(many(200))
    node = picker.loom.add_node("LoomLoraLoader", at=(1050, 300))
    picker.page.evaluate("(id) => app.canvas.select(app.graph.getNodeById(id))", node)
    picker.open()
    picker.popup.get_by_role("button", name="Favourites", exact=True).focus()
    for key in ("Delete", "Backspace", "Control+b", "Control+m", "."):
        picker.page.keyboard.press(key)
    picker.options.nth(3).hover()
    picker.page.mouse.wheel(0, 600)
    picker.loom.wait_for("document.querySelector('.loom-list').scrollTop > 0")
    assert picker.page.evaluate("app.canvas.ds.scale") == 1
    assert picker.page.evaluate("(id) => app.graph.getNodeById(id)?.mode", node) == 0


def test_text_of_strangers_is_text(picker: Picker) -> None:
    hostile = "<img src=/loom/owned onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    asked: list[str] = []
    picker.page.on("request", lambda request: asked.append(request.url))
    name = f"<b>x</b>/{'long_' * 40}{hostile.replace('/', '')}.safetensors"
    picker.pretend([entry(name, title=hostile, trigger_words=[hostile], base=hostile, error=hostile, rank=hostile)])
    picker.open()
    picker.page.keyboard.type("img")
    expect(picker.options).to_have_count(1)
    assert picker.popup.locator("img, script, b").count() == 0
    assert not [url for url in asked if "owned" in url]
    assert "owned" not in picker.page.title()
    popup, box = picker.popup.bounding_box(), picker.options.first.bounding_box()
    assert popup
    assert box
    assert box["x"] + box["width"] <= popup["x"] + popup["width"]
    picker.loom.shot("picker_hostile", picker.popup)


def test_a_nodes_menu_opens_it_and_the_choice_can_be_undone(loom: LoomPage) -> None:
    """In both renderers, over the real index."""
    node = loom.add_node("LoomLoraLoader", at=(420, 200))
    # What came by script is a state of its own, which undo comes back to.
    loom.page.evaluate("app.extensionManager.workflow.activeWorkflow?.changeTracker?.checkState()")
    before = loom.widget(node, "lora_name")
    loom.page.mouse.click(500, 192, button="right")
    loom.page.get_by_text("Choose LoRA…").click()
    picker = Picker(loom)
    expect(picker.search).to_be_focused()
    picker.options.filter(has_not_text=before.rsplit("/")[-1].removesuffix(".safetensors")).first.click()
    expect(picker.popup).to_have_count(0)
    chosen = loom.widget(node, "lora_name")
    assert chosen != before
    assert loom.prompt()[str(node)]["inputs"]["lora_name"] == chosen
    loom.page.mouse.move(1200, 600)
    loom.page.keyboard.press("Control+z")
    loom.wait_for(
        "([node, name]) => app.graph.getNodeById(node)?.widgets.find((one) => one.name === 'lora_name').value === name",
        [node, before],
    )


def test_a_file_that_appears_while_it_is_open_is_listed(loom_canvas: LoomPage, comfy: ComfyHost) -> None:
    """Over the real index: the button asks, then the server's word that it has looked into the file."""
    picker = Picker(loom_canvas)
    picker.open()
    picker.page.keyboard.type("brand_new")
    expect(picker.popup.get_by_text("No LoRA matches")).to_be_visible()
    parts = lora_files.factors("sd15", seed=1, rank=1, modules=lora_files.ATTENTION, components=("denoiser",))
    path = comfy.loras / "picker" / "brand_new.safetensors"
    lora_files.save(path, lora_files.kohya(parts), **{"modelspec.title": "Brand New"})
    picker.popup.get_by_role("button", name="Refresh").click()
    expect(picker.option("brand_new")).to_contain_text("SD 1.5")
    expect(picker.option("Brand New")).to_contain_text("rank 1")
    path.unlink()
    picker.popup.get_by_role("button", name="Refresh").click()
    expect(picker.options).to_have_count(0)
    picker.page.keyboard.press("Escape")


# The picture for the README


def painted(name: str) -> bytes:
    """A small landscape in colours of its own for each name."""
    draw = random.Random(name)
    hue = draw.randrange(256)
    sky = Image.linear_gradient("L").resize((256, 256))
    picture = Image.merge(
        "HSV", (sky.point(lambda v: (hue + v // 6) % 256), sky.point(lambda v: 150), sky.point(lambda v: 120 + v // 2))
    ).convert("RGB")
    pen = ImageDraw.Draw(picture)
    x, y, r = draw.randint(60, 190), draw.randint(50, 110), draw.randint(18, 36)
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 244, 214))
    for layer in range(3):
        shade = tuple(int(c * (0.55 - 0.16 * layer)) for c in picture.getpixel((128, 250)))
        points = [(px, 150 + 30 * layer + draw.randint(-28, 28)) for px in range(-20, 300, 40)]
        pen.polygon([(-20, 260), *points, (300, 260)], fill=shade)
    picture = picture.filter(ImageFilter.SMOOTH_MORE)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


LIBRARY = [
    entry("characters/fox_spirit_v2.safetensors", title="Fox Spirit", trigger_words=["fox spirit"], rank="32"),
    entry("concepts/golden_hour.safetensors", title="Golden Hour", rank="8", strength=0.6),
    entry("concepts/rain_at_night.safetensors", title="Rain at Night", rank="16"),
    entry("details/add_fine_detail.safetensors", title="Add Fine Detail", rank="8-64", types=["lora", "full"]),
    entry("sliders/age_slider.safetensors", title="Age Slider", rank="4", strength=1.5),
    entry("styles/gouache_landscape.safetensors", title="Gouache Landscape", trigger_words=["gouache painting"]),
    entry(
        "styles/ink_wash_v2.safetensors", title="Ink Wash", rank="16", strength=0.8,
        trigger_words=["ink wash style", "sumi-e", "rice paper"],
    ),
    entry("styles/linocut_print.safetensors", title="Linocut Print", trigger_words=["linocut"], problems=4, used=2162),
    entry("styles/paper_cutout.safetensors", title="Paper Cut-out", rank="32", trigger_words=["paper cutout"]),
    entry("styles/vintage_film_grain.safetensors", title="Vintage Film", rank="16", trigger_words=["35mm film"]),
    *(entry(f"flux/portrait_light_{n}.safetensors", architecture="flux", base="Flux.1") for n in range(6)),
]  # fmt: skip


def test_picture_for_the_readme(picker: Picker) -> None:
    def preview(route: Route) -> None:
        name = parse_qs(urlsplit(route.request.url).query)["name"][0]
        route.fulfill(body=painted(name), content_type="image/webp")

    picker.page.route("**/loom/preview*", preview)
    picker.pretend([{**one, "preview": True} for one in LIBRARY])
    picker.open(multiple=True, model=SDXL)
    picker.page.keyboard.type("in")
    picker.option("Ink Wash").hover()
    picker.loom.wait_for("[...document.querySelectorAll('.loom-picker img')].every((one) => one.naturalWidth > 0)")
    picker.page.mouse.move(2, 500)
    picker.loom.shot("picker", picker.popup, readme=True)
    picker.page.unroute("**/loom/preview*")
