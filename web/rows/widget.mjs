// @ts-check
/** The widget of LoRA Stack's rows: an element of ours that owns the whole list, alike in both renderers of nodes. */

import { stylesheet } from "../host.mjs";
import { RowsView } from "./view.mjs";
import { Stack } from "./stack.mjs";

/** Header and four rows; the rest is seen by scrolling, or by making the node taller. */
const HEIGHT = 164;
/** How wide a new node is: a row with its chip in one line. */
const WIDTH = 460;

/**
 * @param {import("../host.mjs").LGraphNode} node
 * @param {string} name
 */
export function rowsWidget(node, name) {
  for (const sheet of ["chip", "rows", "floating"]) stylesheet(`rows/${sheet}.css`);
  const stack = new Stack(node);
  const view = new RowsView(stack);
  stack.widget = node.addDOMWidget(name, "LOOM_ROWS", view.element, {
    getValue: () => stack.value,
    setValue: (value) => {
      stack.value = value;
    },
    getMinHeight: () => HEIGHT,
    // The rows stay legible when the canvas is zoomed out a little, and a grey box says less.
    hideOnZoom: false,
  });
  return { widget: stack.widget, minWidth: WIDTH };
}
