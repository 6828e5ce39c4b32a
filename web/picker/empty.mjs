// @ts-check
/** What the popup says when there is nothing to list, and in its last line. */

import { h, icon } from "../dom.mjs";
import { countText } from "./entry_text.mjs";

/**
 * @typedef {import("./catalogue.mjs").Catalogue} Catalogue
 * @typedef {{ library: Catalogue, filter: import("./filters.mjs").Filter, query: string, found: number }} Situation
 */

/**
 * @param {Situation} situation
 * @param {{ refresh: () => void, clear: () => void }} acts
 * @returns {HTMLElement[] | null} null when there is something to list
 */
export function emptyState({ library, filter, query, found }, { refresh, clear }) {
  if (found) return null;
  if (!library.loaded && library.error) {
    return [text("The list of LoRAs cannot be read."), text(library.error, "loom-error-text"), button("Try again", refresh)];
  }
  if (!library.loaded) return [text("Reading the list of LoRAs…", "loom-muted")];
  if (!library.entries.size) {
    return [
      text("There are no LoRAs yet."),
      text("Put .safetensors files into ComfyUI’s models/loras folder, or into one that extra_model_paths.yaml names.", "loom-muted"),
      button("Refresh", refresh),
    ];
  }
  if (!query && !filter.folder && !filter.base && filter.tab === "recent") {
    return [text("Nothing was used yet."), text("LoRAs that you choose are listed here.", "loom-muted"), button("Show all", clear)];
  }
  if (!query && !filter.folder && !filter.base && filter.tab === "favourites") {
    return [text("There are no favourites yet."), text("The star of a LoRA makes it one.", "loom-muted"), button("Show all", clear)];
  }
  const narrowed = filter.base || filter.folder || filter.tab !== "all";
  return [
    text(query ? `No LoRA matches “${query}”.` : "No LoRA is in this selection."),
    narrowed ? text("Only a part of them was searched.", "loom-muted") : text("Fewer or other letters may find it.", "loom-muted"),
    button(narrowed ? "Clear search and filters" : "Clear search", clear),
  ];
}

/**
 * @param {string} words
 * @param {string} [kind]
 */
const text = (words, kind = "") => h("p", { class: kind, dir: "auto" }, words);

/**
 * @param {string} words
 * @param {() => void} click
 */
const button = (words, click) =>
  h("button", { class: "loom-button loom-bordered", type: "button", on: { click } }, words);

/**
 * @param {{ multiple: boolean, add: () => void, hint: string }} options
 */
export function footer({ multiple, add, hint }) {
  const status = h("span", { class: "loom-muted loom-cut", role: "status" });
  const fault = h("span", { class: "loom-error-text loom-cut", role: "alert" });
  const several = h("button", { class: "loom-button loom-primary", type: "button", hidden: true, on: { click: add } });
  const element = h(
    "div",
    { class: "loom-picker-footer" },
    status,
    fault,
    h("span", { class: "loom-picker-hint loom-muted" }, h("kbd", {}, "↑"), h("kbd", {}, "↓"), " and ", h("kbd", {}, "Enter"), hint && ` · ${hint}`),
    multiple && several,
  );

  /** @param {{ library: Catalogue, found: number, marked: number, fault: string }} now */
  function update({ library, found, marked, fault: wrong }) {
    const { files, described, busy } = library.state;
    const all = library.entries.size;
    const looking = busy && described < files ? ` · looking into files: ${countText(described)} of ${countText(files)}` : "";
    const shown = found === all ? countText(all) : `${countText(found)} of ${countText(all)}`;
    const words = library.loaded ? `${shown} LoRA${all === 1 ? "" : "s"}${looking}` : "";
    if (status.textContent !== words) status.textContent = words;
    const problem = wrong || (library.loaded && library.error ? `The list may be old: ${library.error}` : "");
    if (fault.textContent !== problem) fault.replaceChildren(...(problem ? [icon("warning"), problem] : []));
    fault.title = problem;
    several.hidden = marked === 0;
    several.textContent = `Add ${marked}`;
  }

  return { element, update };
}
