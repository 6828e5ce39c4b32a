// Block weights as text: written short, and read back as the same.
import assert from "node:assert/strict";
import { test } from "node:test";

import { kindOf, readBlocks, writeBlocks } from "../../web/rows/blocks_text.mjs";

const numbered = (/** @type {string} */ kind, /** @type {number} */ count) =>
  Array.from({ length: count }, (_, number) => `${kind}${String(number).padStart(2, "0")}`);
const SDXL = ["base", ...numbered("in", 9), "mid", ...numbered("out", 9)];
const FLUX = ["base", ...numbered("double", 19), ...numbered("single", 38)];

test("what is 1 is not written; runs and kinds are written once", () => {
  assert.equal(writeBlocks({}, SDXL), "");
  assert.equal(writeBlocks({ in04: 0.5, mid: 0 }, SDXL), "in04=0.5, mid=0");
  assert.equal(writeBlocks(Object.fromEntries(numbered("in", 9).map((name) => [name, 0])), SDXL), "in=0");
  assert.equal(writeBlocks({ in02: 0.5, in03: 0.5, in05: 0.5 }, SDXL), "in2-3=0.5, in05=0.5");
});

test("names, runs and kinds are read; later ones win; other forms are the server's", () => {
  assert.deepEqual(readBlocks("in=0, in04=1, mid=.5", ["in03", "in04", "mid"]), { in03: 0, in04: 1, mid: 0.5 });
  assert.deepEqual(readBlocks("in4-5=-1,", SDXL), { in04: -1, in05: -1 });
  assert.deepEqual(readBlocks("", SDXL), {});
  for (const text of ["1,0,1", "%default=0", "in99=1", "nothing=1", "in04", "in04=a", "NAME:1,0"]) {
    assert.equal(readBlocks(text, SDXL), null, text);
  }
});

test("what is written is read back, whatever the factors", () => {
  let seed = 11;
  const next = (/** @type {number} */ below) => (seed = (seed * 48271) % 2147483647) % below;
  for (let run = 0; run < 400; run++) {
    for (const blocks of [SDXL, FLUX]) {
      const factors = Object.fromEntries(blocks.map((name) => [name, next(3) ? 1 : (next(9) - 2) / 4]));
      const back = readBlocks(writeBlocks(factors, blocks), blocks);
      assert.deepEqual(Object.fromEntries(blocks.map((name) => [name, back?.[name] ?? 1])), factors);
    }
  }
});

test("a block's kind is its name without the number", () => {
  assert.deepEqual(["in04", "mid", "base", "double18"].map(kindOf), ["in", "mid", "base", "double"]);
});
