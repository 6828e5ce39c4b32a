// @ts-check
/**
 * All trainings that the page knows: one object for the panel and for every node.
 *
 * @typedef {import("./store.mjs").Run} Run
 */

import { emptyRun, hasGap, listed, loaded, received } from "./store.mjs";

export class Trainings {
  /** @type {Map<string, Run>} */
  #runs = new Map();
  /** @type {Set<(run: Run | null) => void>} */
  #watchers = new Set();
  /** @type {Promise<void> | null} while an answer is under way */
  #listing = null;
  /** What went wrong with the list; "" if nothing did. */
  fault = "";

  /**
   * @param {{ runs: () => Promise<{ runs: import("../server.mjs").Run[] }>,
   *   run: (name: string) => Promise<import("../server.mjs").WholeRun> }} server
   * @param {() => number} now seconds
   */
  constructor(server, now = () => Date.now() / 1000) {
    this.server = server;
    this.now = now;
  }

  /** Those that go on first, then the newest. */
  get all() {
    return [...this.#runs.values()].sort(
      (one, other) => Number(Boolean(other.live)) - Number(Boolean(one.live)) || other.modified - one.modified,
    );
  }

  /** @returns {Run | undefined} */
  get(/** @type {string} */ name) {
    return this.#runs.get(name);
  }

  /**
   * Calls back after each change: with the run, or with null when the list changed.
   *
   * @param {(run: Run | null) => void} watcher
   * @returns {() => void} to stop
   */
  subscribe(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** An event of the type `loom.train`. */
  receive(/** @type {Record<string, any>} */ event) {
    const before = this.#runs.get(event.run) ?? emptyRun(event.run);
    const gap = hasGap(before, event);
    const first = event.kind === "progress" && !before.live?.stepped;
    this.#set(received(before, event, this.now()));
    // With its first step a run has its settings on disk, and a page that comes late wants what was before.
    if (gap || first || event.kind === "ended") void this.list().then(() => this.load(event.run, true));
  }

  /** Reads the list from disk. Whoever asks while an answer is under way gets that one. */
  list() {
    this.#listing ??= this.#list().finally(() => {
      this.#listing = null;
    });
    return this.#listing;
  }

  async #list() {
    try {
      const { runs } = await this.server.runs();
      const names = new Set(runs.map(({ run }) => run));
      for (const [name, run] of this.#runs) if (!names.has(name) && !run.live) this.#runs.delete(name);
      for (const one of runs) this.#runs.set(one.run, listed(this.#runs.get(one.run) ?? emptyRun(one.run), one, this.now()));
      this.fault = "";
    } catch (error) {
      this.fault = messageOf(error);
    }
    this.#tell(null);
  }

  /**
   * Curves and samples of a run from disk; once, unless `again`.
   *
   * @param {string} name
   */
  async load(name, again = false) {
    const run = this.#runs.get(name);
    if (!run?.onDisk || run.history === "loading" || (run.history === "whole" && !again)) return;
    this.#set({ ...run, history: "loading" });
    try {
      const whole = await this.server.run(name);
      this.#set(loaded(this.#runs.get(name) ?? emptyRun(name), whole, this.now()));
    } catch (error) {
      const now = this.#runs.get(name);
      if (now) this.#set({ ...now, history: "whole", fault: messageOf(error) });
    }
  }

  #set(/** @type {Run} */ run) {
    this.#runs.set(run.run, run);
    this.#tell(run);
  }

  #tell(/** @type {Run | null} */ run) {
    for (const watcher of this.#watchers) watcher(run);
  }
}

const messageOf = (/** @type {unknown} */ error) => (error instanceof Error ? error.message : String(error));
