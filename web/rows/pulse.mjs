// @ts-check
/**
 * Tells the rows of all nodes when the graph changed, when the library did, and when a node ran: one listener each for
 * the page, however many nodes. Nodes that are gone are not held.
 *
 * @typedef {import("./checks.mjs").Checks} Checks
 */

import { api, app } from "../host.mjs";
import { library } from "../picker/library.mjs";

/** @type {Set<WeakRef<Checks>>} */
const followers = new Set();
let listening = false;

/** @param {Checks} checks */
export function follow(checks) {
  followers.add(new WeakRef(checks));
  if (listening) return;
  listening = true;
  library.subscribe(() => each((one) => one.later()));
  // The published types lack the host's event that its history sends at each change of the graph.
  const events = /** @type {EventTarget} */ (/** @type {unknown} */ (api));
  events.addEventListener("graphChanged", () => each((one) => one.later()));
  events.addEventListener("executed", (event) => ran(/** @type {CustomEvent} */ (event).detail));
}

/** @param {(checks: Checks) => void} tell */
function each(tell) {
  for (const reference of followers) {
    const one = reference.deref();
    if (!one) followers.delete(reference);
    else if (one.alive) tell(one);
  }
}

/** @param {{ node: string | number, display_node?: string | number, output?: { loom?: import("./chip.mjs").Taken[][] } }} message */
function ran({ node, display_node, output }) {
  const taken = output?.loom?.at(-1);
  if (!Array.isArray(taken)) return;
  const executed = nodeAt(String(display_node ?? node));
  each((one) => {
    if (one.stack.node === executed) one.ran(taken);
  });
}

/** The node of an execution's id, which goes through subgraphs: `4:17`. */
function nodeAt(/** @type {string} */ id) {
  /** @type {any} */
  let graph = app.rootGraph ?? app.graph;
  /** @type {any} */
  let node = null;
  for (const part of id.split(":")) {
    node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part) ?? null;
    graph = node?.subgraph;
  }
  return node;
}
