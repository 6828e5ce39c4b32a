// @ts-check
/** The editor of a row's block weights: bars, presets and text, which all say the same. */

import { h } from "../dom.mjs";
import { undoable } from "../host.mjs";
import { library } from "../picker/library.mjs";
import { blocks as askBlocks, parseBlocks } from "../server.mjs";
import { Bars } from "./bars.mjs";
import { readBlocks, writeBlocks } from "./blocks_text.mjs";
import * as model from "./model.mjs";
import { openPopover, place } from "./popover.mjs";

/**
 * @typedef {import("./view.mjs").RowsView} RowsView
 * @typedef {import("../server.mjs").Blocks} Blocks
 */

const PAUSE = 250;

/** @type {Map<string, Promise<Blocks>>} they do not change while the page is open */
const families = new Map();

/** @param {string} architecture */
function familyOf(architecture) {
  const asked = families.get(architecture) ?? askBlocks(architecture);
  families.set(architecture, asked);
  asked.catch(() => families.delete(architecture));
  return asked;
}

/**
 * @param {RowsView} view
 * @param {number} index
 * @param {HTMLElement} anchor
 */
export function openBlocks(view, index, anchor) {
  const row = view.stack.rows[index];
  if (row) new BlocksEditor(view, index, anchor, row);
}

class BlocksEditor {
  /** @type {Blocks | null} */
  family = null;
  /** @type {Bars | null} */
  bars = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  /** @type {(() => void) | undefined} */
  unsubscribe;

  /**
   * @param {RowsView} view
   * @param {number} index
   * @param {HTMLElement} anchor
   * @param {import("../server.mjs").Row} row
   */
  constructor(view, index, anchor, row) {
    this.view = view;
    this.index = index;
    this.lora = row.lora;
    this.anchor = anchor;
    const { stem } = model.nameParts(row.lora);
    this.pointed = h("span", { class: "loom-muted loom-rows-pointed" });
    this.title = h("span", { class: "loom-muted" });
    this.presets = h("select", {
      class: "loom-input",
      "aria-label": "Preset",
      on: { change: () => void this.preset() },
    });
    this.space = h("div", { class: "loom-rows-space" });
    this.text = h("textarea", {
      class: "loom-input",
      rows: 2,
      spellcheck: "false",
      "aria-label": "Block weights as text",
      placeholder: "in04=0.5, mid=0, or a vector: 1,0,0,1…",
      on: { input: () => this.typed(), change: () => undoable() },
    });
    this.text.value = row.blocks;
    this.fault = h("p", { class: "loom-error-text", role: "alert", hidden: true });
    const reset = h(
      "button",
      { type: "button", class: "loom-button loom-bordered", on: { click: () => this.reset() } },
      "Reset",
    );
    const content = h(
      "div",
      { class: "loom-rows-editor" },
      h("div", { class: "loom-rows-editorhead" }, h("strong", { class: "loom-cut" }, stem), this.title),
      h("div", { class: "loom-rows-tools2" }, this.presets, reset),
      this.space,
      this.pointed,
      this.text,
      this.fault,
    );
    const { element } = openPopover(anchor, content, {
      label: `Block weights of ${stem}`,
      closed: () => this.closed(),
    });
    this.element = element;
    void this.begin();
  }

  async begin() {
    await library.ready;
    const architecture = this.view.checks.family?.architecture || library.entry(this.lora)?.architecture || "";
    if (!architecture && library.entry(this.lora)?.state === "new") {
      // The server has not looked into the file yet; it tells when it has.
      this.space.replaceChildren(h("p", { class: "loom-muted", role: "status" }, "Reading the file…"));
      this.unsubscribe ??= library.subscribe(() => void this.begin());
      return;
    }
    this.unsubscribe?.();
    if (!architecture) {
      this.unknown("It is not known which family this LoRA is for, so its blocks have no bars. Text is taken as it is.");
      return;
    }
    try {
      this.family = await familyOf(architecture);
    } catch (error) {
      this.unknown(error instanceof Error ? error.message : String(error));
      return;
    }
    const { blocks, presets, title } = this.family;
    this.title.textContent = `${title}, ${blocks.length} blocks`;
    this.presets.append(
      h("option", { value: "" }, "Presets"),
      ...presets.map((one, number) => h("option", { value: number }, one.name)),
    );
    this.bars = new Bars(blocks, {
      changed: (factors) => {
        this.show(writeBlocks(factors, blocks));
        this.write(this.text.value);
      },
      done: () => undoable(),
      pointed: (text) => {
        this.pointed.textContent = text;
      },
    });
    this.pointed.textContent = "Drag over the bars; with Shift all of a kind";
    this.space.replaceChildren(this.bars.element);
    place(this.element, this.anchor);
    await this.read(false);
    /** @type {HTMLElement} */ (this.bars.element.querySelector("[tabindex='0']"))?.focus();
  }

  /** @param {string} why */
  unknown(why) {
    this.presets.hidden = true;
    this.space.replaceChildren(h("p", { class: "loom-muted" }, why));
    place(this.element, this.anchor);
    this.text.focus();
  }

  /** The text is this now, and it is right. */
  show(/** @type {string} */ text) {
    this.text.value = text;
    this.say("");
    this.presets.value = "";
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.read(true), PAUSE);
  }

  /**
   * What the text says, as bars.
   *
   * @param {boolean} keep whether the row gets it
   */
  async read(keep) {
    const { family, bars } = this;
    const text = this.text.value.trim();
    if (!family || !bars) {
      if (keep) this.write(text);
      return;
    }
    try {
      const local = readBlocks(text, family.blocks);
      const { factors, fault } = local ? { factors: local, fault: "" } : await parseBlocks(family.architecture, text);
      if (this.text.value.trim() !== text) return; // typed on
      this.say(fault);
      if (fault) return;
      bars.show(factors);
      // Another form (a vector) becomes ours: it says which blocks it means.
      if (keep) this.write(writeBlocks(factors, family.blocks));
    } catch (error) {
      this.say(error instanceof Error ? error.message : String(error));
    }
  }

  async preset() {
    const chosen = this.family?.presets[Number(this.presets.value)];
    if (!chosen || !this.presets.value) return;
    const { value } = this.presets;
    this.text.value = chosen.text;
    await this.read(true);
    if (this.family) this.text.value = this.view.stack.rows[this.index]?.blocks ?? "";
    this.presets.value = value;
    undoable();
  }

  reset() {
    this.show("");
    this.bars?.show({});
    this.write("");
    undoable();
  }

  /** @param {string} text */
  write(text) {
    const { stack } = this.view;
    if (stack.rows[this.index]?.lora !== this.lora || stack.rows[this.index]?.blocks === text) return;
    stack.set(model.replace(stack.rows, this.index, { blocks: text }));
  }

  /** @param {string} fault */
  say(fault) {
    this.fault.hidden = !fault;
    this.fault.textContent = fault;
    this.text.toggleAttribute("aria-invalid", Boolean(fault));
  }

  closed() {
    this.unsubscribe?.();
    clearTimeout(this.timer);
    undoable();
  }
}
