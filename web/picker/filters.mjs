// @ts-check
/** What narrows the popup's list: all, recent or favourites; the base model; the folder; the order. */

import { h, icon } from "../dom.mjs";
import { basesOf, foldersBelow, stepsTo } from "./choice.mjs";
import { countText } from "./entry_text.mjs";

/**
 * @typedef {import("../server.mjs").Entry} Entry
 * @typedef {"all" | "recent" | "favourites"} Tab
 *
 * @typedef {object} Filter what is set now
 * @property {Tab} tab
 * @property {string} folder
 * @property {string} base a family's name, "" for all
 * @property {"name" | "newest"} sort
 */

const TABS = /** @type {const} */ ([
  ["all", "All"],
  ["recent", "Recent"],
  ["favourites", "Favourites"],
]);

/**
 * @param {(changes: Partial<Filter>) => void} change
 */
export function filters(change) {
  const tabs = TABS.map(([tab, text]) =>
    h("button", { class: "loom-button loom-picker-tab", type: "button", on: { click: () => change({ tab }) } }, text),
  );
  const base = h("select", { class: "loom-input loom-picker-base", "aria-label": "Base model" });
  base.addEventListener("change", () => change({ base: base.value }));
  const sort = h(
    "select",
    { class: "loom-input", "aria-label": "Order" },
    h("option", { value: "name" }, "By name"),
    h("option", { value: "newest" }, "Newest first"),
  );
  sort.addEventListener("change", () => change({ sort: /** @type {"name" | "newest"} */ (sort.value) }));
  const folders = h("nav", { class: "loom-picker-folders", "aria-label": "Folders" });

  /**
   * @param {Filter} filter
   * @param {ReadonlyMap<string, Entry>} entries
   * @param {{ architecture: string, title: string } | null} model
   */
  function refresh(filter, entries, model) {
    TABS.forEach(([tab], i) => tabs[i]?.setAttribute("aria-pressed", String(filter.tab === tab)));
    sort.value = filter.sort;
    const all = [...entries.values()];
    const families = basesOf(all);
    if (model && !families.some(({ name }) => name === model.architecture)) {
      families.unshift({ name: model.architecture, title: model.title, count: 0 });
    }
    base.replaceChildren(
      h("option", { value: "" }, "All base models"),
      ...families.map(({ name, title, count }) =>
        h("option", { value: name }, `${title} (${countText(count)})`),
      ),
    );
    base.value = filter.base;
    showFolders(filter.folder, all);
  }

  /**
   * @param {string} folder
   * @param {Entry[]} all
   */
  function showFolders(folder, all) {
    const below = foldersBelow(all, folder);
    folders.hidden = !folder && !below.length;
    const steps = ["", ...stepsTo(folder)];
    const focused = folders.contains(document.activeElement);
    folders.replaceChildren(
      ...steps.map((path, depth) => {
        const name = path ? path.slice(path.lastIndexOf("/") + 1) : "All folders";
        return folderButton(path, name, depth, path === folder, null);
      }),
      ...below.map(({ path, name, count }) => folderButton(path, name, steps.length, false, count)),
    );
    if (focused) /** @type {HTMLElement | null} */ (folders.querySelector('[aria-current="true"]'))?.focus();
  }

  /**
   * @param {string} path
   * @param {string} name
   * @param {number} depth
   * @param {boolean} here
   * @param {number | null} count
   */
  function folderButton(path, name, depth, here, count) {
    return h(
      "button",
      {
        class: "loom-button loom-picker-folder",
        type: "button",
        style: { "--depth": String(depth) },
        title: path || "All folders",
        "aria-current": here && "true",
        on: { click: () => change({ folder: path }) },
      },
      icon(count === null && !here ? "up" : "folder"),
      h("span", { class: "loom-cut", dir: "auto" }, name),
      count !== null && h("span", { class: "loom-muted" }, countText(count)),
    );
  }

  return { tabs, base, sort, folders, refresh };
}
