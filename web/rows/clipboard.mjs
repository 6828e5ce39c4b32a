// @ts-check
/**
 * Rows on the clipboard, as our JSON list. The browser's own events of copying and pasting work on a page that was not
 * loaded over https, too, where a program may not ask for the clipboard.
 *
 * @typedef {import("../server.mjs").Row} Row
 */

import { h } from "../dom.mjs";
import { readRows } from "../server.mjs";
import * as model from "./model.mjs";
import { openPopover } from "./popover.mjs";

/**
 * Copy, cut and paste with the focus in the rows are about rows: the host, which would take the node, does not see them.
 *
 * @param {import("./view.mjs").RowsView} view
 */
export function onClipboard(view) {
  // They go to the element of the text selection, which mostly is the page's body.
  const heard = (/** @type {ClipboardEvent} */ event) => {
    const focus = document.activeElement;
    if (!view.element.contains(focus) || focus instanceof HTMLInputElement) return;
    const index = view.indexOf(focus);
    const row = view.stack.rows[index];
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.type === "paste") {
      const text = event.clipboardData?.getData("text/plain") ?? "";
      void view.actions.pasteText(text, index < 0 ? view.stack.rows.length : index + 1);
      return;
    }
    const rows = row ? [row] : view.stack.rows;
    if (!rows.length) return;
    event.clipboardData?.setData("text/plain", model.toText(rows));
    view.say(`${rows.length} ${rows.length === 1 ? "row" : "rows"} copied`);
    if (event.type === "cut" && row) view.actions.remove(index);
  };
  const types = /** @type {const} */ (["copy", "cut", "paste"]);
  view.element.addEventListener("focusin", () => {
    for (const type of types) document.addEventListener(type, heard, true);
  });
  view.element.addEventListener("focusout", () => {
    for (const type of types) document.removeEventListener(type, heard, true);
  });
}

/**
 * @param {string} text
 * @returns {Promise<boolean>} whether it is on the clipboard
 */
export async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyByEvent(text);
  }
}

/** Over http there is no clipboard to ask for, but the old command gives an event with one. */
function copyByEvent(/** @type {string} */ text) {
  let done = false;
  const fill = (/** @type {ClipboardEvent} */ event) => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
    event.stopImmediatePropagation();
    done = true;
  };
  document.addEventListener("copy", fill, true);
  document.execCommand("copy");
  document.removeEventListener("copy", fill, true);
  return done;
}

/** @returns {Promise<string | null>} null where the page may not read it */
export async function readClipboard() {
  try {
    return await navigator.clipboard.readText();
  } catch {
    return null;
  }
}

/**
 * Rows in a text of anybody's.
 *
 * @param {string} text
 * @returns {Promise<{ rows: Row[], faults: string[] }>}
 */
export async function readPasted(text) {
  if (!text.trim()) return { rows: [], faults: ["The clipboard holds no text."] };
  try {
    const { rows, faults } = await readRows(text);
    return { rows: rows.map((one) => model.row({ ...one })), faults };
  } catch (error) {
    return { rows: [], faults: [error instanceof Error ? error.message : String(error)] };
  }
}

/**
 * A field to paste into, where the page may not read the clipboard by itself.
 *
 * @param {HTMLElement} anchor
 * @param {(text: string) => void} done
 */
export function askForText(anchor, done) {
  const field = h("textarea", {
    class: "loom-input",
    rows: 6,
    "aria-label": "Rows",
    placeholder: "Rows as JSON, also of rgthree or Lora-Manager, or <lora:name:0.8>",
    spellcheck: "false",
  });
  const take = () => {
    close();
    done(field.value);
  };
  const content = h(
    "div",
    { class: "loom-rows-form" },
    field,
    h("button", { type: "button", class: "loom-button loom-primary", on: { click: take } }, "Add rows"),
  );
  const { close } = openPopover(anchor, content, { label: "Paste rows" });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) take();
  });
  field.focus();
}
