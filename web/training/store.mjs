// @ts-check
/**
 * What the page knows of trainings: the runs on disk, and what the events of those that go on add. No host in here.
 *
 * @typedef {import("../server.mjs").Curve} Curve
 * @typedef {import("../server.mjs").Moment} Moment
 * @typedef {import("../server.mjs").Run} ListedRun
 * @typedef {import("../server.mjs").WholeRun} WholeRun
 *
 * @typedef {object} Live of a training that is going on
 * @property {string} promptId
 * @property {string} node
 * @property {boolean} stepped whether it told of a step yet
 *
 * @typedef {object} Run
 * @property {string} run
 * @property {string} lora
 * @property {number} step
 * @property {number} steps
 * @property {boolean} finished
 * @property {number} modified
 * @property {number | null} loss
 * @property {number} moments how many samples there are on disk
 * @property {import("../server.mjs").Image | null} preview
 * @property {string} fault
 * @property {Live | null} live
 * @property {{ what: string, done: number, total: number } | null} stage work that is no step
 * @property {number} speed steps a second
 * @property {number | null} secondsLeft
 * @property {number} memory
 * @property {string[]} notes
 * @property {string[]} warnings
 * @property {"" | "finished" | "stopped" | "failed"} ended how it ended while the page looked
 * @property {Curve} losses
 * @property {Curve} validation
 * @property {Record<string, Curve>} rates
 * @property {Moment[]} samples
 * @property {Record<string, any>} config
 * @property {boolean} onDisk whether the server's list has it
 * @property {"none" | "loading" | "whole"} history whether what was before the page looked is here
 */

import { continued, united } from "./curves.mjs";

/** Seconds after which a training that the server does not know is over. */
const SILENT = 5;

/**
 * @param {string} run
 * @returns {Run}
 */
export const emptyRun = (run) => ({
  run,
  lora: "",
  step: 0,
  steps: 0,
  finished: false,
  modified: 0,
  loss: null,
  moments: 0,
  preview: null,
  fault: "",
  live: null,
  stage: null,
  speed: 0,
  secondsLeft: null,
  memory: 0,
  notes: [],
  warnings: [],
  ended: "",
  losses: [],
  validation: [],
  rates: {},
  samples: [],
  config: {},
  onDisk: false,
  history: "none",
});

/**
 * The run after an event of the type `loom.train`.
 *
 * @param {Run} run
 * @param {Record<string, any>} event
 * @param {number} now seconds
 * @returns {Run}
 */
export function received(run, event, now) {
  const begins = event.kind !== "ended" && (!run.live || run.live.promptId !== event.prompt_id);
  /** @type {Run} */
  const next = {
    ...run,
    lora: event.lora ?? run.lora,
    live: {
      promptId: event.prompt_id,
      node: String(event.node),
      stepped: event.kind === "progress" || (!begins && Boolean(run.live?.stepped)),
    },
    modified: now,
    ...(begins && { notes: [], warnings: [], ended: "", stage: null, speed: 0, secondsLeft: null, fault: "" }),
  };
  switch (event.kind) {
    case "stage":
      // Steps tell of themselves; what is done is none of them.
      next.stage = event.what === "training" ? null : { what: event.what, done: event.done, total: event.total };
      return next;
    case "progress":
      return progressed(next, event);
    case "validated":
      return { ...next, validation: added(next.validation, event.step, event.losses?.validation) };
    case "sampled":
      return sampled(next, event, now);
    case "saved":
      return next;
    case "note":
      return { ...next, notes: [...next.notes, String(event.text)] };
    case "warning":
      return { ...next, warnings: [...next.warnings, String(event.text)] };
    case "ended":
      return {
        ...next,
        live: null,
        stage: null,
        secondsLeft: null,
        step: event.step ?? next.step,
        finished: Boolean(event.finished),
        ended: event.finished ? "finished" : event.step === null ? "failed" : "stopped",
      };
    default:
      return next;
  }
}

/**
 * @param {Run} run
 * @param {Record<string, any>} event
 * @returns {Run}
 */
function progressed(run, event) {
  const losses = /** @type {Curve} */ (event.losses.filter((/** @type {[number, number?]} */ [, loss]) => loss !== null));
  const start = event.losses[0]?.[0] ?? event.step;
  const earlier = (/** @type {Curve} */ curve) => curve.filter(([step]) => step < start);
  // A run that began anew, or that goes on from a state, forgets what came after it.
  const back = run.step >= start;
  const rates = Object.fromEntries(
    Object.entries(/** @type {Record<string, number>} */ (event.rates ?? {})).map(([name, rate]) => [
      name,
      continued(run.rates[name] ?? [], [[event.step, rate]]),
    ]),
  );
  return {
    ...run,
    stage: null,
    step: event.step,
    steps: event.steps,
    finished: false,
    loss: event.loss ?? run.loss,
    speed: event.steps_per_second,
    secondsLeft: event.seconds_left,
    memory: event.memory,
    losses: continued(run.losses, losses),
    validation: back ? earlier(run.validation) : run.validation,
    samples: back ? run.samples.filter(({ step }) => step < start) : run.samples,
    rates: { ...run.rates, ...rates },
  };
}

/**
 * @param {Run} run
 * @param {Record<string, any>} event
 * @param {number} now
 * @returns {Run}
 */
function sampled(run, event, now) {
  const images = event.images.map((/** @type {object} */ image) => ({ ...image, changed: Math.floor(now) }));
  const samples = [...run.samples.filter(({ step }) => step !== event.step), { step: event.step, images }];
  samples.sort((one, other) => one.step - other.step);
  return { ...run, samples, moments: Math.max(run.moments, samples.length), preview: images[0] ?? run.preview };
}

/**
 * @param {Curve} curve
 * @param {number} step
 * @param {number | null | undefined} value
 */
const added = (curve, step, value) =>
  value === null || value === undefined ? curve : continued(curve, [[step, value]]);

/**
 * Whether steps before those that the page saw are missing.
 *
 * @param {Run} run as it was before
 * @param {Record<string, any>} event
 */
export function hasGap(run, event) {
  if (event.kind !== "progress" || run.history === "loading") return false;
  const start = event.losses[0]?.[0] ?? event.step;
  const last = run.live?.stepped ? run.step : (run.losses[run.losses.length - 1]?.[0] ?? 0);
  return start > last + 1;
}

/**
 * The run with what the list on disk says of it; of one that goes on, what the page saw is newer.
 *
 * @param {Run} run
 * @param {ListedRun} row
 * @param {number} now seconds
 * @returns {Run}
 */
export function listed(run, row, now) {
  const { live, samples, ...rest } = row;
  // An answer may be older than the last event; but where neither tells of it for a while, its host is gone.
  if (run.live && !live && now - run.modified > SILENT) run = { ...run, live: null, stage: null, history: "none" };
  if (run.live) return { ...run, lora: rest.lora || run.lora, moments: Math.max(run.moments, samples), onDisk: true };
  /** @type {Run} */
  const next = { ...run, ...rest, moments: samples, onDisk: true };
  // Another program went on with it, or began anew: what is here is old.
  if (run.history === "whole" && run.modified && Math.abs(run.modified - rest.modified) > 5) next.history = "none";
  if (!live) return next;
  return {
    ...next,
    live: { promptId: live.prompt_id, node: String(live.node), stepped: Boolean(live.progress) },
    stage: live.stage && live.stage.what !== "training" && !live.progress ? live.stage : null,
    speed: live.progress?.steps_per_second ?? 0,
    secondsLeft: live.progress?.seconds_left ?? null,
    memory: live.progress?.memory ?? 0,
    step: live.progress?.step ?? next.step,
    steps: live.progress?.steps ?? next.steps,
    notes: live.notes,
    warnings: live.warnings,
    finished: false,
  };
}

/**
 * The run with its curves and samples from disk, under those that the page saw since.
 *
 * @param {Run} run
 * @param {WholeRun} whole
 * @param {number} now seconds
 * @returns {Run}
 */
export function loaded(run, whole, now) {
  const { losses, validation, rates, samples, config, ...rest } = whole;
  const next = listed(run, { ...rest, samples: samples.length }, now);
  const going = Boolean(run.live && next.live);
  const names = new Set([...Object.keys(rates), ...(going ? Object.keys(run.rates) : [])]);
  const moments = new Map([...samples, ...(going ? run.samples : [])].map((one) => [one.step, one]));
  return {
    ...next,
    config,
    losses: united(losses, going ? run.losses : []),
    validation: united(validation, going ? run.validation : []),
    rates: Object.fromEntries(
      [...names].map((name) => [name, united(rates[name] ?? [], going ? (run.rates[name] ?? []) : [])]),
    ),
    samples: [...moments.values()].sort((one, other) => one.step - other.step),
    history: "whole",
  };
}
