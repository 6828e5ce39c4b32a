// @ts-check
/** The widget of LoRA Stack's rows. */

import { h } from "../dom.mjs";

/**
 * @param {import("../host.mjs").LGraphNode} node
 * @param {string} name
 */
export function rowsWidget(node, name) {
  /** @type {import("../server.mjs").Row[]} */
  let rows = [];
  const element = h("div", { class: "loom-rows" });
  const widget = node.addDOMWidget(name, "LOOM_ROWS", element, {
    getValue: () => rows,
    setValue: (/** @type {any} */ value) => {
      rows = Array.isArray(value) ? value : [];
      element.textContent = `${rows.length} rows`;
    },
    getMinHeight: () => 120,
  });
  return { widget };
}
