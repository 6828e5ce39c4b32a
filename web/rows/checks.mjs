// @ts-check
/**
 * What the server knows of a node's rows: whether each file fits the connected model, which rows conflict, and what
 * the last run took. Asked again only where rows, the model or a file changed; the questions wait for a short pause.
 *
 * @typedef {import("../server.mjs").Fit} Fit
 * @typedef {import("./chip.mjs").Taken} Taken
 * @typedef {import("./stack.mjs").Stack} Stack
 * @typedef {import("./upstream.mjs").Model} Model
 */

import { library } from "../picker/library.mjs";
import { conflicts, fit } from "../server.mjs";
import { chipOf, conflictLines, twins } from "./chip.mjs";
import { nameParts } from "./model.mjs";
import { follow } from "./pulse.mjs";
import { modelOf } from "./upstream.mjs";

const PAUSE = 150;

/**
 * Fits of all nodes: model -> file at a state -> fit. An entry more than that is another model or a changed file.
 *
 * @type {Map<string, { title: string, architecture: string, fits: Map<string, Fit> }>}
 */
const known = new Map();

const keyOf = (/** @type {Model} */ model) => `${model.kind}/${model.name}`;

/** A file in a state: another file under the name is another question. */
const fileOf = (/** @type {string} */ name) => `${name}|${library.entry(name)?.modified ?? ""}`;

export class Checks {
  /** @type {Model | null} the connected one's file */
  model = null;
  /** @type {import("../server.mjs").Conflict[]} */
  #pairs = [];
  #pairsOf = "";
  /** @type {Map<number, { of: string, taken: Taken }>} what the last run took, by row */
  #taken = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {Stack} stack
   * @param {() => void} changed called when there is something new to show
   */
  constructor(stack, changed) {
    this.stack = stack;
    this.changed = changed;
    stack.listen(() => this.later());
    follow(this);
  }

  /** Whether the node is in a graph; one that was taken away by an undo asks nothing any more. */
  get alive() {
    const { node } = this.stack;
    return Boolean(node.graph && node.graph.getNodeById(node.id) === node);
  }

  /** Something may have changed: look soon. */
  later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.look(), PAUSE);
  }

  async look() {
    if (!this.alive) return;
    this.stack.followOutside();
    if (!this.stack.rows.length) return;
    const model = modelOf(/** @type {any} */ (this.stack.node));
    const other = (model && keyOf(model)) !== (this.model && keyOf(this.model));
    this.model = model;
    if (other) {
      this.#taken.clear();
      this.changed();
    }
    await Promise.allSettled([library.ready.then(() => this.#fits(model)), this.#conflicts()]);
  }

  /** @param {Model | null} model */
  async #fits(model) {
    this.changed(); // the library is here
    if (!model) return;
    const before = known.get(keyOf(model));
    const names = [...new Set(this.stack.rows.map((row) => row.lora))].filter(
      (name) => library.entry(name) && !before?.fits.has(fileOf(name)),
    );
    if (!names.length && before) return;
    if (!names.length && !this.stack.rows.some((row) => row.lora)) return;
    const answer = await fit(model, names);
    const kept = known.get(keyOf(model)) ?? { title: "", architecture: "", fits: new Map() };
    known.set(keyOf(model), kept);
    kept.title = answer.title;
    kept.architecture = answer.architecture;
    for (const [name, one] of Object.entries(answer.fits)) kept.fits.set(fileOf(name), one);
    this.changed();
  }

  async #conflicts() {
    const { rows } = this.stack;
    const on = rows.filter((row) => row.on && row.lora);
    const of = JSON.stringify(rows.map(({ on: is, lora, model, clip, blocks }) => is && [lora, model, clip, blocks]));
    if (of === this.#pairsOf) return;
    if (on.length > 1) {
      const { pairs } = await conflicts([...rows]);
      if (this.stack.rows !== rows) return; // asked again after the change
      this.#pairs = pairs;
    } else this.#pairs = [];
    this.#pairsOf = of;
    this.changed();
  }

  /**
   * The node ran.
   *
   * @param {Taken[]} taken
   */
  ran(taken) {
    this.model = modelOf(/** @type {any} */ (this.stack.node));
    this.#taken.clear();
    for (const one of taken) {
      if (one.row === null || one.model === null) continue;
      this.#taken.set(one.row, { of: this.#asRun(one.row), taken: one });
    }
    this.changed();
  }

  /** What makes a row another one for the model. */
  #asRun(/** @type {number} */ index) {
    const row = this.stack.rows[index];
    return JSON.stringify([row?.lora, row?.blocks, row?.on, this.model]);
  }

  /** The family of the connected model, as far as it is known. */
  get family() {
    const here = this.model && known.get(keyOf(this.model));
    return here?.architecture ? { architecture: here.architecture, title: here.title } : null;
  }

  /** What the chips of all rows say. */
  chips() {
    const { rows } = this.stack;
    const here = this.model && known.get(keyOf(this.model));
    const called = (/** @type {number} */ index) => nameParts(rows[index]?.lora ?? "").stem;
    const same = twins(rows).map((pair) => ({ ...pair, text: "the same file is on twice" }));
    const isTwin = (/** @type {{ a: number, b: number }} */ one) => same.some(({ a, b }) => a === one.a && b === one.b);
    // A row that is for another model says so itself; each of the others need not.
    const misfit = (/** @type {number} */ index) => here?.fits.get(fileOf(rows[index]?.lora ?? ""))?.fits === false;
    const inUse = this.#pairs.filter(
      (one) => rows[one.a]?.on && rows[one.b]?.on && !isTwin(one) && !(one.shared === 0 && (misfit(one.a) || misfit(one.b))),
    );
    const lines = conflictLines(rows.length, [...same, ...inUse], called);
    return rows.map((row, index) => {
      const ran = this.#taken.get(index);
      const entry = library.entry(row.lora);
      return chipOf(row, {
        entry,
        renamed: entry ? undefined : library.byHash(row.hash),
        listed: library.loaded,
        fit: here?.fits.get(fileOf(row.lora)),
        model: here?.title,
        taken: ran?.of === this.#asRun(index) ? ran.taken : undefined,
        conflicts: lines[index],
      });
    });
  }
}
