// @ts-check
/** What the controls of the rows do. */

import { toast } from "../host.mjs";
import { library } from "../picker/library.mjs";
import { hash as hashOf } from "../server.mjs";
import { askForText, readClipboard, readPasted, writeClipboard } from "./clipboard.mjs";
import { openMenu } from "./menu.mjs";
import * as model from "./model.mjs";
import { openSets } from "./sets.mjs";

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
    for (const { name } of chosen) void this.#hash(name);
  }

  /**
   * The hash of a file that the index has not read yet. It comes after the row, and is no step of the history.
   *
   * @param {string} name
   */
  async #hash(name) {
    if (library.entry(name)?.autov3) return;
    const { autov3 } = await hashOf(name).catch(() => ({ autov3: null }));
    const { rows } = this.stack;
    if (!autov3 || !rows.some((row) => row.lora === name && !row.hash)) return;
    this.stack.set(rows.map((row) => (row.lora === name && !row.hash ? { ...row, hash: autov3 } : row)));
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
    void this.#hash(lora);
  }

  /**
   * @param {{ anchor: HTMLElement, multiple?: boolean, selected?: string }} options
   * @returns {Promise<Entry[] | null>}
   */
  async #pick(options) {
    const { openPicker } = await import("../picker/picker.mjs");
    return openPicker({ ...options, model: this.view.checks.family });
  }

  /** @param {number} index */
  async about(index) {
    const { openAbout } = await import("../about/about.mjs");
    const row = this.stack.rows[index];
    if (!row?.lora) return;
    openAbout(row.lora, {
      node: this.stack.node,
      onStrength: (strength) => {
        const { rows, split } = this.stack;
        const at = rows.findIndex((one) => one.lora === row.lora);
        if (rows[at]) this.stack.change(model.setStrength(rows, at, "model", strength, model.showsBoth(rows[at], split)));
      },
    });
  }

  /**
   * The chip: take the name that a file has now, or show what is known of the file.
   *
   * @param {number} index
   */
  chip(index) {
    const rename = this.view.row(index)?.shownChip?.rename;
    if (rename) this.stack.change(model.replace(this.stack.rows, index, { lora: rename }));
    else void this.about(index);
  }

  /**
   * @param {number} index
   * @param {HTMLElement} anchor
   */
  async openBlocks(index, anchor) {
    const { openBlocks } = await import("./blocks.mjs");
    openBlocks(this.view, index, anchor);
  }

  /** @param {HTMLElement} anchor */
  async paste(anchor) {
    const text = await readClipboard();
    if (text === null) askForText(anchor, (typed) => void this.pasteText(typed));
    else await this.pasteText(text);
  }

  /**
   * Rows that somebody copied, here or in another program.
   *
   * @param {string} text
   * @param {number} [at] index of the first
   */
  async pasteText(text, at = this.stack.rows.length) {
    const { rows: found, faults } = await readPasted(text);
    // So that a file that is renamed later is known again.
    const rows = found.map((row) => (row.hash ? row : { ...row, hash: library.entry(row.lora)?.autov3 ?? "" }));
    if (rows.length) {
      this.stack.change(model.add(this.stack.rows, rows, at));
      this.view.focus(at + rows.length - 1, "name");
      this.view.say(`${rows.length} ${rows.length === 1 ? "row" : "rows"} pasted`);
    }
    if (faults.length) {
      const summary = rows.length ? "Pasted, but look at this" : "Nothing to paste";
      toast(rows.length ? "warn" : "error", summary, faults.slice(0, 5).join("\n"));
    }
  }

  /** @param {readonly import("./model.mjs").Row[]} rows */
  async copy(rows) {
    const done = await writeClipboard(model.toText(rows));
    const what = `${rows.length} ${rows.length === 1 ? "row" : "rows"}`;
    if (done) this.view.say(`${what} copied`);
    else toast("error", `${what} could not be copied`, "The browser does not let this page write to the clipboard.");
  }

  /** @param {HTMLElement} anchor */
  openMenu(anchor) {
    const { stack, view } = this;
    const { rows } = stack;
    openMenu(anchor, "Rows", [
      { label: "Copy all rows", icon: "copy", disabled: !rows.length, run: () => void this.copy(rows) },
      { label: "Paste rows", icon: "paste", run: () => void this.paste(anchor) },
      "line",
      { label: "Saved sets…", icon: "save", run: () => void openSets(view, anchor) },
      "line",
      {
        label: "Remove rows that are off",
        icon: "bin",
        disabled: rows.every((one) => one.on),
        run: () => stack.change(model.removeOff(rows)),
      },
      { label: "Remove all rows", icon: "bin", disabled: !rows.length, run: () => this.#clear() },
    ]);
  }

  #clear() {
    this.stack.change([]);
    this.view.focus(0, "name");
  }

  /**
   * @param {number} index
   * @param {HTMLElement | DOMRect} anchor
   */
  openRowMenu(index, anchor) {
    const { stack, view } = this;
    const row = stack.rows[index];
    if (!row) return;
    const last = stack.rows.length - 1;
    const { name } = view.row(index) ?? {};
    const at = anchor instanceof HTMLElement ? anchor : (name ?? view.element);
    openMenu(anchor, `More for ${this.#called(index)}`, [
      { label: row.on ? "Switch off" : "Switch on", icon: row.on ? "stop" : "check", run: () => this.toggle(index) },
      { label: "Choose another LoRA…", icon: "search", run: () => void this.choose(index, at) },
      { label: "Block weights…", icon: "bars", run: () => void this.openBlocks(index, at) },
      { label: "About this LoRA…", icon: "info", disabled: !row.lora, run: () => void this.about(index) },
      "line",
      { label: "Copy", icon: "copy", keys: "Ctrl+C", run: () => void this.copy([row]) },
      { label: "Duplicate", icon: "add", run: () => this.duplicate(index) },
      { label: "Move up", icon: "up", keys: "Alt+↑", disabled: !index, run: () => this.move(index, index - 1, "name") },
      {
        label: "Move down",
        icon: "down",
        keys: "Alt+↓",
        disabled: index === last,
        run: () => this.move(index, index + 1, "name"),
      },
      "line",
      { label: "Remove", icon: "bin", keys: "Del", run: () => this.remove(index) },
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
