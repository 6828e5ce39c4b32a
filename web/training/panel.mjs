// @ts-check
/** The tab of the bottom panel: all runs, and the curves, samples and numbers of one. */

import { h, icon } from "../dom.mjs";
import { stylesheet } from "../host.mjs";
import { keepEvents } from "../picker/popup.mjs";
import { Chart } from "./chart.mjs";
import { factList, headline, Progress, told } from "./facts.mjs";
import { stop, trainings, useInGraph } from "./live.mjs";
import { look, lookControls } from "./look.mjs";
import { Runs } from "./runs.mjs";
import { Samples, swatch } from "./samples.mjs";

/** @typedef {import("./store.mjs").Run} Run */

/** Runs that can be told apart in one chart, the selected one among them. */
const COLOURS = [1, 2, 3, 4, 5, 6].map((number) => `--loom-curve-${number}`);

export class TrainingPanel {
  /** "" for the newest. */
  #selected = "";
  /** @type {Set<string>} */
  #overlaid = new Set();
  /** @type {Map<string, string>} a run keeps its colour while it is drawn */
  #colours = new Map();
  #due = 0;
  #listed = false;
  #told = "";

  constructor() {
    stylesheet("vendor/uplot/uPlot.min.css");
    for (const sheet of ["pictures", "training"]) stylesheet(`training/${sheet}.css`);
    this.runs = new Runs({ onSelect: (run) => this.select(run), onOverlay: (run, on) => this.overlay(run, on) });
    this.chart = new Chart({ small: false });
    this.samples = new Samples();
    this.progress = new Progress();
    this.title = h("h2", { class: "loom-cut", dir: "auto" });
    this.state = h("span", { class: "loom-training-state loom-muted" });
    this.stop = this.#button("stop", "Stop", () => this.#now && void stop(this.#now));
    this.use = this.#button("add", "Use in graph", () => this.#now?.lora && useInGraph(this.#now.lora));
    this.again = this.#button("refresh", "", () => void this.#refresh(), "Read the runs again");
    this.messages = h("div", { class: "loom-training-told" });
    this.legend = h("ul", { class: "loom-training-legend", "aria-label": "Runs in the chart" });
    this.facts = h("div", { class: "loom-training-side" });
    this.empty = h("div", { class: "loom-training-empty" });
    const head = h("header", {}, this.title, this.state, h("span", { class: "loom-training-space" }), this.use, this.stop, this.again);
    const bar = h("div", { class: "loom-training-bar" }, ...lookControls(() => this.#draw()), this.legend);
    const main = h("section", { class: "loom-training-main" }, head, this.progress.element, this.messages, bar, this.chart.element);
    this.body = h("div", { class: "loom-training-body", hidden: true }, this.runs.element, main, h("aside", {}, this.samples.element, this.facts));
    this.element = h("div", { class: "loom loom-training-panel" }, this.body, this.empty);
    keepEvents(this.element);
    this.unsubscribe = trainings.subscribe(() => this.#later());
    // What the page knew may be gone.
    void trainings.list().then(() => {
      this.#listed = true;
      this.#later();
    });
    this.#showEmpty();
  }

  destroy() {
    this.unsubscribe();
    cancelAnimationFrame(this.#due);
    this.chart.destroy();
    this.element.remove();
  }

  /** @returns {Run | undefined} */
  get #now() {
    return trainings.get(this.#selected) ?? trainings.all[0];
  }

  /** Shows a run. */
  select(/** @type {string} */ run) {
    this.#selected = run;
    this.#overlaid.delete(run);
    this.#later();
  }

  /**
   * Lays a run over the selected one, or takes it away.
   *
   * @param {string} run
   * @param {boolean} on
   */
  overlay(run, on) {
    if (on && this.#overlaid.size < COLOURS.length - 1) this.#overlaid.add(run);
    else this.#overlaid.delete(run);
    this.#later();
  }

  async #refresh() {
    await trainings.list();
    for (const run of this.#drawn()) void trainings.load(run.run, true);
  }

  #later() {
    this.#due ||= requestAnimationFrame(() => {
      this.#due = 0;
      this.#draw();
    });
  }

  /** The selected run, then those over it. */
  #drawn() {
    const now = this.#now;
    const others = [...this.#overlaid].filter((name) => name !== now?.run).map((name) => trainings.get(name));
    return [now, ...others].filter((run) => run !== undefined);
  }

  #draw() {
    if (!this.#listed) return;
    const all = trainings.all;
    const drawn = this.#drawn();
    const now = drawn[0];
    this.body.hidden = !now;
    this.empty.hidden = Boolean(now);
    if (!now) return this.#showEmpty();
    for (const run of drawn) void trainings.load(run.run);
    this.#colour(drawn);
    this.runs.show(all, now.run, this.#colours);
    this.title.textContent = now.run;
    this.title.title = now.run;
    this.state.textContent = headline(now);
    this.progress.show(now);
    this.progress.element.hidden = !now.live;
    this.stop.hidden = !now.live;
    this.use.hidden = !now.lora || Boolean(now.live);
    const messages = JSON.stringify([now.run, now.warnings, now.notes, now.fault, now.ended, trainings.fault]);
    if (messages !== this.#told) {
      this.#told = messages;
      const fault = trainings.fault ? h("p", { class: "loom-error-text", role: "alert" }, `The runs cannot be listed: ${trainings.fault}`) : null;
      this.messages.replaceChildren(...[fault, ...told(now)].filter((one) => one !== null));
    }
    const colour = (/** @type {Run} */ run) => this.#colours.get(run.run) ?? "--loom-curve-1";
    this.chart.show(drawn.map((run) => ({ ...run, name: run.run, colour: colour(run) })), look);
    this.chart.element.classList.toggle("loom-training-blank", now.history === "whole" && !drawn.some(({ losses }) => losses.length));
    this.samples.show(drawn.map((run) => ({ name: run.run, colour: colour(run), samples: run.samples })));
    this.facts.replaceChildren(factList(now));
    this.legend.hidden = drawn.length < 2;
    this.legend.replaceChildren(
      ...drawn.map((run) => h("li", { class: "loom-cut", title: run.run }, swatch(colour(run)), run.run)),
    );
  }

  /** A run keeps its colour as long as it is drawn. */
  #colour(/** @type {Run[]} */ drawn) {
    const names = new Set(drawn.map(({ run }) => run));
    for (const name of this.#colours.keys()) if (!names.has(name)) this.#colours.delete(name);
    for (const name of names) {
      if (this.#colours.has(name)) continue;
      const taken = new Set(this.#colours.values());
      this.#colours.set(name, COLOURS.find((one) => !taken.has(one)) ?? "--loom-curve-1");
    }
  }

  #showEmpty() {
    if (!this.#listed) {
      this.empty.replaceChildren(h("p", { class: "loom-muted", role: "status" }, "Looking for runs…"));
    } else if (trainings.fault) {
      this.empty.replaceChildren(
        h("p", { class: "loom-error-text", role: "alert" }, `The runs cannot be listed: ${trainings.fault}`),
        this.#button("refresh", "Try again", () => void trainings.list()),
      );
    } else {
      this.empty.replaceChildren(
        h("h2", {}, "No training yet"),
        h("p", {}, "Open the template “train_your_first_lora” of LoRA Loom, or connect a LoRA Dataset to LoRA Train, and run the graph."),
        h("p", { class: "loom-muted" }, "Loss, validation and samples appear here while it trains; past runs stay, to be compared."),
      );
    }
  }

  /**
   * @param {keyof typeof import("../dom.mjs").ICONS} name
   * @param {string} text
   * @param {() => void} click
   */
  #button(name, text, click, label = text) {
    const plain = text ? "loom-bordered" : "loom-icon-only";
    return h("button", { type: "button", class: `loom-button ${plain}`, title: label, "aria-label": label, on: { click } }, icon(name), text);
  }
}
