// @ts-check
/**
 * A strength: drag sideways to scrub, click to type, arrows and wheel when it has the focus, double click for what is
 * recommended.
 */

import { h, set } from "../dom.mjs";
import { undoable } from "../host.mjs";
import * as model from "./model.mjs";

/** Pixels of the screen a step. */
const PIXELS = 4;
/** How far the pointer goes before a press is a drag. */
const SLACK = 3;
/** Milliseconds between the presses of a double click. */
const TWICE = 450;

/** Size of a step: finer with shift, coarser with control. */
const size = (/** @type {MouseEvent | KeyboardEvent} */ event) =>
  event.shiftKey ? 0.01 : event.ctrlKey || event.metaKey ? 0.25 : model.STEP;

export class StrengthField {
  #value = 0;
  #label = "";
  /** @type {((keep: boolean) => void) | null} ends typing */
  #close = null;

  /**
   * @param {import("./view.mjs").RowsView} view
   * @param {number} index
   * @param {"model" | "clip"} which
   */
  constructor(view, index, which) {
    this.view = view;
    this.index = index;
    this.which = which;
    this.text = h("span", { class: "loom-rows-number" });
    this.element = h(
      "span",
      {
        class: `loom-rows-strength loom-rows-${which}`,
        role: "spinbutton",
        tabindex: -1,
        dataset: { control: which },
        "aria-valuemin": model.LOWEST,
        "aria-valuemax": model.HIGHEST,
        title: "Drag, click to type, double click to reset",
        on: {
          pointerdown: (/** @type {PointerEvent} */ event) => this.#press(event),
          keydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
        },
      },
      this.text,
    );
    // Not passive: the page must not scroll and the canvas not zoom.
    this.element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /**
   * @param {number} value
   * @param {string} label for screen readers
   */
  show(value, label) {
    this.#value = value;
    this.#label = label;
    this.text.textContent = model.showStrength(value);
    set(this.element, { "aria-label": label, "aria-valuenow": value, "aria-valuetext": model.showStrength(value) });
  }

  /** @param {number} value */
  #set(value) {
    const { stack } = this.view;
    const row = stack.rows[this.index];
    if (!row) return;
    const both = model.showsBoth(row, stack.split);
    stack.set(model.setStrength(stack.rows, this.index, this.which, value, both));
  }

  /** @param {PointerEvent} event */
  #press(event) {
    if (event.button !== 0 || this.#close) return;
    event.preventDefault(); // no text is selected
    this.element.focus();
    const { element } = this;
    element.setPointerCapture(event.pointerId);
    let last = event.clientX;
    let moved = false;
    let value = this.#value;
    const before = this.view.stack.rows;
    const both = model.showsBoth(before[this.index] ?? model.row({}), this.view.stack.split);
    const move = (/** @type {PointerEvent} */ to) => {
      const steps = Math.trunc((to.clientX - last) / (moved ? PIXELS : SLACK));
      if (!steps) return;
      moved = true;
      element.toggleAttribute("data-scrub", true);
      last = to.clientX;
      value = model.stepped(value, steps, size(to));
      const { stack } = this.view;
      stack.set(model.setStrength(stack.rows, this.index, this.which, value, both));
    };
    const end = (/** @type {Event} */ last_event) => {
      element.removeEventListener("pointermove", move);
      element.removeEventListener("pointerup", end);
      element.removeEventListener("pointercancel", end);
      element.toggleAttribute("data-scrub", false);
      if (moved) undoable();
      else if (last_event.type === "pointerup") this.edit();
    };
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (this.#close || event.altKey) return;
    const up = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[event.key];
    if (up) {
      this.#set(model.stepped(this.#value, up, size(event)));
      undoable();
    } else if (event.key === "Enter" || event.key === "F2") this.edit();
    else if (/^[\d.,+-]$/.test(event.key) && !event.ctrlKey && !event.metaKey) this.edit(event.key);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    if (event.ctrlKey || this.#close || document.activeElement !== this.element || !event.deltaY) return;
    event.preventDefault();
    event.stopPropagation();
    this.#set(model.stepped(this.#value, event.deltaY < 0 ? 1 : -1, event.shiftKey ? 0.01 : model.STEP));
    undoable();
  }

  /** The second press of a double click: the first one opened the field. */
  #reset() {
    this.#close?.(false);
    this.element.focus();
    this.#set(this.view.recommended(this.index));
    undoable();
  }

  /**
   * Type a strength.
   *
   * @param {string} [typed] what the field holds at first; the strength, selected, where nothing is
   */
  edit(typed) {
    if (this.#close) return;
    const input = h("input", {
      class: "loom-rows-typing",
      type: "text",
      inputmode: "decimal",
      "aria-label": this.#label,
      spellcheck: "false",
    });
    input.value = typed ?? String(this.#value);
    const opened = performance.now();
    const close = (/** @type {boolean} */ keep) => {
      if (this.#close !== close) return;
      this.#close = null;
      const value = keep ? model.readStrength(input.value) : null;
      const focused = document.activeElement === input;
      input.remove();
      if (focused) this.element.focus();
      if (value !== null && value !== this.#value) {
        this.#set(value);
        undoable();
      }
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") close(event.key === "Enter");
      event.stopPropagation();
    });
    input.addEventListener("input", () =>
      input.toggleAttribute("data-wrong", Boolean(input.value.trim()) && model.readStrength(input.value) === null),
    );
    input.addEventListener("blur", () => close(true));
    input.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      if (performance.now() - opened > TWICE) return;
      event.preventDefault();
      this.#reset();
    });
    this.#close = close;
    this.element.append(input);
    input.focus();
    if (typed === undefined) input.select();
  }
}
