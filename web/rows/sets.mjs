// @ts-check
/** Saved sets of rows: kept per user by the host, loaded into any node. */

import { h, icon } from "../dom.mjs";
import { toast } from "../host.mjs";
import { readUserData, writeUserData } from "../userdata.mjs";
import * as model from "./model.mjs";
import { openPopover, place } from "./popover.mjs";

/**
 * @typedef {import("./view.mjs").RowsView} RowsView
 * @typedef {{ name: string, rows: import("../server.mjs").Row[] }} RowSet
 */

const FILE = "loom/sets.json";

/** @returns {Promise<RowSet[]>} by name */
async function readSets() {
  const sets = await readUserData(FILE, /** @type {unknown} */ ([]));
  if (!Array.isArray(sets)) return [];
  return sets
    .filter((one) => typeof one?.name === "string")
    .map((one) => ({ name: one.name, rows: model.parse(one.rows).rows }));
}

/**
 * The sets with one more, in place of one of that name.
 *
 * @param {RowSet[]} sets
 * @param {RowSet} set
 */
export const withSet = (sets, set) =>
  [...sets.filter((one) => one.name !== set.name), set].sort((a, b) => a.name.localeCompare(b.name));

/**
 * @param {RowsView} view
 * @param {HTMLElement} anchor
 */
export async function openSets(view, anchor) {
  const { stack } = view;
  /** @type {RowSet[]} */
  let sets = [];
  const list = h("ul", { class: "loom-rows-sets", "aria-label": "Saved sets" });
  const name = h("input", {
    class: "loom-input",
    "aria-label": "Name of the set",
    placeholder: "Save these rows as…",
    maxlength: 80,
    disabled: true, // until it is known which sets there are
  });
  const save = h("button", { type: "submit", class: "loom-button loom-bordered" }, icon("save"), "Save");
  const form = h("form", { class: "loom-rows-saving" }, name, save);
  const { element, close } = openPopover(anchor, h("div", { class: "loom-rows-form" }, list, form), {
    label: "Saved sets",
  });

  const keep = async (/** @type {RowSet[]} */ next) => {
    try {
      await writeUserData(FILE, next);
      sets = next;
    } catch (error) {
      toast("error", "The sets could not be saved", error instanceof Error ? error.message : String(error));
    }
    show();
    if (!element.contains(document.activeElement)) (stack.rows.length ? name : element).focus();
  };
  const load = (/** @type {RowSet} */ set, /** @type {boolean} */ add) => {
    close();
    stack.change(add ? model.add(stack.rows, set.rows) : [...set.rows]);
    view.focus(0, "name");
    view.say(`${set.name}: ${set.rows.length} rows`);
  };
  const show = () => {
    list.replaceChildren(
      ...sets.map((set) =>
        h(
          "li",
          {},
          h(
            "button",
            { type: "button", class: "loom-button loom-rows-set", title: titles(set), on: { click: () => load(set, false) } },
            h("span", { class: "loom-cut" }, set.name),
            h("span", { class: "loom-muted" }, set.rows.length),
          ),
          tool("add", `Add ${set.name} to the rows`, () => load(set, true)),
          tool("bin", `Delete ${set.name}`, () => void keep(sets.filter((one) => one !== set))),
        ),
      ),
    );
    if (!sets.length) list.append(h("li", { class: "loom-muted" }, "No sets yet"));
    form.hidden = !stack.rows.length;
    place(element, anchor);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const called = name.value.trim();
    if (!called) {
      name.focus();
      return;
    }
    name.value = "";
    void keep(withSet(sets, { name: called, rows: [...stack.rows] }));
  });
  show();
  try {
    sets = await readSets();
  } catch (error) {
    toast("error", "The saved sets could not be read", error instanceof Error ? error.message : String(error));
    close();
    return;
  }
  name.disabled = false;
  show();
  if (sets.length) /** @type {HTMLElement} */ (list.querySelector("button"))?.focus();
  else name.focus();
}

/** @param {RowSet} set */
const titles = (set) => set.rows.map((row) => `${model.nameParts(row.lora).stem} ${model.showStrength(row.model)}`).join("\n");

/**
 * @param {"add" | "bin"} sign
 * @param {string} label
 * @param {() => void} run
 */
const tool = (sign, label, run) =>
  h(
    "button",
    { type: "button", class: "loom-button loom-icon-only", "aria-label": label, title: label, on: { click: run } },
    icon(sign),
  );
