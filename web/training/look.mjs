// @ts-check
/** How a user wants charts to look, kept in the browser. */

import { h } from "../dom.mjs";
import { SMOOTHING } from "./curves.mjs";

/** @typedef {import("./chart.mjs").Look} Look */

const KEY = "loom.training.look";

/** @returns {Look} */
function stored() {
  const usual = { smoothing: SMOOTHING, log: false, rates: false };
  try {
    const given = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    const smoothing = Number(given.smoothing ?? usual.smoothing);
    return { smoothing: smoothing >= 0 && smoothing < 1 ? smoothing : usual.smoothing, log: given.log === true, rates: given.rates === true };
  } catch {
    return usual; // what another version left there, or a browser that keeps nothing
  }
}

/** @type {Look} */
export const look = stored();

/**
 * Controls of the look, as elements of a bar.
 *
 * @param {() => void} changed
 */
export function lookControls(changed) {
  const keep = () => {
    try {
      localStorage.setItem(KEY, JSON.stringify(look));
    } catch {
      // It holds for this page then.
    }
    changed();
  };
  const slider = h("input", {
    type: "range",
    min: 0,
    max: 0.99,
    step: 0.01,
    class: "loom-training-slider",
    on: {
      input: () => {
        look.smoothing = Number(slider.value);
        keep();
      },
    },
  });
  slider.value = String(look.smoothing);
  const box = (/** @type {"log" | "rates"} */ name, /** @type {string} */ label, /** @type {string} */ title) => {
    const input = h("input", {
      type: "checkbox",
      on: {
        change: () => {
          look[name] = input.checked;
          keep();
        },
      },
    });
    input.checked = look[name];
    return h("label", { title }, input, label);
  };
  return [
    h("label", { title: "How much the strong line evens out the steps" }, "Smoothing", slider),
    box("log", "Log scale", "Losses on a logarithmic axis"),
    box("rates", "Learning rate", "On an axis of its own, to the right"),
  ];
}
