// @ts-check
/**
 * Inputs that few need, out of the way. In Nodes 2.0 the host hides those that are marked `advanced` behind a button of
 * its own; in LiteGraph it only does not count them in a node's size, and draws them all the same. Here they are hidden
 * there too, and a button shows them. Whether they are shown is the host's `node.showAdvanced`, which it saves with the
 * graph and which its own menu entries and its button in Nodes 2.0 change; so both renderers agree.
 */

import { app } from "../host.mjs";

/** @typedef {import("../host.mjs").LGraphNode} LGraphNode */

/** Fewer than these are no burden, and a button would take as much room. */
const FEW = 5;
/** Nodes in whose numbers -1 or 0 stands for "as the preset says", and others are as small as 0.000001. */
const TRAINING = new Set(["LoomLoraTrain", "LoomTrainSettings", "LoomTrainDataset"]);
const ALWAYS = "Comfy.Node.AlwaysShowAdvancedWidgets";

/** The hook of the host for a new node. */
export function foldAdvanced(/** @type {LGraphNode} */ given) {
  const node = /** @type {any} */ (given);
  if (!String(node.comfyClass).startsWith("Loom")) return;
  const advanced = (node.widgets ?? []).filter((/** @type {any} */ widget) => widget.options?.advanced);
  if (TRAINING.has(node.comfyClass)) for (const widget of node.widgets ?? []) plainNumber(widget);
  if (advanced.length < FEW) return;
  const width = node.size[0];
  for (const widget of advanced) {
    widget.advanced = true;
    let hidden = Boolean(widget.hidden);
    // Read at each frame: what counts may change by the host's menu, by a setting, or by a link.
    Object.defineProperty(widget, "hidden", {
      configurable: true,
      enumerable: true,
      get: () => hidden || !(node.showAdvanced || app.extensionManager.setting.get(ALWAYS) || isLinked(node, widget.name)),
      set: (value) => {
        hidden = Boolean(value);
      },
    });
  }
  const button = node.addWidget("button", "advanced", "", () => toggle(node), { canvasOnly: true, serialize: false });
  button.serialize = false;
  Object.defineProperty(button, "label", {
    configurable: true,
    get: () => (node.showAdvanced ? "Hide advanced inputs" : `Show ${advanced.length} advanced inputs`),
    set: () => {},
  });
  // The host has measured the node with all of them.
  node.setSize([width, node.computeSize()[1]]);
}

function toggle(/** @type {any} */ node) {
  app.canvas.emitBeforeChange();
  node.graph?.incrementVersion?.();
  node.showAdvanced = !node.showAdvanced;
  node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas(true, true);
  app.canvas.emitAfterChange();
}

/**
 * @param {any} node
 * @param {string} name
 */
const isLinked = (node, name) => {
  const input = node.inputs?.find((/** @type {any} */ one) => one.widget?.name === name);
  return input?.link !== null && input?.link !== undefined;
};

/**
 * A number with the digits that it has: "-1" and "0.0001", where the host writes as many as its step has.
 *
 * @param {any} widget
 */
function plainNumber(widget) {
  const most = widget.options?.precision;
  if (widget.type !== "number" || !(most > 0)) return;
  Object.defineProperty(widget.options, "precision", {
    configurable: true,
    enumerable: true,
    get: () => Math.min(most, digits(Number(widget.value))),
  });
}

/** How many digits a number has behind its point. */
export function digits(/** @type {number} */ value) {
  if (!Number.isFinite(value)) return 0;
  return (value.toFixed(10).replace(/0+$/, "").split(".")[1] ?? "").length;
}
