// @ts-check
/** What the popup shows beside the list: the active LoRA with what can be done with it. */

import { h, icon } from "../dom.mjs";
import { factsOf, stateText, titleOf } from "./entry_text.mjs";
import { picture } from "./parts.mjs";

/**
 * @param {import("../server.mjs").Entry | undefined} entry
 * @param {object} options
 * @param {boolean} options.favourite
 * @param {string} options.verb what choosing is called
 * @param {() => void} options.choose
 * @param {() => void} options.star
 * @param {() => void} options.about
 * @returns {(HTMLElement | false)[]}
 */
export function details(entry, { favourite, verb, choose, star, about }) {
  if (!entry) return [];
  const state = stateText(entry);
  const title = titleOf(entry);
  return [
    h("div", { class: "loom-picker-preview" }, picture(entry, title, 256)),
    h("div", { class: "loom-picker-name", dir: "auto" }, title),
    h("div", { class: "loom-muted loom-picker-path", dir: "auto" }, entry.name),
    state !== "" &&
      h(
        "div",
        { class: `loom-picker-state ${entry.state === "failed" ? "loom-error-text" : ""}` },
        icon(entry.state === "new" ? "info" : "warning"),
        h("span", { dir: "auto" }, state),
      ),
    h(
      "dl",
      { class: "loom-picker-facts" },
      factsOf(entry).map(([name, value]) => h("div", {}, h("dt", { class: "loom-muted" }, name), h("dd", {}, value))),
    ),
    entry.trigger_words.length > 0 &&
      h(
        "div",
        { class: "loom-picker-words" },
        h("div", { class: "loom-muted" }, "Trigger words"),
        entry.trigger_words.slice(0, 12).map((word) => h("span", { class: "loom-pill", dir: "auto" }, word)),
        entry.trigger_words.length > 12 && h("span", { class: "loom-muted" }, `and ${entry.trigger_words.length - 12} more`),
      ),
    h(
      "div",
      { class: "loom-picker-actions" },
      h(
        "button",
        {
          class: "loom-button loom-bordered loom-icon-only loom-picker-favourite",
          type: "button",
          title: "Favourite",
          "aria-label": "Favourite",
          "aria-pressed": String(favourite),
          on: { click: star },
        },
        icon("star"),
      ),
      h("button", { class: "loom-button loom-bordered", type: "button", on: { click: about } }, "About…"),
      h("button", { class: "loom-button loom-primary", type: "button", on: { click: choose } }, verb),
    ),
  ];
}
