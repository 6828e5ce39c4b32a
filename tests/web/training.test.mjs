// What the page knows of a training, from events and from disk, in the order in which they may come.
import assert from "node:assert/strict";
import { test } from "node:test";

import { continued, described, number, smoothed, thinned, united } from "../../web/training/curves.mjs";
import { emptyRun, hasGap, listed, loaded, received } from "../../web/training/store.mjs";
import { Trainings } from "../../web/training/trainings.mjs";
import { bytes, duration, runName, since, speed, state } from "../../web/training/words.mjs";

/** @typedef {import("../../web/training/store.mjs").Run} Run */

const NOW = 1000;
/** @typedef {[number, number | null]} Loss */
const told = (/** @type {string} */ kind, rest = {}) => ({ prompt_id: "p", node: "4", run: "ink", lora: "ink.safetensors", kind, ...rest });
const progress = (/** @type {number} */ step, /** @type {Loss[]} */ losses, rest = {}) =>
  told("progress", {
    step,
    steps: 20,
    loss: losses.at(-1)?.[1],
    losses,
    rates: { denoiser: 1e-4 },
    steps_per_second: 2,
    seconds_left: 5,
    memory: 2 ** 30,
    ...rest,
  });
const sampled = (/** @type {number} */ step) =>
  told("sampled", { step, images: [{ filename: `${step}.png`, subfolder: "", type: "output" }] });
const after = (/** @type {object[]} */ ...events) =>
  events.reduce((/** @type {Run} */ run, event) => received(run, event, NOW), emptyRun("ink"));
/** @returns {import("../../web/server.mjs").Run} */
const row = (rest = {}) => ({
  run: "ink",
  lora: "ink.safetensors",
  step: 4,
  steps: 4,
  finished: true,
  modified: 900,
  loss: 0.5,
  samples: 1,
  preview: null,
  fault: "",
  live: null,
  ...rest,
});
/** @returns {import("../../web/server.mjs").WholeRun} */
const whole = (rest = {}) => ({
  ...row(),
  config: { network: { rank: 4 } },
  losses: [
    [1, 0.9],
    [2, 0.8],
    [3, 0.7],
    [4, 0.6],
  ],
  validation: [[2, 0.75]],
  rates: { denoiser: [[1, 1e-4]] },
  samples: [{ step: 2, images: [] }],
  ...rest,
});

test("a training from its first event to its last", () => {
  const run = after(
    told("stage", { what: "caching latents", done: 12, total: 40 }),
    told("note", { text: "alpha 4 / rank 4" }),
    progress(2, [
      [1, 0.9],
      [2, 0.8],
    ]),
    sampled(2),
    told("validated", { step: 2, losses: { validation: 0.7, "validation t=200": 0.6 } }),
    progress(4, [
      [3, 0.7],
      [4, 0.6],
    ]),
    told("warning", { text: "small" }),
  );
  assert.equal(run.step, 4);
  assert.equal(run.speed, 2);
  assert.deepEqual(run.losses.map(([step]) => step), [1, 2, 3, 4]);
  assert.deepEqual(run.validation, [[2, 0.7]]);
  assert.deepEqual(run.rates.denoiser, [
    [2, 1e-4],
    [4, 1e-4],
  ]);
  assert.equal(run.samples.length, 1);
  assert.equal(run.preview?.filename, "2.png");
  assert.deepEqual([run.notes, run.warnings], [["alpha 4 / rank 4"], ["small"]]);
  assert.deepEqual(run.live, { promptId: "p", node: "4", stepped: true });

  const ended = received(run, told("ended", { finished: true, step: 20 }), NOW);
  assert.deepEqual([ended.live, ended.finished, ended.ended, ended.step], [null, true, "finished", 20]);
});

test("a stage is shown until the steps go on", () => {
  const caching = after(told("stage", { what: "caching latents", done: 12, total: 40 }));
  assert.equal(state(caching), "caching latents 12/40");
  assert.equal(state(received(caching, progress(1, [[1, 0.9]]), NOW)), "step 1 of 20");
  assert.equal(after(told("stage", { what: "training", done: 0, total: 20 })).stage, null);
});

test("how it ended", () => {
  const run = after(progress(1, [[1, 0.9]]));
  assert.equal(received(run, told("ended", { finished: false, step: 1 }), NOW).ended, "stopped");
  assert.equal(received(run, told("ended", { finished: false, step: null }), NOW).ended, "failed");
});

test("a run that begins anew, or goes on from a state, forgets what came after", () => {
  const first = after(
    progress(3, [
      [1, 0.9],
      [2, 0.8],
      [3, 0.7],
    ]),
    sampled(0),
    sampled(3),
    told("validated", { step: 3, losses: { validation: 0.7 } }),
  );
  const resumed = received(first, progress(3, [[3, 0.65]], { prompt_id: "q" }), NOW);
  assert.deepEqual(resumed.losses.at(-1), [3, 0.65]);
  assert.equal(resumed.losses.length, 3);
  const anew = received(first, progress(1, [[1, 0.5]], { prompt_id: "q" }), NOW);
  assert.deepEqual(anew.losses, [[1, 0.5]]);
  assert.deepEqual(anew.validation, []);
  assert.deepEqual(anew.samples.map(({ step }) => step), [0]);
});

test("warnings are those of the last prompt", () => {
  const run = after(told("warning", { text: "old" }), told("ended", { finished: true, step: 2 }));
  assert.deepEqual(received(run, { ...told("warning", { text: "new" }), prompt_id: "q" }, NOW).warnings, ["new"]);
});

test("losses that are not numbers are left out", () => {
  const run = after(
    progress(2, [
      [1, null],
      [2, 0.8],
    ]),
  );
  assert.deepEqual(run.losses, [[2, 0.8]]);
});

test("steps that were missed are noticed once", () => {
  assert.equal(hasGap(emptyRun("ink"), progress(1, [[1, 0.9]])), false);
  assert.equal(hasGap(emptyRun("ink"), progress(12, [[11, 0.9]])), true);
  assert.equal(hasGap({ ...emptyRun("ink"), history: "loading" }, progress(12, [[11, 0.9]])), false);
  assert.equal(hasGap(after(progress(1, [[1, 0.9]])), progress(2, [[2, 0.9]])), false);
});

test("what the page saw lies over what was on disk before", () => {
  const run = loaded(after(progress(6, [[5, 0.5], [6, 0.4]])), whole({ finished: false, step: 4 }), NOW); // prettier-ignore
  assert.deepEqual(run.losses.map(([step]) => step), [1, 2, 3, 4, 5, 6]);
  assert.equal(run.history, "whole");
  assert.equal(run.step, 6);
  assert.equal(run.config.network.rank, 4);
  assert.ok(run.live);
});

test("a past run is as the disk has it", () => {
  const run = loaded(listed(emptyRun("ink"), row(), NOW), whole(), NOW);
  assert.deepEqual([run.step, run.finished, run.losses.length, run.samples.length], [4, true, 4, 1]);
  assert.equal(run.live, null);
});

test("a page that comes late knows that a training goes on", () => {
  const live = {
    prompt_id: "p",
    node: "4",
    stage: { what: "caching latents", done: 2, total: 2 },
    progress: { step: 7, steps: 20, loss: 0.4, steps_per_second: 3, seconds_left: 4, memory: 5 },
    notes: [],
    warnings: ["small"],
  };
  const run = listed(emptyRun("ink"), row({ live, finished: false }), NOW);
  assert.deepEqual([run.step, run.steps, run.speed, run.stage], [7, 20, 3, null]);
  assert.deepEqual(run.live, { promptId: "p", node: "4", stepped: true });
});

test("a training whose host is gone is over after a while", () => {
  const run = after(progress(2, [[2, 0.8]]));
  assert.ok(listed(run, row(), NOW + 1).live);
  const over = listed(run, row({ step: 2, steps: 20, finished: false }), NOW + 60);
  assert.deepEqual([over.live, state(over)], [null, "stopped at step 2 of 20"]);
});

test("all trainings: the list, events of one that is not in it, and what was missed", async () => {
  let asked = 0;
  /** @type {import("../../web/server.mjs").Run[]} */
  const begun = [];
  const server = {
    runs: () => Promise.resolve({ runs: [row(), row({ run: "old", modified: 100 }), ...begun] }),
    run: (/** @type {string} */ name) => {
      asked += 1;
      return Promise.resolve(whole({ run: name }));
    },
  };
  const trainings = new Trainings(server, () => NOW);
  await trainings.list();
  assert.deepEqual(trainings.all.map(({ run }) => run), ["ink", "old"]);

  begun.push(row({ run: "new", finished: false }));
  trainings.receive({ ...progress(9, [[9, 0.3]]), run: "new" });
  assert.deepEqual(trainings.all.map(({ run }) => run), ["new", "ink", "old"]);
  await new Promise((done) => setTimeout(done));
  assert.equal(asked, 1);
  assert.deepEqual(trainings.get("new")?.losses.map(([step]) => step), [1, 2, 3, 4, 9]);

  await Promise.all([trainings.load("old"), trainings.load("old")]);
  assert.equal(asked, 2);
});

test("a server that does not answer is told, and asked again", async () => {
  let fails = true;
  const refuse = () => (fails ? Promise.reject(new Error("no answer")) : Promise.resolve({ runs: [row()] }));
  const trainings = new Trainings({ runs: refuse, run: () => Promise.reject(new Error("gone")) }, () => NOW);
  await trainings.list();
  assert.deepEqual([trainings.fault, trainings.all], ["no answer", []]);
  fails = false;
  await trainings.list();
  assert.deepEqual([trainings.fault, trainings.all.length], ["", 1]);
  await trainings.load("ink");
  assert.equal(trainings.get("ink")?.fault, "gone");
});

test("curves are smoothed from their first value on", () => {
  assert.deepEqual(smoothed([[1, 4], [2, 0]], 0.5), [[1, 4], [2, 4 / 3]]); // prettier-ignore
  assert.deepEqual(smoothed([[1, 4], [2, 0]], 0), [[1, 4], [2, 0]]); // prettier-ignore
});

test("long curves keep their ends and their peaks", () => {
  /** @type {[number, number][]} */
  const curve = Array.from({ length: 9999 }, (_, index) => [index + 1, Math.sin(index / 300)]);
  curve[5432] = [5433, 9];
  const kept = thinned(curve, 200);
  assert.ok(kept.length <= 200);
  assert.deepEqual([kept[0], kept.at(-1)], [curve[0], curve.at(-1)]);
  assert.ok(kept.some(([step, value]) => step === 5433 && value === 9));
  assert.deepEqual(kept, [...kept].sort(([one], [other]) => one - other));
});

test("curves of two sources", () => {
  assert.deepEqual(continued([[1, 1], [2, 2]], [[2, 5], [3, 3]]), [[1, 1], [2, 5], [3, 3]]); // prettier-ignore
  assert.deepEqual(united([[1, 1], [4, 4]], [[2, 2], [4, 5]]), [[1, 1], [2, 2], [4, 5]]); // prettier-ignore
});

test("words", () => {
  assert.deepEqual([12.4, 65, 3725, 200000].map(duration), ["12 s", "1 min 05 s", "1 h 02 min", "2 days 7 h"]);
  assert.deepEqual([speed(2), speed(0.25), speed(0)], ["2.0 it/s", "4.0 s/it", ""]);
  assert.deepEqual([bytes(3.2e9), bytes(5e8), bytes(0)], ["3.0 GB", "477 MB", ""]);
  assert.deepEqual([since(990, 1000), since(100, 1000)], ["just now", "15 min ago"]);
  assert.equal(runName("styles\\ink.safetensors"), "styles/ink");
  assert.deepEqual([0, 0.00012345, 0.5123456, 12345678].map((one) => number(one)), ["0", "0.000123", "0.5123", "12350000"]);
  assert.match(described([[1, 0.9], [2, 0.3]]), /^from 0.9 at step 1 to .* at step 2 .*lowest 0.3 at step 2$/); // prettier-ignore
  assert.equal(described([]), "no points yet");
});
