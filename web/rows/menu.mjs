// @ts-check
/** A menu: a list of commands at an element, for mouse and keys. */

import { h, icon } from "../dom.mjs";
import { openPopover, place } from "./popover.mjs";

/**
 * @typedef {object} Command
 * @property {string} label
 * @property {keyof typeof import("../dom.mjs").ICONS} [icon]
 * @property {string} [keys] that do the same
 * @property {boolean} [disabled]
 * @property {() => void} run
 *
 * @typedef {Command | "line"} Item
 */

/**
 * @param {HTMLElement | DOMRect} anchor
 * @param {string} label
 * @param {Item[]} items
 */
export function openMenu(anchor, label, items) {
  const list = h("div", { class: "loom-rows-menu" });
  const { element, close } = openPopover(anchor, list, { role: "menu", label });
  for (const item of items) {
    if (item === "line") {
      list.append(h("div", { role: "separator" }));
      continue;
    }
    const run = () => {
      close();
      item.run();
    };
    list.append(
      h(
        "button",
        {
          type: "button",
          role: "menuitem",
          tabindex: -1,
          "aria-label": item.label,
          disabled: item.disabled,
          on: { click: run },
        },
        item.icon ? icon(item.icon) : h("span", { class: "loom-rows-noicon" }),
        h("span", { class: "loom-cut" }, item.label),
        item.keys && h("kbd", {}, item.keys),
      ),
    );
  }
  const buttons = () => /** @type {HTMLElement[]} */ ([...list.querySelectorAll("button:not([disabled])")]);
  element.addEventListener("keydown", (event) => {
    const all = buttons();
    const at = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Tab") close();
    if (to === undefined) return;
    all.at(to % all.length)?.focus();
    event.preventDefault();
  });
  place(element, anchor);
  buttons()[0]?.focus();
}
