// @ts-check
/** What the menu of a node with a `lora_name` offers: our popup to choose it, and the dialog about it. */

import { openAbout } from "../about/about.mjs";
import { app } from "../host.mjs";
import { openPicker } from "./picker.mjs";

/**
 * The items for the host's hook `getNodeMenuItems`.
 *
 * @param {any} node
 * @returns {{ content: string, callback: () => undefined }[]}
 */
export function nodeMenuItems(node) {
  const ours = String(node.comfyClass ?? node.constructor?.comfyClass ?? node.type).startsWith("Loom");
  const widget = ours && node.widgets?.find((/** @type {any} */ one) => one.name === "lora_name");
  if (!widget) return [];
  const name = String(widget.value ?? "");
  const items = [{ content: "Choose LoRA…", callback: () => void choose(node, widget) }];
  if (name) items.push({ content: "About this LoRA…", callback: () => void openAbout(name, { node }) });
  return items;
}

/**
 * @param {any} node
 * @param {any} widget
 */
async function choose(node, widget) {
  const found = await openPicker({ anchor: boxOf(node), selected: String(widget.value ?? "") });
  const name = found?.[0]?.name;
  if (!name || name === widget.value) return;
  // Between these two the host looks for what changed, so that it can be undone.
  app.canvas.emitBeforeChange();
  widget.value = name;
  widget.callback?.(name, app.canvas, node);
  app.canvas.emitAfterChange();
  app.canvas.setDirty(true, true);
}

/**
 * Where a node's title is in the window, in both renderers: both draw the graph at the canvas's place.
 *
 * @param {any} node
 */
function boxOf(node) {
  const { ds, canvas } = app.canvas;
  const [x, y] = ds.convertOffsetToCanvas([node.pos[0], node.pos[1]]);
  const box = canvas.getBoundingClientRect();
  return new DOMRect(box.left + Number(x), box.top + Number(y), node.size[0] * ds.scale, 0);
}
