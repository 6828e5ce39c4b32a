// @ts-check
/** The field that chooses which prompt of the graph trigger words are sent to. */

import { h } from "../dom.mjs";
import { app, toast } from "../host.mjs";
import { promptTargets, withWord } from "./prompts.mjs";

/** @typedef {import("./words.mjs").Send} Send */

/**
 * @param {{ node?: import("../host.mjs").LGraphNode, onSend?: (word: string) => void }} options
 * @returns {{ element: HTMLElement | null, current: () => Send | null }}
 */
export function sendTarget({ node, onSend }) {
  if (onSend) return { element: null, current: () => ({ title: "the node", send: onSend }) };
  const graph = /** @type {any} */ (node?.graph ?? app.canvas.graph);
  const targets = graph ? promptTargets(graph, /** @type {any} */ (node) ?? null) : [];
  if (!targets.length) return { element: null, current: () => null };
  const select = h(
    "select",
    { class: "loom-input", "aria-label": "Send trigger words to" },
    targets.map(({ title }, i) => h("option", { value: i }, title)),
  );
  return {
    element: h("label", { class: "loom-about-target loom-muted" }, "Send to ", select),
    current: () => ({
      title: "the prompt",
      send: (word) => {
        const target = targets[Number(select.value)];
        if (target) put(target, word);
      },
    }),
  };
}

/**
 * @param {import("./prompts.mjs").Target} target
 * @param {string} word
 */
function put({ widget, title }, word) {
  const text = withWord(String(widget.value ?? ""), word);
  if (text === null) {
    toast("info", "The prompt has it already", `${word} – ${title}`);
    return;
  }
  // Between these two the host looks for what changed, so that it can be undone.
  app.canvas.emitBeforeChange();
  widget.value = text;
  widget.callback?.(text);
  app.canvas.emitAfterChange();
  app.canvas.setDirty(true, true);
  toast("success", "Sent to the prompt", `${word} – ${title}`);
}
