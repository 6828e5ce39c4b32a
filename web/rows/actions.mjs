// @ts-check
/** What the controls of the rows do. */

import { library } from "../picker/library.mjs";
import { openMenu } from "./menu.mjs";
import * as model from "./model.mjs";

/**
 * @typedef {import("./view.mjs").RowsView} RowsView
 * @typedef {import("../server.mjs").Entry} Entry
 */

export class RowsActions {
  /** @param {RowsView} view */
  constructor(view) {
    this.view = view;
    this.stack = view.stack;
  }

  toggleAll() {
    this.stack.change(model.toggleAll(this.stack.rows));
  }

  /** @param {number} index */
  toggle(index) {
    this.stack.change(model.toggle(this.stack.rows, index));
  }

  /**
   * @param {number} from
   * @param {number} to
   * @param {string} control that has the focus afterwards
   */
  move(from, to, control) {
    const { rows } = this.stack;
    const place = Math.max(0, Math.min(to, rows.length - 1));
    const lifted = this.view.lifted === from;
    if (place !== from) this.stack.change(model.move(rows, from, place));
    if (lifted) this.view.lift(place, this.view.liftedFrom);
    this.view.focus(place, control);
    this.view.say(`${this.#called(place)}, ${place + 1} of ${rows.length}`);
  }

  /**
   * @param {number} index
   * @param {string} [control] that has the focus afterwards
   */
  remove(index, control = "name") {
    const called = this.#called(index);
    this.stack.change(model.remove(this.stack.rows, index));
    this.view.focus(index, control);
    this.view.say(`${called} removed`);
  }

  /** @param {number} index */
  duplicate(index) {
    this.stack.change(model.duplicate(this.stack.rows, index));
    this.view.focus(index + 1, "name");
  }

  /** @param {HTMLElement} anchor */
  async add(anchor) {
    const chosen = await this.#pick({ anchor, multiple: true });
    if (!chosen?.length) return;
    this.stack.change(model.add(this.stack.rows, chosen.map(fresh)));
    this.view.focus(this.stack.rows.length - 1, "model");
  }

  /**
   * Another LoRA for a row, which keeps its strengths.
   *
   * @param {number} index
   * @param {HTMLElement} anchor
   */
  async choose(index, anchor) {
    const row = this.stack.rows[index];
    const chosen = (await this.#pick({ anchor, selected: row?.lora ?? "" }))?.[0];
    if (!chosen || this.stack.rows[index] !== row) return;
    const { lora, hash } = fresh(chosen);
    this.stack.change(model.replace(this.stack.rows, index, { lora, hash }));
    this.view.focus(index, "name");
  }

  /**
   * @param {{ anchor: HTMLElement, multiple?: boolean, selected?: string }} options
   * @returns {Promise<Entry[] | null>}
   */
  async #pick(options) {
    const { openPicker } = await import("../picker/picker.mjs");
    return openPicker(options);
  }

  /** @param {number} index */
  async about(index) {
    // @ts-ignore not there yet
    const { openAbout } = await import("../about/about.mjs");
    openAbout(this.stack.rows[index]?.lora ?? "", { node: this.stack.node });
  }

  openBlocks() {}

  paste() {}

  /** @param {HTMLElement} anchor */
  openMenu(anchor) {
    const { stack } = this;
    const off = stack.rows.filter((one) => !one.on).length;
    openMenu(anchor, "Rows", [
      { label: "Remove rows that are off", icon: "bin", disabled: !off, run: () => stack.change(model.removeOff(stack.rows)) },
    ]);
  }

  /**
   * @param {number} index
   * @param {HTMLElement | DOMRect} anchor
   */
  openRowMenu(index, anchor) {
    const row = this.stack.rows[index];
    if (!row) return;
    const last = this.stack.rows.length - 1;
    openMenu(anchor, `More for ${this.#called(index)}`, [
      { label: row.on ? "Switch off" : "Switch on", run: () => this.toggle(index) },
      { label: "Duplicate", icon: "copy", run: () => this.duplicate(index) },
      { label: "Move up", icon: "up", disabled: index === 0, run: () => this.move(index, index - 1, "name") },
      { label: "Move down", icon: "down", disabled: index === last, run: () => this.move(index, index + 1, "name") },
      { label: "Remove", icon: "bin", run: () => this.remove(index) },
    ]);
  }

  /** @param {number} index */
  #called(index) {
    return model.nameParts(this.stack.rows[index]?.lora ?? "").stem || "no LoRA";
  }
}

/**
 * A row for a LoRA that was chosen.
 *
 * @param {Entry} entry
 */
const fresh = (entry) =>
  model.row({ lora: entry.name, model: entry.strength ?? 1, hash: entry.autov3 ?? library.entry(entry.name)?.autov3 ?? "" });
