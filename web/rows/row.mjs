// @ts-check
/** One row: its controls, made once and shown anew at each change. */

import { h, icon, set } from "../dom.mjs";
import * as model from "./model.mjs";
import { StrengthField } from "./strength.mjs";

/** @typedef {import("./view.mjs").RowsView} RowsView */

export class RowView {
  /**
   * @param {RowsView} view
   * @param {number} index
   */
  constructor(view, index) {
    this.view = view;
    this.index = index;
    const { actions } = view;
    this.grip = control("grip", "loom-rows-grip", icon("grip"));
    this.toggle = control("toggle", "loom-rows-toggle", h("span", { class: "loom-rows-knob" }));
    set(this.toggle, { role: "switch", on: { click: () => actions.toggle(index) } });
    this.folder = h("span", { class: "loom-rows-folder loom-muted" });
    this.stem = h("span");
    const path = h("bdi", { dir: "ltr" }, this.folder, this.stem);
    this.name = control("name", "loom-rows-name", h("span", { class: "loom-rows-path" }, path));
    set(this.name, { "aria-haspopup": "dialog", on: { click: () => void actions.choose(index, this.name) } });
    this.chip = control("chip", "loom-rows-chip");
    set(this.chip, { on: { click: () => actions.chip(index) } });
    this.model = new StrengthField(view, index, "model");
    this.clip = new StrengthField(view, index, "clip");
    this.blocks = control("blocks", "loom-button loom-icon-only loom-rows-blocks", icon("bars"));
    set(this.blocks, { "aria-haspopup": "dialog", on: { click: () => void actions.openBlocks(index, this.blocks) } });
    this.info = control("info", "loom-button loom-icon-only loom-rows-info", icon("info"));
    set(this.info, { "aria-haspopup": "dialog", on: { click: () => void actions.about(index) } });
    this.more = control("more", "loom-button loom-icon-only loom-rows-more", icon("more"));
    set(this.more, { "aria-haspopup": "menu", on: { click: () => actions.openRowMenu(index, this.more) } });
    this.element = h(
      "li",
      { class: "loom-rows-row", on: { contextmenu: (/** @type {MouseEvent} */ event) => this.#menu(event) } },
      this.grip,
      this.toggle,
      this.name,
      this.chip,
      h("span", { class: "loom-rows-strengths" }, this.model.element, this.clip.element),
      h("span", { class: "loom-rows-tools" }, this.blocks, this.info, this.more),
    );
  }

  /** @param {MouseEvent} event */
  #menu(event) {
    if (event.target instanceof HTMLInputElement) return; // a text field has the browser's
    event.preventDefault();
    event.stopPropagation();
    this.view.actions.openRowMenu(this.index, new DOMRect(event.clientX, event.clientY, 0, 0));
  }

  show() {
    const { stack } = this.view;
    const row = stack.rows[this.index];
    if (!row) return;
    const { folder, stem } = model.nameParts(row.lora);
    const called = stem || "no LoRA";
    const both = model.showsBoth(row, stack.split);
    this.element.toggleAttribute("data-off", !row.on);
    this.element.toggleAttribute("data-both", both);
    this.folder.textContent = folder;
    this.stem.textContent = stem || "Choose a LoRA";
    set(this.name, { "aria-label": `${called}: choose another LoRA`, title: row.lora || "Choose a LoRA" });
    this.name.toggleAttribute("data-none", !row.lora);
    set(this.grip, {
      "aria-label": `Move ${called}, ${this.index + 1} of ${stack.rows.length}`,
      title: "Drag, or Alt and arrow keys",
      "aria-pressed": this.view.lifted === this.index ? "true" : false,
    });
    set(this.toggle, { "aria-checked": String(row.on), "aria-label": `${called} on` });
    this.model.show(row.model, both ? `${called}: strength of the model` : `${called}: strength`);
    this.clip.show(row.clip, `${called}: strength of CLIP`);
    this.clip.element.hidden = !both;
    set(this.blocks, {
      "aria-label": `${called}: block weights${row.blocks ? ", set" : ""}`,
      title: row.blocks ? `Block weights: ${row.blocks}` : "Block weights",
      "data-set": Boolean(row.blocks),
    });
    set(this.info, { "aria-label": `About ${called}`, title: "About this LoRA", disabled: !row.lora });
    set(this.more, { "aria-label": `More for ${called}`, title: "More" });
  }

  /** @param {import("./chip.mjs").Chip} chip */
  showChip(chip) {
    const { chip: element } = this;
    const { stem } = model.nameParts(this.view.stack.rows[this.index]?.lora ?? "");
    // Elements stay when rows move: two rows may have chips alike, but each says whose it is.
    const said = JSON.stringify([stem, chip]);
    if (this.#said === said) return;
    this.#said = said;
    this.#shown = chip;
    set(element, { "data-tone": chip.tone, title: chip.title, hidden: chip.tone === "none" || !chip.title });
    // The last line says most: why it does not fit, or with what it conflicts.
    const last = chip.tone === "good" || chip.tone === "quiet" ? chip.facts.join(", ") : chip.title.split("\n").at(-1);
    set(element, { "aria-label": `${stem}: ${chip.count}. ${last ?? ""}` });
    const sign = chip.tone === "warning" || chip.tone === "bad" ? icon("warning") : null;
    element.replaceChildren(
      ...[sign, h("span", { class: "loom-rows-matched" }, chip.count)].filter((one) => one !== null),
      ...chip.facts.map((fact) => h("span", { class: "loom-rows-fact" }, fact)),
    );
    this.element.toggleAttribute("data-bad", chip.tone === "bad");
  }

  #said = "";
  /** @type {import("./chip.mjs").Chip | null} */
  #shown = null;

  /** @returns {import("./chip.mjs").Chip | null} */
  get shownChip() {
    return this.#shown;
  }

  /** The controls that can have the focus, from left to right. */
  get controls() {
    const all = [this.grip, this.toggle, this.name, this.chip, this.model.element, this.clip.element];
    return [...all, this.blocks, this.info, this.more].filter((one) => one.offsetParent !== null);
  }

  /** @param {boolean} yes whether Tab goes to this row */
  reachable(yes) {
    for (const one of this.element.querySelectorAll("[data-control]")) {
      /** @type {HTMLElement} */ (one).tabIndex = yes ? 0 : -1;
    }
  }

  /** @param {string} name of a control; the row's name where it is not seen */
  focus(name) {
    const wanted = this.controls.find((one) => one.dataset["control"] === name) ?? this.name;
    wanted.focus();
  }
}

/**
 * @param {string} name
 * @param {string} kind
 * @param {...import("../dom.mjs").Child} children
 */
function control(name, kind, ...children) {
  return h("button", { type: "button", class: kind, dataset: { control: name } }, ...children);
}
