// @ts-check
/**
 * A listbox of any length: only the rows in sight, and a few around them, are elements. Focus stays where it is (in the
 * search field); the active row is told to screen readers by `aria-activedescendant`.
 *
 * @template T
 */

import { h } from "../dom.mjs";

const AROUND = 6;
let lists = 0;

/** @template T */
export class VirtualList {
  /** @type {readonly T[]} */
  items = [];
  /** Index of the active row, -1 without one. */
  active = -1;

  /** @type {Map<T, { row: HTMLElement, index: number }>} */
  #shown = new Map();
  #frame = 0;
  #id = `loom-list-${++lists}`;

  /**
   * @param {object} options
   * @param {string} options.label
   * @param {number} options.height of a row in pixels
   * @param {(item: T) => HTMLElement} options.row makes a row; it gets its role and place here
   * @param {(row: HTMLElement, item: T, active: boolean) => void} options.refresh sets what changes while it is shown
   * @param {() => void} options.moved another row is active
   */
  constructor({ label, height, row, refresh, moved }) {
    this.height = height;
    this.makeRow = row;
    this.refreshRow = refresh;
    this.moved = moved;
    this.space = h("div", { class: "loom-list-space", role: "presentation" });
    this.element = h(
      "div",
      { class: "loom-list", role: "listbox", "aria-label": label, id: this.#id, on: { scroll: () => this.#later() } },
      this.space,
    );
    this.resizes = new ResizeObserver(() => this.#later());
    this.resizes.observe(this.element);
  }

  /** Ends it. */
  close() {
    this.resizes.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  get id() {
    return this.#id;
  }

  /** The id of the active row's element, for `aria-activedescendant`. */
  get activeId() {
    return this.active < 0 ? null : `${this.#id}-${this.active}`;
  }

  /** @returns {T | undefined} */
  get activeItem() {
    return this.items[this.active];
  }

  /** How many rows fit. */
  get page() {
    return Math.max(1, Math.floor(this.element.clientHeight / this.height) - 1);
  }

  /**
   * Other items; what is in sight stays where it is.
   *
   * @param {readonly T[]} items
   * @param {number} active
   * @param {boolean} [fromTop] begins at the top instead
   */
  show(items, active, fromTop = false) {
    this.items = items;
    if (fromTop) this.element.scrollTop = 0;
    this.space.style.height = `${items.length * this.height}px`;
    this.active = Math.min(active, items.length - 1);
    this.update();
    this.moved();
  }

  /**
   * Makes a row active, the nearest there is, and brings it into sight.
   *
   * @param {number} index
   */
  move(index) {
    const next = Math.min(Math.max(index, 0), this.items.length - 1);
    const top = next * this.height;
    const { scrollTop, clientHeight } = this.element;
    if (next < 0) this.element.scrollTop = 0;
    else if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.element.scrollTop = top + this.height - clientHeight;
    if (next !== this.active) {
      this.active = next;
      this.update();
      this.moved();
    }
  }

  #later() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.update());
  }

  /** Draws what is in sight as it is now. */
  update() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - AROUND);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / this.height) + AROUND);
    const shown = this.#shown;
    const keep = new Map(shown);
    this.#shown = new Map();
    const items = this.items.slice(first, last);
    for (const item of items) keep.delete(item);
    for (const { row } of keep.values()) row.remove();
    /** @type {HTMLElement | null} */
    let before = null;
    for (const [place, item] of items.entries()) {
      const index = first + place;
      const row = shown.get(item)?.row ?? this.#made(item);
      this.#shown.set(item, { row, index });
      row.id = `${this.#id}-${index}`;
      row.style.top = `${index * this.height}px`;
      row.setAttribute("aria-posinset", String(index + 1));
      row.setAttribute("aria-setsize", String(this.items.length));
      this.refreshRow(row, item, index === this.active);
      // In the order that is seen, which is also the one that is read aloud.
      if (row.parentNode !== this.space || row.previousSibling !== before) {
        if (before) before.after(row);
        else this.space.prepend(row);
      }
      before = row;
    }
  }

  /** @param {T} item */
  #made(item) {
    const row = this.makeRow(item);
    row.setAttribute("role", "option");
    row.style.height = `${this.height}px`;
    return row;
  }

  /**
   * The item of a row's element or of something in it.
   *
   * @param {EventTarget | null} target
   * @returns {{ item: T, index: number } | null}
   */
  at(target) {
    for (const [item, { row, index }] of this.#shown) {
      if (target instanceof Node && row.contains(target)) return { item, index };
    }
    return null;
  }

  /** Forgets the rows' elements: they are to be made anew. */
  forget() {
    for (const { row } of this.#shown.values()) row.remove();
    this.#shown = new Map();
  }
}
