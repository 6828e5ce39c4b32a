// The page's copy of the index: merging of what changed, one question at a time, quiet failure.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Catalogue, merged } from "../../web/picker/catalogue.mjs";

/** @returns {any} */
const entry = (/** @type {string} */ name, /** @type {object} */ more = {}) => ({ name, autov3: null, ...more });
const names = (/** @type {ReadonlyMap<string, unknown>} */ entries) => [...entries.keys()];
const STATE = { files: 2, described: 2, hashed: 2, busy: false };

/**
 * A server that gives these answers in turn and notes what it was asked.
 *
 * @param {...(object | Error)} answers
 */
function server(...answers) {
  /** @type {(number | undefined)[]} */
  const asked = [];
  return {
    asked,
    ask: async (/** @type {number | undefined} */ since) => {
      asked.push(since);
      const answer = answers.shift();
      if (answer instanceof Error) throw answer;
      return /** @type {any} */ ({ state: STATE, gone: [], loras: [], version: since ?? 1, full: !since, ...answer });
    },
  };
}

test("changes are merged by name and in the order of file managers", () => {
  const before = merged(new Map(), { version: 1, full: true, state: STATE, gone: [], loras: [entry("b10"), entry("b9"), entry("A")] }, true);
  assert.deepEqual(names(before), ["A", "b9", "b10"]);
  const after = merged(before, { version: 2, full: false, state: STATE, gone: ["A"], loras: [entry("b9", { size: 5 })] }, false);
  assert.deepEqual(names(after), ["b9", "b10"]);
  assert.equal(after.get("b9")?.size, 5);
  assert.equal(before.size, 3);
});

test("the whole is asked for once, then what changed since", async () => {
  const { ask, asked } = server({ version: 4, loras: [entry("a")] }, { version: 5, loras: [entry("b")] });
  const library = new Catalogue(ask);
  library.heard(3);
  assert.deepEqual(asked, []);
  let heard = 0;
  const end = library.subscribe(() => heard++);
  await library.ready;
  library.heard(4);
  library.heard(5);
  await library.refresh();
  assert.deepEqual(asked.slice(0, 2), [undefined, 4]);
  assert.deepEqual(names(library.entries), ["a", "b"]);
  const before = heard;
  assert.ok(before >= 2);
  end();
  await library.refresh();
  assert.equal(heard, before);
});

test("questions do not overlap", async () => {
  const { ask, asked } = server({ version: 2 });
  const library = new Catalogue(ask);
  const first = library.refresh();
  void library.refresh();
  void library.refresh();
  await first;
  assert.deepEqual(asked, [undefined, 2]);
});

test("a server that began anew answers with all of it", async () => {
  const { ask, asked } = server({ version: 9, loras: [entry("old")] }, { version: 2, full: true, loras: [entry("new")] });
  const library = new Catalogue(ask);
  await library.ready;
  await library.refresh();
  assert.deepEqual(asked, [undefined, 9]);
  assert.deepEqual(names(library.entries), ["new"]);
});

test("a fault is a state, not an exception, and the next question may be answered", async () => {
  const { ask } = server(new Error("/loom/loras: 404 Not Found"), { version: 1, loras: [entry("a")] });
  const library = new Catalogue(ask);
  await library.ready;
  assert.match(library.error, /404/);
  assert.equal(library.loaded, false);
  await library.refresh();
  assert.equal(library.error, "");
  assert.equal(library.entry("a")?.name, "a");
});

test("a file is found by its hash, in either case, and an empty hash finds nothing", async () => {
  const { ask } = server({ version: 1, loras: [entry("a", { autov3: "ABC123abc123" }), entry("b")] });
  const library = new Catalogue(ask);
  await library.ready;
  assert.equal(library.byHash("abc123ABC123")?.name, "a");
  assert.equal(library.byHash(""), undefined);
});
