// @ts-check
/** The list of runs: pick one to look at, tick others to lay them over it. */

import { h, icon, set } from "../dom.mjs";
import { viewUrl } from "../server.mjs";
import { number } from "./curves.mjs";
import { Progress } from "./facts.mjs";
import { swatch } from "./samples.mjs";
import { since, state } from "./words.mjs";

/** @typedef {import("./store.mjs").Run} Run */

/** Runs from which on a search is worth its place. */
const MANY = 8;

export class Runs {
  /** @type {Run[]} */
  #runs = [];
  #selected = "";
  /** @type {Map<string, string>} run -> colour of those that are drawn */
  #drawn = new Map();
  #shape = "";

  /**
   * @param {object} options
   * @param {(run: string) => void} options.onSelect
   * @param {(run: string, on: boolean) => void} options.onOverlay
   */
  constructor({ onSelect, onOverlay }) {
    this.onSelect = onSelect;
    this.onOverlay = onOverlay;
    this.search = h("input", {
      type: "search",
      class: "loom-input",
      placeholder: "Search runs",
      "aria-label": "Search runs",
      on: { input: () => this.#draw() },
    });
    this.list = h("ul", { class: "loom-training-list", "aria-label": "Runs" });
    this.element = h("div", { class: "loom-training-runs" }, this.search, this.list);
  }

  /**
   * @param {Run[]} runs
   * @param {string} selected
   * @param {Map<string, string>} drawn
   */
  show(runs, selected, drawn) {
    this.#runs = runs;
    this.#selected = selected;
    this.#drawn = drawn;
    this.search.hidden = runs.length < MANY;
    this.#draw();
  }

  #draw() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.#runs.filter(({ run }) => words.every((word) => run.toLowerCase().includes(word)));
    // While steps come in, only what is in the rows changes: focus and pointer keep their row.
    const shape = JSON.stringify(found.map(({ run, live, preview }) => [run, Boolean(live), preview]));
    if (shape !== this.#shape) {
      this.#shape = shape;
      const focused = this.list.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement) : null;
      const place = focused?.closest("li")?.dataset.run;
      const kind = focused?.tagName;
      this.list.replaceChildren(...found.map((run) => this.#row(run)));
      if (place) /** @type {HTMLElement | null} */ (this.list.querySelector(`li[data-run="${CSS.escape(place)}"] ${kind}`))?.focus();
      if (!found.length) this.list.append(h("li", { class: "loom-muted loom-training-none" }, "No run has this name."));
    }
    for (const run of found) this.#fill(run);
  }

  #row(/** @type {Run} */ run) {
    const preview = run.preview ? h("img", { src: viewUrl(run.preview), alt: "", draggable: "false", loading: "lazy" }) : icon("bars");
    preview.addEventListener("error", () => preview.replaceWith(icon("bars")), { once: true });
    const progress = run.live ? new Progress() : null;
    const row = h(
      "li",
      { dataset: { run: run.run } },
      h(
        "button",
        { type: "button", class: "loom-training-run", title: run.run, on: { click: () => this.onSelect(run.run) } },
        h("span", { class: "loom-training-thumb" }, preview),
        h(
          "span",
          { class: "loom-training-named" },
          h("span", { class: "loom-training-name loom-cut", dir: "auto" }, stemOf(run.run)),
          h("span", { class: "loom-training-sub loom-cut loom-muted" }),
          progress?.element,
        ),
      ),
      h("input", {
        type: "checkbox",
        title: "Show in the chart",
        "aria-label": `Show ${run.run} in the chart`,
        on: { change: (/** @type {Event} */ event) => this.onOverlay(run.run, /** @type {HTMLInputElement} */ (event.target).checked) },
      }),
      h("span", { class: "loom-training-key" }),
    );
    bars.set(row, progress);
    return row;
  }

  #fill(/** @type {Run} */ run) {
    const row = /** @type {HTMLElement | null} */ (this.list.querySelector(`li[data-run="${CSS.escape(run.run)}"]`));
    if (!row) return;
    const selected = run.run === this.#selected;
    const colour = this.#drawn.get(run.run);
    row.classList.toggle("loom-training-selected", selected);
    set(/** @type {HTMLElement} */ (row.querySelector("button")), { "aria-current": selected ? "true" : null });
    const sub = /** @type {HTMLElement} */ (row.querySelector(".loom-training-sub"));
    const loss = run.loss === null ? "" : ` · loss ${number(run.loss, 3)}`;
    const folder = run.run.slice(0, -stemOf(run.run).length);
    const past = run.live ? "" : `${loss} · ${since(run.modified, Date.now() / 1000)}`;
    sub.textContent = state(run) + past + (folder && ` · ${folder}`);
    sub.title = sub.textContent;
    const box = /** @type {HTMLInputElement} */ (row.querySelector("input"));
    box.checked = Boolean(colour);
    box.disabled = selected;
    row.querySelector(".loom-training-key")?.replaceChildren(...(colour ? [swatch(colour)] : []));
    bars.get(row)?.show(run);
  }
}

/** The name without its folders. */
const stemOf = (/** @type {string} */ run) => run.slice(run.lastIndexOf("/") + 1);

/** @type {WeakMap<Element, Progress | null>} */
const bars = new WeakMap();
