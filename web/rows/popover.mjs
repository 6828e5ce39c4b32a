// @ts-check
/** Something small that floats at an element: a menu, the editor of block weights. */

import { h } from "../dom.mjs";

const MARGIN = 8;

/**
 * Open content above the page. Escape, a press elsewhere and another popover close it; then the focus goes back.
 *
 * @param {HTMLElement | DOMRect} anchor
 * @param {Node} content
 * @param {{ class?: string, role?: string, label: string, closed?: () => void }} options
 */
export function openPopover(anchor, content, options) {
  closeOpen?.();
  const before = document.activeElement;
  const element = h(
    "div",
    {
      class: `loom loom-rows-popover ${options.class ?? ""}`,
      role: options.role ?? "dialog",
      "aria-label": options.label,
      tabindex: -1,
      popover: "manual",
    },
    content,
  );
  document.body.append(element);
  element.showPopover?.();
  place(element, anchor);

  const close = () => {
    if (closeOpen !== close) return;
    closeOpen = null;
    document.removeEventListener("pointerdown", outside, true);
    document.removeEventListener("keydown", escape, true);
    window.removeEventListener("resize", close);
    const inside = element.contains(document.activeElement) || document.activeElement === document.body;
    element.remove();
    if (inside && before instanceof HTMLElement) before.focus();
    options.closed?.();
  };
  const outside = (/** @type {PointerEvent} */ event) => {
    if (!(event.target instanceof Node && element.contains(event.target))) close();
  };
  // At the document: what had the focus may be gone.
  const escape = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    close();
  };
  closeOpen = close;
  document.addEventListener("pointerdown", outside, true);
  document.addEventListener("keydown", escape, true);
  window.addEventListener("resize", close);
  for (const type of ["keydown", "keyup", "wheel", "contextmenu"]) {
    element.addEventListener(type, (event) => event.stopPropagation());
  }
  return { element, close };
}

/** @type {(() => void) | null} */
let closeOpen = null;

/**
 * Below the anchor, or above it where there is more room; inside the window.
 *
 * @param {HTMLElement} element
 * @param {HTMLElement | DOMRect} anchor
 */
export function place(element, anchor) {
  const box = anchor instanceof HTMLElement ? anchor.getBoundingClientRect() : anchor;
  const { offsetWidth: width, offsetHeight: height } = element;
  const below = window.innerHeight - box.bottom - MARGIN;
  const top = below >= height || below >= box.top ? box.bottom + 4 : box.top - height - 4;
  element.style.left = `${inside(box.left, width, window.innerWidth)}px`;
  element.style.top = `${inside(top, height, window.innerHeight)}px`;
}

/**
 * @param {number} at
 * @param {number} size
 * @param {number} room
 */
const inside = (at, size, room) => Math.max(MARGIN, Math.min(at, room - size - MARGIN));
