// What the search popup lists and says, from plain values.
import assert from "node:assert/strict";
import { test } from "node:test";

import { basesOf, chosen, foldersBelow, folderOf, stemOf, stepsTo, UNKNOWN } from "../../web/picker/choice.mjs";
import { factsOf, sizeText, stateText, titleOf } from "../../web/picker/entry_text.mjs";
import { placed } from "../../web/picker/popup.mjs";

/** @typedef {import("../../web/server.mjs").Entry} Entry */

/**
 * @param {string} name
 * @param {Partial<Entry>} [more]
 * @returns {Entry}
 */
const entry = (name, more = {}) => ({
  ...{ name, size: 1000, modified: 0, title: "", architecture: "sdxl", base: "SDXL", format: "kohya", types: ["lora"] },
  ...{ rank: "16", used: 4, total: 4, problems: 0, trigger_words: [], strength: null, preview: false },
  ...{ autov3: null, sha256: null, state: "described", error: null },
  ...more,
});

const ALL = [
  entry("boat.safetensors", { title: "Wooden boats", modified: 3 }),
  entry("flux/ink.safetensors", { architecture: "flux", base: "Flux", modified: 1 }),
  entry("styles/fine/pen.safetensors", { trigger_words: ["ink lines"], modified: 2 }),
  entry("styles/new.safetensors", { architecture: "", base: "", state: "new" }),
  entry("styles/odd.safetensors", { architecture: "", base: "", state: "failed", error: "no header" }),
];
const WANTED = { query: "", folder: "", base: "", only: null, sort: /** @type {"name" | "newest"} */ ("name") };
const names = (/** @type {object} */ wanted) => chosen(ALL, { ...WANTED, ...wanted }).map(({ name }) => stemOf(name));

test("a query looks at names, titles, trigger words and bases; never at the ending", () => {
  assert.deepEqual(names({ query: "ink" }), ["ink", "pen"]);
  assert.deepEqual(names({ query: "wooden" }), ["boat"]);
  assert.deepEqual(names({ query: "ink flux" }), ["ink"]);
  assert.deepEqual(names({ query: "safetensors" }), []);
});

test("a folder holds what lies below it", () => {
  assert.deepEqual(names({ folder: "styles" }), ["pen", "new", "odd"]);
  assert.deepEqual(names({ folder: "styles/fine" }), ["pen"]);
  assert.deepEqual(foldersBelow(ALL, ""), [
    { path: "flux", name: "flux", count: 1 },
    { path: "styles", name: "styles", count: 3 },
  ]);
  assert.deepEqual(foldersBelow(ALL, "styles"), [{ path: "styles/fine", name: "fine", count: 1 }]);
  assert.deepEqual(stepsTo("a/b/c"), ["a", "a/b", "a/b/c"]);
  assert.deepEqual([folderOf("a/b/c.pt"), folderOf("c.pt")], ["a/b", ""]);
});

test("a family does not hide what nobody looked into yet, and unknown ones are a family of their own", () => {
  assert.deepEqual(names({ base: "flux" }), ["ink", "new"]);
  assert.deepEqual(names({ base: UNKNOWN }), ["new", "odd"]);
  assert.deepEqual(
    basesOf(ALL).map(({ name, count }) => [name, count]),
    [
      ["sdxl", 2],
      ["flux", 1],
      [UNKNOWN, 2],
    ],
  );
});

test("recent ones come in their order, others by name or by date", () => {
  assert.deepEqual(names({ only: ["styles/new.safetensors", "gone.pt", "boat.safetensors"] }), ["new", "boat"]);
  assert.deepEqual(names({ only: new Set(["flux/ink.safetensors"]) }), ["ink"]);
  assert.deepEqual(names({ sort: "newest" }).slice(0, 3), ["boat", "pen", "ink"]);
});

test("what is written about a file", () => {
  assert.equal(titleOf(entry("a/ink_wash.safetensors")), "ink_wash");
  assert.equal(titleOf(entry("a/ink.pt", { title: " Ink " })), "Ink");
  assert.equal(stateText(entry("a", { problems: 3, total: 1200 })), "3 of 1,200 tensors match no module");
  assert.equal(stateText(entry("a", { state: "failed", error: "no header" })), "cannot be read: no header");
  assert.equal(stateText(entry("a", { state: "new" })), "not looked into yet");
  assert.equal(stateText(entry("a")), "");
  assert.deepEqual(
    factsOf(entry("a", { strength: 0.8 })).map(([name, value]) => `${name}: ${value}`).slice(0, 5),
    ["Base model: SDXL", "Type: lora", "Rank: 16", "Tensors used: 4 of 4", "Strength: 0.8"],
  );
  assert.deepEqual([999, 1500, 228_000_000, 999_999, 3_400_000_000].map(sizeText), ["999 B", "1.5 KB", "228 MB", "1.0 MB", "3.4 GB"]);
});

test("the popup is below its anchor, above it where that fits better, and always inside the window", () => {
  const size = { width: 300, height: 200 };
  const room = { width: 1000, height: 600 };
  const at = (/** @type {number} */ left, /** @type {number} */ top) => placed({ left, top, bottom: top + 20 }, size, room);
  assert.deepEqual(at(100, 100), { x: 100, y: 124 });
  assert.deepEqual(at(900, 500), { x: 692, y: 296 });
  assert.deepEqual(at(-50, 195), { x: 8, y: 219 });
  assert.deepEqual(placed({ left: 0, top: 100, bottom: 120 }, { width: 300, height: 550 }, room), { x: 8, y: 42 });
});
