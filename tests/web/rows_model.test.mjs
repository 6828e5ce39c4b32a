// The list of rows: what each change makes of it, and that it leaves the list before alone.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as model from "../../web/rows/model.mjs";

const ink = model.row({ lora: "styles/ink.safetensors", model: 0.8 });
const rain = model.row({ on: false, lora: "rain.safetensors", model: 0.5, clip: 0 });

test("a row has all of its fields; a missing clip is that of the model, a clip of 0 is 0", () => {
  assert.deepEqual(ink, { on: true, lora: "styles/ink.safetensors", model: 0.8, clip: 0.8, blocks: "", hash: "" });
  assert.equal(rain.clip, 0);
  assert.deepEqual(model.row({ lora: "None" }).lora, "");
});

test("rows of rgthree and of Lora-Manager are read", () => {
  assert.deepEqual(
    model.row({ on: true, lora: "ink.safetensors", strength: 0.6, strengthTwo: null }),
    model.row({ lora: "ink.safetensors", model: 0.6, clip: 0.6 }),
  );
  assert.deepEqual(
    model.row({ name: "ink", strength: "0.6", clipStrength: 0, active: false }),
    model.row({ on: false, lora: "ink", model: 0.6, clip: 0 }),
  );
});

test("the widget's value is a list, JSON text or what the API calls __value__", () => {
  for (const value of [[ink, rain], JSON.stringify([ink, rain]), { __value__: [ink, rain] }, model.toText([ink, rain])]) {
    assert.deepEqual(model.parse(value), { rows: [ink, rain], fault: "" });
  }
  for (const value of [null, undefined, "", "  ", []]) assert.deepEqual(model.parse(value), { rows: [], fault: "" });
  for (const value of ["[", "12", 12, { rows: [] }, [1], [[ink]], '["ink"]']) {
    assert.deepEqual(model.parse(value).rows, []);
    assert.match(model.parse(value).fault, /\.$/);
  }
});

test("all rows are switched together: some on means all on, all on means all off", () => {
  assert.equal(model.whichOn([ink, rain]), "some");
  const all = model.toggleAll([ink, rain]);
  assert.equal(model.whichOn(all), "all");
  assert.equal(model.whichOn(model.toggleAll(all)), "none");
  assert.equal(model.whichOn([]), "none");
});

test("linked strengths change together, split ones alone; a row whose strengths differ shows both", () => {
  assert.deepEqual(model.setStrength([ink], 0, "model", 0.4, false)[0], { ...ink, model: 0.4, clip: 0.4 });
  assert.deepEqual(model.setStrength([ink], 0, "clip", 0.4, true)[0], { ...ink, clip: 0.4 });
  assert.equal(model.showsBoth(ink, false), false);
  assert.equal(model.showsBoth(rain, false), true);
  assert.equal(model.setStrength([ink], 0, "model", 1000, false)[0]?.model, model.HIGHEST);
});

test("strengths are typed with a point or a comma, and shown with two places or more", () => {
  const typed = { 0.8: "0.8", 0.75: "0,75", 0.5: ".5", 1: " 1. ", 100: "999" };
  for (const [value, text] of Object.entries(typed)) assert.equal(model.readStrength(text), Number(value), text);
  assert.equal(model.readStrength("-1,25"), -1.25);
  for (const text of ["", "a", "1.2.3", "1e3", "--1", "0x10", "."]) assert.equal(model.readStrength(text), null, text);
  assert.equal(model.showStrength(0.8), "0.80");
  assert.equal(model.showStrength(0.125), "0.125");
  assert.equal(model.showStrength(-1), "−1.00");
});

test("a step goes to the grid", () => {
  assert.equal(model.stepped(0.83, 1), 0.85);
  assert.equal(model.stepped(0.83, -1), 0.8);
  assert.equal(model.stepped(0.1 + 0.2, 1, 0.1), 0.4);
  assert.equal(model.stepped(0.8, 0, 0.3), 0.8);
  assert.equal(model.stepped(100, 1), 100);
});

test("a name has a folder, a stem and an extension", () => {
  assert.deepEqual(model.nameParts("a/b/ink.v1.safetensors"), { folder: "a/b/", stem: "ink.v1", extension: ".safetensors" });
  assert.deepEqual(model.nameParts("ink v1.5"), { folder: "", stem: "ink v1.5", extension: "" });
});

// Properties, on rows and places drawn with a fixed seed: each run has the same.
function* draws() {
  let seed = 7;
  const next = (/** @type {number} */ below) => (seed = (seed * 48271) % 2147483647) % below;
  for (let run = 0; run < 300; run++) {
    const rows = Array.from({ length: next(7) }, (_, index) =>
      Object.freeze(model.row({ on: next(2) === 1, lora: `l${index}`, model: next(400) / 100 - 2, clip: next(400) / 100 - 2 })),
    );
    yield { rows: Object.freeze(rows), at: next(rows.length || 1), to: next(rows.length || 1), next };
  }
}

const names = (/** @type {model.Rows} */ rows) => rows.map((one) => one.lora);

test("moving there and back is nothing; a move keeps all rows and puts one at its place", () => {
  for (const { rows, at, to } of draws()) {
    const moved = model.move(rows, at, to);
    assert.deepEqual(names(moved).sort(), names(rows).sort());
    if (rows.length) assert.equal(moved[to], rows[at]);
    assert.deepEqual(model.move(moved, to, at), [...rows]);
  }
});

test("duplicate then remove is nothing; toggling twice is nothing", () => {
  for (const { rows, at } of draws()) {
    const twice = model.duplicate(rows, at);
    assert.equal(twice.length, rows.length ? rows.length + 1 : 0);
    if (rows.length) assert.deepEqual(model.remove(twice, at + 1), [...rows]);
    assert.deepEqual(model.toggle(model.toggle(rows, at), at), [...rows]);
  }
});

test("what is added lies together at its place, and the rest around it", () => {
  for (const { rows, at } of draws()) {
    const all = model.add(rows, [ink, rain], at);
    assert.deepEqual(all.slice(at, at + 2), [ink, rain]);
    assert.deepEqual([...all.slice(0, at), ...all.slice(at + 2)], [...rows]);
  }
});

test("text and back is the same rows, and reading twice is reading once", () => {
  for (const { rows } of draws()) {
    const { rows: back } = model.parse(model.toText(rows));
    assert.deepEqual(back, [...rows]);
    assert.deepEqual(model.parse(back).rows, back);
  }
});

test("a strength stays in its range and on its four places, whatever is done", () => {
  for (const { next } of draws()) {
    const value = (next(60000) - 30000) / 137;
    for (const made of [model.clamp(value), model.stepped(value, next(41) - 20, 0.05)]) {
      assert.ok(made >= model.LOWEST && made <= model.HIGHEST);
      assert.equal(made, Number(made.toFixed(4)));
      assert.equal(model.readStrength(model.showStrength(made)), made);
    }
  }
});

test("only the rows that are on stay when the others are removed", () => {
  for (const { rows } of draws()) assert.ok(model.removeOff(rows).every((one) => one.on));
});
