// @ts-check
/**
 * The rows of one node as its widget holds them: the list itself, what is only for the eye (in the node's properties),
 * and who wants to know of changes. The list is replaced at each change, never edited.
 *
 * @typedef {import("../server.mjs").Row} Row
 * @typedef {import("../host.mjs").LGraphNode} LGraphNode
 * @typedef {import("../host.mjs").DomWidget} DomWidget
 */

import { undoable } from "../host.mjs";
import * as model from "./model.mjs";
import { promoted } from "./upstream.mjs";

export class Stack {
  /** @type {readonly Row[]} */
  rows = [];
  /** Why the value that came holds no rows; "" when it does. */
  fault = "";
  /** @type {DomWidget | null} */
  widget = null;

  /** @type {unknown} a value that could not be read: kept as it is until the user changes something */
  #unread = undefined;
  /** @type {Set<() => void>} */
  #listeners = new Set();

  /** @param {LGraphNode} node */
  constructor(node) {
    this.node = node;
  }

  /** What the host saves and queues. */
  get value() {
    return this.fault ? this.#unread : this.rows;
  }

  set value(/** @type {unknown} */ value) {
    const { rows, fault } = model.parse(value);
    this.rows = rows;
    this.fault = fault;
    this.#unread = value;
    this.tell();
  }

  /** Whether all rows show both strengths. */
  get split() {
    return Boolean(this.node.properties?.["loom_split"]);
  }

  toggleSplit() {
    undoable(() => this.node.setProperty("loom_split", !this.split));
    this.tell();
  }

  /**
   * Another list, as a step of its own in the host's history.
   *
   * @param {readonly Row[]} rows
   */
  change(rows) {
    undoable(() => this.set(rows));
  }

  /**
   * Another list while something is under way (a strength that is being dragged); `undoable()` ends it.
   *
   * @param {readonly Row[]} rows
   */
  set(rows) {
    this.rows = rows;
    this.fault = "";
    this.widget?.callback?.(rows);
    for (const outer of this.#outside()) outer.value = rows;
    this.tell();
  }

  /**
   * Where the rows were made into a widget of a subgraph's node the host queues that one's value, and shows nothing
   * there. So they are seen and changed here, inside.
   */
  followOutside() {
    const [outer] = this.#outside();
    if (!outer || JSON.stringify(outer.value) === JSON.stringify(this.rows)) return;
    const { rows, fault } = model.parse(outer.value);
    if (fault || JSON.stringify(rows) === JSON.stringify(this.rows)) return;
    this.rows = rows;
    this.fault = "";
    this.tell();
  }

  #outside() {
    return promoted(/** @type {any} */ (this.node), this.widget?.name ?? "");
  }

  /** @param {() => void} listener called after each change */
  listen(listener) {
    this.#listeners.add(listener);
  }

  tell() {
    for (const listener of this.#listeners) listener();
  }
}
