// Fuzzy search: what matches, what comes first, what is marked.
import assert from "node:assert/strict";
import { test } from "node:test";

import { field, ranges, score, words } from "../../web/picker/fuzzy.mjs";

/** A field of a name: its last part counts most. */
const name = (/** @type {string} */ text) => field(text, { base: text.lastIndexOf("/") + 1 });

/**
 * Names in the order in which a query finds them.
 *
 * @param {string} query
 * @param {...string} names
 */
const found = (query, ...names) =>
  names
    .map((text) => ({ text, points: score(words(query), [name(text)]) }))
    .filter(({ points }) => points > 0)
    .sort((a, b) => b.points - a.points)
    .map(({ text }) => text);

/** The text with what the query marks in brackets. */
function marked(/** @type {string} */ query, /** @type {string} */ text) {
  let all = "";
  let done = 0;
  for (const [start, end] of ranges(words(query), name(text))) {
    all += `${text.slice(done, start)}[${text.slice(start, end)}]`;
    done = end;
  }
  return all + text.slice(done);
}

test("letters in their order match, with a few others between them", () => {
  assert.deepEqual(found("vntge", "vintage_film", "ink"), ["vintage_film"]);
  assert.deepEqual(found("dtltwk", "detail_tweaker"), ["detail_tweaker"]);
  assert.deepEqual(found("kni", "ink"), []);
});

test("letters strewn over a long text are chance, not a match", () => {
  assert.deepEqual(found("ink", "anime_lineart_thick"), []);
});

test("a word of the name comes before one inside a word, and before one of the folder", () => {
  assert.deepEqual(found("ink", "people/tinker", "ink/people", "styles/wash_ink"), [
    "styles/wash_ink",
    "people/tinker",
    "ink/people",
  ]);
});

test("the first word of the name comes first, the whole name before all", () => {
  assert.deepEqual(found("ink", "fine_ink", "ink_wash_style", "a/ink"), ["a/ink", "ink_wash_style", "fine_ink"]);
});

test("all words must match, in any order; capitals and digits start words", () => {
  assert.deepEqual(found("film vint", "vintage_film", "vintage_grain"), ["vintage_film"]);
  const inside = score(["xl"], [field("axles")]);
  assert.ok(score(["xl"], [field("StudioXL")]) > inside);
  assert.ok(score(["2"], [field("style2")]) > score(["2"], [field("style12")]));
});

test("case does not matter, nor a letter that is longer in lower case", () => {
  assert.deepEqual(found("INK", "Ink"), ["Ink"]);
  assert.equal(marked("ink", "İstanbul_ink"), "İstanbul_[ink]");
});

test("ranges are what was found, joined where they touch", () => {
  assert.equal(marked("ink", "styles/fine_ink"), "styles/fine_[ink]");
  assert.equal(marked("vntge", "vintage"), "[v]i[nt]a[ge]");
  assert.equal(marked("fi film", "styles/film"), "styles/[film]");
  assert.equal(marked("dtlt", "add_detail_tweaker"), "add_[d]e[t]ai[l]_[t]weaker");
  assert.equal(marked("", "ink"), "ink");
});

test("a field that is not loose matches as it stands alone, and weighs what it says", () => {
  const tags = field("ink wash, boat", { loose: false, weight: 0.5 });
  assert.equal(score(["inkb"], [tags]), 0);
  assert.ok(score(["boat"], [tags]) < score(["boat"], [field("x boat")]));
  assert.ok(score(["ink", "film"], [name("film"), tags]) > 0);
});
