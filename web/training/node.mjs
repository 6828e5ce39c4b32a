// @ts-check
/** The part inside LoRA Train: the curve, samples and progress of the run that its name says. No value of the graph. */

import { h, icon, set } from "../dom.mjs";
import { inVueNodes, stylesheet } from "../host.mjs";
import { keepEvents } from "../picker/popup.mjs";
import { Chart } from "./chart.mjs";
import { Progress } from "./facts.mjs";
import { stop, trainings } from "./live.mjs";
import { look } from "./look.mjs";
import { Samples } from "./samples.mjs";
import { showTraining } from "./tab.mjs";
import { duration, runName, speed, state } from "./words.mjs";

/**
 * @typedef {import("../host.mjs").LGraphNode} LGraphNode
 * @typedef {import("./store.mjs").Run} Run
 */

const KIND = "LoomLoraTrain";
// Pixels: one line, the curve below it, and the samples below that.
const LINE = 52;
const CHART = 150;
const SAMPLES = 130;

/** The hook of the host for a new node. */
export function trainingInNode(/** @type {LGraphNode} */ node) {
  if (/** @type {any} */ (node).comfyClass !== KIND) return;
  const part = new TrainingPart(node);
  const widget = node.addDOMWidget("training", "LOOM_TRAINING", part.element, {
    serialize: false, // not in the API's form
    getMinHeight: () => part.height,
    getMaxHeight: () => (part.height > LINE ? 480 : LINE),
    onRemove: () => part.destroy(),
  });
  /** @type {any} */ (widget).serialize = false; // nor in the workflow
  // The host would show the same pictures once more below.
  Object.assign(node, { hideOutputImages: true, isLoading: true });
}

class TrainingPart {
  #due = 0;
  #name = "";
  /** Name of the run that this node began last, for a name that comes from another node. */
  #began = "";

  constructor(/** @type {LGraphNode} */ node) {
    stylesheet("vendor/uplot/uPlot.min.css");
    for (const sheet of ["pictures", "training", "node"]) stylesheet(`training/${sheet}.css`);
    this.node = node;
    this.height = LINE;
    this.chart = new Chart({ small: true });
    this.samples = new Samples();
    this.progress = new Progress();
    this.text = h("span", { class: "loom-cut loom-muted", role: "status" });
    this.stop = this.#button("stop", "Stop the training", () => this.run && void stop(this.run));
    this.open = this.#button("bars", "Show in the panel", () => void showTraining(this.run?.run));
    this.head = h("div", { class: "loom-training-head" }, this.text, this.stop, this.open);
    this.element = h("div", { class: "loom loom-training-node" }, this.head, this.progress.element, this.chart.element, this.samples.element);
    // Its buttons and sliders are not for the canvas; all else drags, zooms and selects the node as it does elsewhere.
    for (const control of [this.stop, this.open, this.samples.element]) keepEvents(control);
    this.unsubscribe = trainings.subscribe((run) => {
      if (run?.live?.node === String(node.id)) this.#began = run.run;
      if (!run || run.run === this.#wanted) this.later();
    });
    const name = /** @type {any} */ (node.widgets?.find((one) => one.name === "name"));
    const before = name?.callback;
    if (name) {
      name.callback = (/** @type {unknown[]} */ ...given) => {
        before?.apply(name, given);
        this.#look();
      };
    }
    this.#look();
  }

  /** What the page knows may be old, or gone. */
  #look() {
    void trainings.list().then(() => this.later());
  }

  /** The run of the node's name. */
  get run() {
    return trainings.get(this.#wanted);
  }

  get #wanted() {
    const input = this.node.inputs?.find(({ name, link }) => name === "name" && link !== null && link !== undefined);
    if (input) return this.#began;
    return runName(this.node.widgets?.find(({ name }) => name === "name")?.value);
  }

  destroy() {
    this.unsubscribe();
    cancelAnimationFrame(this.#due);
    this.chart.destroy();
  }

  later() {
    this.#due ||= requestAnimationFrame(() => {
      this.#due = 0;
      this.#draw();
    });
  }

  #draw() {
    const name = this.#wanted;
    const run = trainings.get(name);
    if (run) void trainings.load(name);
    const any = Boolean(run && (run.live || run.losses.length || run.samples.length));
    this.chart.element.hidden = !any;
    this.progress.element.hidden = !run?.live;
    set(this.stop, { hidden: !run?.live });
    set(this.open, { hidden: !run });
    this.text.textContent = run ? line(run) : "Its curve and samples will be here.";
    this.text.title = run ? [run.run, ...run.warnings].join("\n") : "";
    this.text.classList.toggle("loom-error-text", run?.ended === "failed");
    if (run && any) {
      this.progress.show(run);
      this.chart.show([{ ...run, name: run.run, colour: "--loom-curve-1" }], { ...look, log: false, rates: false });
    }
    this.samples.show(run ? [{ name: run.run, colour: "--loom-curve-1", samples: run.samples }] : []);
    const height = LINE + (any ? CHART : 0) + (any && this.samples.any ? SAMPLES : 0);
    this.element.style.minHeight = inVueNodes() ? `${height}px` : "";
    if (height !== this.height || name !== this.#name) {
      this.height = height;
      this.#name = name;
      // The canvas finds the new height while it draws, and shows it when it draws again.
      this.node.graph?.setDirtyCanvas(true, true);
      requestAnimationFrame(() => requestAnimationFrame(() => this.node.graph?.setDirtyCanvas(true, true)));
    }
  }

  /**
   * @param {keyof typeof import("../dom.mjs").ICONS} name
   * @param {string} label
   * @param {() => void} click
   */
  #button(name, label, click) {
    return h("button", { type: "button", class: "loom-button loom-icon-only", title: label, "aria-label": label, on: { click } }, icon(name));
  }
}

/** Where it is, how fast, and how long yet. */
function line(/** @type {Run} */ run) {
  const left = run.live && !run.stage && run.secondsLeft ? `${duration(run.secondsLeft)} left` : "";
  const parts = [state(run), run.live && !run.stage ? speed(run.speed) : "", left];
  if (run.ended === "failed") parts.unshift("ended with an error");
  return parts.filter(Boolean).join(" · ");
}
