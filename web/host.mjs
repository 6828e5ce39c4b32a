// @ts-check
/**
 * What the page's code wants of the host. No other file of ours knows the host's modules.
 *
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApp} ComfyApp
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApi} ComfyApi
 */

// @ts-expect-error The host serves it; it is no file of this repository.
import { app as hostApp } from "../../scripts/app.js";
// @ts-expect-error As above.
import { api as hostApi } from "../../scripts/api.js";

/** @type {ComfyApp} */
export const app = hostApp;
/** @type {ComfyApi} */
export const api = hostApi;

/**
 * @typedef {NonNullable<ComfyApp["graph"]>} LGraph
 *
 * @typedef {object} DomWidget a widget that is an element of ours
 * @property {string} name
 * @property {HTMLElement} element
 * @property {any} value through `getValue` and `setValue`
 * @property {((value: unknown) => void)} [callback]
 * @property {boolean} [hidden]
 *
 * @typedef {object} DomWidgetOptions
 * @property {() => unknown} [getValue]
 * @property {(value: any) => void} [setValue]
 * @property {() => number | string} [getMinHeight]
 * @property {() => number | string} [getMaxHeight]
 * @property {() => number} [getHeight]
 * @property {boolean} [hideOnZoom]
 * @property {boolean} [serialize]
 * @property {() => void} [onRemove]
 *
 * @typedef {NonNullable<ReturnType<LGraph["getNodeById"]>> & {
 *   addDOMWidget(name: string, type: string, element: HTMLElement, options?: DomWidgetOptions): DomWidget,
 * }} LGraphNode the published types leave `addDOMWidget` out
 */

/**
 * A short message in the corner.
 *
 * @param {"success" | "info" | "warn" | "error"} severity
 * @param {string} summary the first line
 * @param {string} [detail]
 */
export function toast(severity, summary, detail = "") {
  app.extensionManager.toast.add({ severity, summary, detail, life: severity === "error" ? 10000 : 4000 });
}

/** Whether nodes are drawn by Vue ("Nodes 2.0") instead of LiteGraph's canvas. */
export function inVueNodes() {
  return Boolean(/** @type {any} */ (globalThis).LiteGraph?.vueNodesMode);
}

/**
 * Loads a stylesheet of the pack once.
 *
 * @param {string} path relative to web/
 */
export function stylesheet(path) {
  const href = new URL(path, import.meta.url).href;
  if (document.querySelector(`link[href="${CSS.escape(href)}"]`)) return;
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = href;
  document.head.append(link);
}

/**
 * A change that the host's undo takes back in one step: its history looks at the graph when the change is done. Clicks
 * would come too late for it, which looks when the mouse goes up.
 *
 * @param {() => void} [change]
 */
export function undoable(change = () => {}) {
  app.canvas.emitBeforeChange();
  try {
    change();
  } finally {
    app.canvas.emitAfterChange();
  }
}
