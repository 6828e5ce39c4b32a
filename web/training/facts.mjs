// @ts-check
/** What a run says of itself in words: its state, a bar, numbers, settings, warnings. */

import { h, icon, set } from "../dom.mjs";
import { number } from "./curves.mjs";
import { bytes, duration, since, speed, state } from "./words.mjs";

/** @typedef {import("./store.mjs").Run} Run */

/** A bar that is filled as far as a run is; its own element each, updated in place. */
export class Progress {
  constructor() {
    this.fill = h("div", { class: "loom-training-fill" });
    this.element = h("div", { class: "loom-training-progress", role: "progressbar", "aria-label": "Progress" }, this.fill);
  }

  show(/** @type {Run} */ run) {
    // Between steps, while samples are drawn, the bar stays where the steps are.
    const early = run.live && !run.live.stepped ? run.stage : null;
    const { done, total } = early ?? { done: run.step, total: run.steps };
    const share = total > 0 ? Math.min(1, done / total) : 0;
    this.fill.style.width = `${100 * share}%`;
    this.element.classList.toggle("loom-training-still", !run.live);
    set(this.element, { "aria-valuenow": Math.round(100 * share), "aria-valuetext": state(run) });
  }
}

/**
 * Name and value of what is worth a line, for a run that goes on or a past one.
 *
 * @param {Run} run
 * @returns {[string, string][]}
 */
export function facts(run) {
  const { network, optimizer, data, run: settings, model } = run.config;
  const last = run.validation[run.validation.length - 1];
  /** @type {[string, unknown][]} */
  const all = [
    ["speed", run.live && speed(run.speed)],
    ["time left", run.live && !run.stage && run.secondsLeft !== null && duration(run.secondsLeft)],
    ["memory", run.live && bytes(run.memory)],
    ["loss", run.loss !== null && number(run.loss)],
    ["validation", last && number(last[1])],
    ["rank", network && [network.rank, network.alpha && network.alpha !== network.rank && `alpha ${number(network.alpha)}`].filter(Boolean).join(", ")],
    ["type", network?.type !== "lora" && network?.type],
    ["learning rate", optimizer && `${number(optimizer.learning_rate)} (${optimizer.name})`],
    ["batch", settings && (settings.accumulate > 1 ? `${settings.batch} × ${settings.accumulate}` : settings.batch)],
    ["resolution", data && [...new Set(data.resolution)].join(" × ")],
    ["pictures", data?.folder],
    ["base", model?.base !== "MODEL of the graph" && model?.base],
  ];
  return all.flatMap(([name, value]) => (value ? [/** @type {[string, string]} */ ([name, String(value)])] : []));
}

/** The facts as a list of terms. */
export const factList = (/** @type {Run} */ run) =>
  h(
    "dl",
    { class: "loom-training-facts" },
    ...facts(run).map(([name, value]) => h("div", {}, h("dt", { class: "loom-muted" }, name), h("dd", { class: "loom-cut", title: value }, value))),
  );

/** State of a run, and when it was, in one line. */
export function headline(/** @type {Run} */ run, now = Date.now() / 1000) {
  const left = run.live && !run.stage && run.secondsLeft ? `, ${duration(run.secondsLeft)} left` : "";
  return `${state(run)}${left}${run.live ? "" : ` · ${since(run.modified, now)}`}`;
}

/**
 * Warnings as lines that stand out; notes below each other, folded.
 *
 * @param {Run} run
 */
export function told(run) {
  const warnings = [...run.warnings, ...(run.fault ? [run.fault] : []), ...(run.ended === "failed" ? ["It ended with an error, which the host shows."] : [])];
  return [
    ...warnings.map((text) => h("p", { class: "loom-training-warning", role: "alert" }, icon("warning"), h("span", {}, text))),
    run.notes.length
      ? h("details", { class: "loom-training-notes" }, h("summary", {}, run.notes.length === 1 ? "1 note" : `${run.notes.length} notes`), ...run.notes.map((text) => h("p", {}, text)))
      : null,
  ];
}
