// @ts-check
/** The keys of the list, and which of them the host does not see. */

import * as model from "./model.mjs";

/** @typedef {import("./view.mjs").RowsView} RowsView */

/** With control or command: what we do ourselves with the rows. The rest (save, queue, undo, ...) is the host's. */
const OURS = new Set(["a", "c", "v", "x", "arrowup", "arrowdown", "arrowleft", "arrowright", "delete", "backspace"]);

/** Whether a key that was pressed in an element of ours stays there. */
export const staysHere = (/** @type {KeyboardEvent} */ event) =>
  !(event.ctrlKey || event.metaKey) || OURS.has(event.key.toLowerCase());

/** @param {RowsView} view */
export function onKeys(view) {
  view.element.addEventListener("keydown", (event) => {
    if (press(view, event)) event.preventDefault();
    if (staysHere(event)) event.stopPropagation();
  });
  view.element.addEventListener("keyup", (event) => {
    if (staysHere(event)) event.stopPropagation();
  });
  view.list.addEventListener("focusin", (event) => view.entered(view.indexOf(event.target)));
}

/**
 * @param {RowsView} view
 * @param {KeyboardEvent} event
 * @returns {boolean} whether it was for us
 */
function press(view, event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const index = view.indexOf(target);
  if (index < 0 || target instanceof HTMLInputElement) return false;
  const control = target.dataset["control"] ?? "name";
  const { rows } = view.stack;
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (step && (event.altKey || view.lifted === index)) {
    view.actions.move(index, index + step, control);
    return true;
  }
  if (event.altKey || event.ctrlKey || event.metaKey) return false;
  if (control === "grip" && lift(view, index, event.key)) return true;
  if (step) view.focus(Math.max(0, index + step), control);
  else if (event.key === "Home") view.focus(0, control);
  else if (event.key === "End") view.focus(rows.length - 1, control);
  else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const { controls = [] } = view.row(index) ?? {};
    controls[controls.indexOf(target) + (event.key === "ArrowLeft" ? -1 : 1)]?.focus();
  } else if (event.key === "Delete" || event.key === "Backspace") view.actions.remove(index, control);
  else return false;
  return true;
}

/**
 * On the grip, space lifts a row, arrows move it, space or Enter puts it down, Escape puts it back.
 *
 * @param {RowsView} view
 * @param {number} index
 * @param {string} key
 */
function lift(view, index, key) {
  const called = model.nameParts(view.stack.rows[index]?.lora ?? "").stem;
  if (key === " " || key === "Enter") {
    view.lift(view.lifted === index ? -1 : index);
    view.say(view.lifted === index ? `${called} lifted. Arrow keys move it, space puts it down.` : `${called} put down.`);
    return true;
  }
  if (key === "Escape" && view.lifted === index) {
    const from = view.liftedFrom;
    view.lift(-1);
    view.actions.move(index, from, "grip");
    return true;
  }
  return false;
}
