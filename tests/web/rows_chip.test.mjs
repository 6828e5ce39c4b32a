// What a row's chip says, from the most that is known of it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { chipOf, conflictLines, twins } from "../../web/rows/chip.mjs";
import { row } from "../../web/rows/model.mjs";

const ink = row({ lora: "ink.safetensors", hash: "abc" });
/** @type {any} */
const entry = {
  name: "ink.safetensors",
  base: "SDXL",
  rank: "16",
  types: ["lora"],
  used: 90,
  total: 90,
  problems: 0,
  state: "described",
};
const taken = { row: 0, lora: "ink.safetensors", model: "SDXL", matched: 28, total: 30, missing: 2, misfit: 0, absent: {}, reason: "x: no such module", notes: [] };

test("nothing is said before the library is here, or of a row without a LoRA", () => {
  assert.equal(chipOf(ink, { listed: false, entry }).tone, "none");
  assert.equal(chipOf(row({ lora: "" }), { listed: true }).tone, "none");
});

test("a file that is not there is red; one of the same content is offered", () => {
  assert.deepEqual([chipOf(ink, { listed: true }).tone, chipOf(ink, { listed: true }).count], ["bad", "not found"]);
  const chip = chipOf(ink, { listed: true, renamed: { ...entry, name: "styles/ink.safetensors" } });
  assert.equal(chip.rename, "styles/ink.safetensors");
  assert.match(chip.title, /styles\/ink/);
});

test("without a model the chip tells what the file holds", () => {
  const chip = chipOf(ink, { listed: true, entry });
  assert.deepEqual([chip.tone, chip.count, chip.facts], ["quiet", "90/90", ["SDXL", "r16", "LoRA"]]);
  assert.equal(chipOf(ink, { listed: true, entry: { ...entry, used: 80, problems: 10 } }).tone, "warning");
  assert.equal(chipOf(ink, { listed: true, entry: { ...entry, state: "failed", error: "no header" } }).title, "no header");
  const fresh = { ...entry, state: "new", base: "", rank: "", types: [], used: 0, total: 0 };
  assert.deepEqual([chipOf(ink, { listed: true, entry: fresh }).count, chipOf(ink, { listed: true, entry: fresh }).tone], ["…", "quiet"]);
});

test("a connected model says whether the file fits, and the last run knows better", () => {
  const good = { fits: true, matched: 30, total: 30, reason: "" };
  const bad = { fits: false, matched: 1, total: 30, reason: "made for SD 1.5; the model is SDXL" };
  assert.equal(chipOf(ink, { listed: true, entry, fit: good, model: "SDXL" }).tone, "good");
  const red = chipOf(ink, { listed: true, entry, fit: bad, model: "SDXL" });
  assert.deepEqual([red.tone, red.count, red.facts], ["bad", "1/30", [bad.reason]]);
  const unknown = chipOf(ink, { listed: true, entry, fit: { fits: null, matched: 0, total: 0, reason: "no known model" } });
  assert.deepEqual([unknown.tone, unknown.count], ["quiet", "90/90"]);
  assert.match(unknown.title, /no known model/);
  // The answer about the model may be here before the index has looked into the file.
  const fresh = { ...entry, state: "new", base: "", rank: "", types: [] };
  assert.equal(chipOf(ink, { listed: true, entry: fresh, fit: good, model: "SDXL" }).title, "30 of 30 modules fit the connected SDXL.");
  const broken = chipOf(ink, { listed: true, entry: fresh, fit: { fits: false, matched: 0, total: 0, reason: "no header" }, model: "SDXL" });
  assert.deepEqual([broken.count, broken.title], ["unreadable", "no header"]);
  const ran = chipOf(ink, { listed: true, entry, fit: good, taken });
  assert.deepEqual([ran.tone, ran.count], ["bad", "28/30"]);
  assert.match(ran.title, /no such module/);
});

test("a part that is not connected is told, and no fault", () => {
  const chip = chipOf(ink, { listed: true, entry, taken: { ...taken, missing: 0, absent: { text_encoder: 12 } } });
  assert.equal(chip.tone, "good");
  assert.match(chip.title, /12 modules are for text encoder, not connected/);
});

test("rows in conflict name each other", () => {
  assert.deepEqual(twins([ink, row({ lora: "b" }), { ...ink, lora: "renamed" }, { ...ink, on: false }]), [{ a: 0, b: 2 }]);
  const lines = conflictLines(3, [{ a: 0, b: 2, text: "nearly the same" }], (index) => `lora ${index}`);
  assert.deepEqual(lines, [["With row 3, lora 2: nearly the same"], [], ["With row 1, lora 0: nearly the same"]]);
  assert.equal(chipOf(ink, { listed: true, entry, conflicts: lines[0] }).tone, "warning");
});
