// @ts-check
/** Bars of block weights: drag over them to draw, arrows to go and to change. */

import { h, set } from "../dom.mjs";
import { kindOf } from "./blocks_text.mjs";

/** @typedef {import("./blocks_text.mjs").Factors} Factors */

/** What the height of a bar stands for; factors beyond are kept and shown as full. */
const FULL = 2;
const STEP = 0.05;

const snapped = (/** @type {number} */ value, size = STEP) => Math.round(Math.round(value / size) * size * 1e3) / 1e3 || 0;

export class Bars {
  /** @type {Factors} */
  #factors = {};
  /** @type {HTMLElement[]} */
  #bars;

  /**
   * @param {readonly string[]} blocks in the model's order
   * @param {{ changed: (factors: Factors) => void, done: () => void, pointed: (text: string) => void }} tell while
   *   bars change, after it, and what is pointed at
   */
  constructor(blocks, tell) {
    this.blocks = blocks;
    this.tell = tell;
    this.#bars = blocks.map((block, index) =>
      h(
        "div",
        {
          class: "loom-rows-bar",
          role: "slider",
          "aria-orientation": "vertical",
          "aria-label": block,
          "aria-valuemin": 0,
          "aria-valuemax": FULL,
          tabindex: index ? -1 : 0,
          dataset: { block },
        },
        h("span", {}),
      ),
    );
    /** @type {Map<string, HTMLElement[]>} */
    const kinds = new Map();
    blocks.forEach((block, index) => {
      const bar = this.#bars[index];
      if (bar) kinds.set(kindOf(block), [...(kinds.get(kindOf(block)) ?? []), bar]);
    });
    this.element = h(
      "div",
      { class: "loom-rows-bars", role: "group", "aria-label": "Block weights" },
      [...kinds].map(([kind, bars]) =>
        h(
          "div",
          { class: "loom-rows-kind", style: { "--count": String(bars.length) } },
          h("div", { class: "loom-rows-columns" }, bars),
          h("div", { class: "loom-rows-kindname loom-muted", title: kind }, kind),
        ),
      ),
    );
    this.element.addEventListener("pointerdown", (event) => this.#draw(event));
    this.element.addEventListener("pointermove", (event) => this.#point(event));
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focusin", (event) => this.#said(this.#bars.indexOf(/** @type {any} */ (event.target))));
    this.show({});
  }

  /** @param {Factors} factors */
  show(factors) {
    this.#factors = factors;
    this.#bars.forEach((bar, index) => {
      const value = this.#value(index);
      set(bar, { "aria-valuenow": value, "data-plain": value === 1, "data-below": value < 0 });
      bar.style.setProperty("--part", String(Math.max(0, Math.min(1, Math.abs(value) / FULL))));
    });
  }

  /** @param {number} index */
  #value(index) {
    return this.#factors[this.blocks[index] ?? ""] ?? 1;
  }

  /**
   * @param {number} index
   * @param {number} value
   * @param {boolean} kind whether all blocks of its kind get it
   */
  #set(index, value, kind) {
    const block = this.blocks[index];
    if (block === undefined) return;
    const meant = kind ? this.blocks.filter((one) => kindOf(one) === kindOf(block)) : [block];
    this.show({ ...this.#factors, ...Object.fromEntries(meant.map((one) => [one, value])) });
    this.tell.changed(this.#factors);
    this.#said(index);
  }

  /** @param {number} index */
  #said(index) {
    const block = this.blocks[index];
    if (block !== undefined) this.tell.pointed(`${block}: ${this.#value(index)}`);
  }

  /** @param {PointerEvent} event */
  #draw(event) {
    if (event.button !== 0 || this.#under(event) < 0) return;
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    this.#bars[this.#under(event)]?.focus();
    const draw = (/** @type {PointerEvent} */ at) => {
      const index = this.#under(at);
      const box = this.#bars[index]?.getBoundingClientRect();
      if (!box) return;
      const part = Math.max(0, Math.min(1, (box.bottom - at.clientY) / box.height));
      const value = snapped(part * FULL);
      if (value !== this.#value(index) || at.shiftKey) this.#set(index, value, at.shiftKey);
    };
    const end = () => {
      this.element.removeEventListener("pointermove", draw);
      this.element.removeEventListener("pointerup", end);
      this.element.removeEventListener("pointercancel", end);
      this.tell.done();
    };
    draw(event);
    this.element.addEventListener("pointermove", draw);
    this.element.addEventListener("pointerup", end);
    this.element.addEventListener("pointercancel", end);
  }

  /** @param {PointerEvent} event */
  #point(event) {
    if (!event.buttons) this.#said(this.#under(event));
  }

  /** The bar whose column the pointer is in, whatever its height. */
  #under(/** @type {PointerEvent} */ event) {
    return this.#bars.findIndex((bar) => {
      const box = bar.getBoundingClientRect();
      return event.clientX >= box.left - 1 && event.clientX < box.right + 1;
    });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const index = this.#bars.indexOf(/** @type {any} */ (event.target));
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const size = event.shiftKey ? 0.01 : STEP;
    const value = this.#value(index);
    const next = { ArrowUp: value + size, ArrowDown: value - size, PageUp: value + 0.25, PageDown: value - 0.25 }[event.key];
    const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: this.#bars.length - 1 }[event.key];
    if (next !== undefined) this.#set(index, snapped(next, size), false);
    else if (event.key === "0" || event.key === "Delete") this.#set(index, 0, false);
    else if (event.key === "1") this.#set(index, 1, false);
    else if (to !== undefined) {
      const bar = this.#bars[Math.max(0, Math.min(to, this.#bars.length - 1))];
      for (const one of this.#bars) one.tabIndex = one === bar ? 0 : -1;
      bar?.focus();
    } else return;
    if (to === undefined) this.tell.done();
    event.preventDefault();
  }
}
