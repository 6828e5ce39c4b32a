// @ts-check
/** What the widget shows: the header, the rows or an invitation, and what a screen reader is told. */

import { h, icon, set } from "../dom.mjs";
import { onClipboard } from "./clipboard.mjs";
import { library } from "../picker/library.mjs";
import { dragRows } from "./drag.mjs";
import { onKeys } from "./keys.mjs";
import * as model from "./model.mjs";
import { RowView } from "./row.mjs";
import { RowsActions } from "./actions.mjs";
import { Checks } from "./checks.mjs";

/** @typedef {import("./stack.mjs").Stack} Stack */

export class RowsView {
  /** @type {RowView[]} */
  #rows = [];

  /** @param {Stack} stack */
  constructor(stack) {
    this.stack = stack;
    this.checks = new Checks(stack, () => this.showChips());
    this.actions = new RowsActions(this);
    const { actions } = this;
    this.all = h("input", {
      type: "checkbox",
      class: "loom-rows-all",
      "aria-label": "All LoRAs on",
      title: "All on or off",
      on: { change: () => actions.toggleAll() },
    });
    this.count = h("span", { class: "loom-rows-count loom-muted loom-cut" });
    this.split = h(
      "button",
      {
        class: "loom-button loom-icon-only",
        type: "button",
        "aria-label": "Separate strengths for model and CLIP",
        on: { click: () => stack.toggleSplit() },
      },
      icon("link"),
    );
    this.menu = h(
      "button",
      {
        class: "loom-button loom-icon-only",
        type: "button",
        "aria-label": "More",
        "aria-haspopup": "menu",
        title: "Sets, copy and paste",
        on: { click: () => actions.openMenu(this.menu) },
      },
      icon("more"),
    );
    this.addButton = h(
      "button",
      {
        class: "loom-button loom-bordered loom-rows-add",
        "aria-label": "Add LoRA",
        title: "Add LoRA",
        type: "button",
        "aria-haspopup": "dialog",
        on: { click: () => void actions.add(this.addButton) },
      },
      icon("add"),
      h("span", {}, "Add LoRA"),
    );
    // A press between the rows gives the list the focus: the host leaves the wheel to what has it.
    this.list = h("ul", { class: "loom-rows-list", "aria-label": "LoRAs", tabindex: -1 });
    this.empty = this.#invitation();
    this.fault = h("p", { class: "loom-rows-fault loom-error-text", role: "alert", hidden: true });
    this.live = h("div", { class: "loom-unseen", "aria-live": "assertive", role: "status" });
    this.body = h(
      "div",
      { class: "loom-rows-body" },
      h("div", { class: "loom-rows-head" }, this.all, this.count, this.split, this.menu, this.addButton),
      this.fault,
      this.list,
      this.empty,
      this.live,
    );
    this.element = h(
      "div",
      { class: "loom loom-rows", role: "group", "aria-label": "LoRA rows", "data-capture-wheel": "true" },
      this.body,
    );
    onKeys(this);
    onClipboard(this);
    dragRows(this);
    stack.listen(() => this.show());
    this.show();
  }

  #invitation() {
    const { actions } = this;
    const add = h(
      "button",
      {
        class: "loom-button loom-primary",
        type: "button",
        "aria-haspopup": "dialog",
        on: { click: () => void actions.add(add) },
      },
      icon("add"),
      "Add LoRA",
    );
    const paste = h(
      "button",
      { class: "loom-button loom-bordered", type: "button", on: { click: () => void actions.paste(paste) } },
      icon("paste"),
      "Paste rows",
    );
    return h(
      "div",
      { class: "loom-rows-empty" },
      h("p", { class: "loom-muted" }, "No LoRAs yet"),
      h("div", { class: "loom-rows-choices" }, add, paste),
    );
  }

  /** All of it anew from the list; elements stay, so that focus does too. */
  show() {
    const { rows, split, fault } = this.stack;
    while (this.#rows.length > rows.length) this.#rows.pop()?.element.remove();
    while (this.#rows.length < rows.length) {
      const view = new RowView(this, this.#rows.length);
      this.#rows.push(view);
      this.list.append(view.element);
    }
    for (const view of this.#rows) view.show();
    this.showChips();
    const which = model.whichOn(rows);
    const on = rows.filter((one) => one.on).length;
    this.all.checked = which === "all";
    this.all.indeterminate = which === "some";
    this.all.disabled = rows.length === 0;
    this.count.textContent = rows.length ? `${on} of ${rows.length} on` : "";
    set(this.split, {
      "aria-pressed": String(split),
      title: split ? "Strengths of model and CLIP are separate" : "Strengths of model and CLIP are linked",
    });
    this.split.replaceChildren(icon(split ? "split" : "link"));
    this.element.toggleAttribute("data-empty", rows.length === 0);
    this.fault.hidden = !fault;
    this.fault.textContent = fault && `${fault} The first change here replaces it.`;
    this.#reachable();
  }

  showChips() {
    this.checks.chips().forEach((chip, index) => this.#rows[index]?.showChip(chip));
  }

  /** @param {number} index */
  row(index) {
    return this.#rows[index];
  }

  /** The index of the row that an event or an element is in, or -1. */
  indexOf(/** @type {EventTarget | null} */ target) {
    return this.#rows.findIndex((view) => target instanceof Node && view.element.contains(target));
  }

  /** Tab goes through the controls of one row, arrows go to the others: forty rows are no three hundred stops. */
  #reachable(current = this.indexOf(document.activeElement)) {
    const reached = current >= 0 ? current : Math.min(this.#reached, this.#rows.length - 1);
    this.#reached = Math.max(0, reached);
    this.#rows.forEach((view, index) => view.reachable(index === this.#reached));
  }

  #reached = 0;

  /** The focus is in another row now. */
  entered(/** @type {number} */ index) {
    if (index !== this.#reached) this.#reachable(index);
  }

  /**
   * Focus a control of a row, or the last row's where there is none; "Add LoRA" where there is no row.
   *
   * @param {number} index
   * @param {string} control
   */
  focus(index, control) {
    const view = this.#rows[Math.min(index, this.#rows.length - 1)];
    if (view) view.focus(control);
    else /** @type {HTMLElement} */ (this.empty.querySelector("button"))?.focus();
  }

  /** The row that the arrow keys move, -1 for none, and where it was before. */
  lifted = -1;
  liftedFrom = -1;

  /**
   * @param {number} index
   * @param {number} [from]
   */
  lift(index, from = index) {
    this.lifted = index;
    this.liftedFrom = from;
    this.show();
  }

  /** The strength that a double click sets: what the LoRA's author says, or 1. */
  recommended(/** @type {number} */ index) {
    return library.entry(this.stack.rows[index]?.lora ?? "")?.strength ?? 1;
  }

  /** Tell a screen reader. */
  say(/** @type {string} */ text) {
    this.live.textContent = text;
  }
}
