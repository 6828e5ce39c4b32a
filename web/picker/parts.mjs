// @ts-check
/** Small elements that show an entry: its picture, a text with marked parts, its row in the list. */

import { h, icon } from "../dom.mjs";
import { stylesheet } from "../host.mjs";
import { previewUrl } from "../server.mjs";
import { fieldsOf, folderOf } from "./choice.mjs";
import { stateText, titleOf } from "./entry_text.mjs";
import { ranges } from "./fuzzy.mjs";

/**
 * @typedef {import("../server.mjs").Entry} Entry
 * @typedef {import("./fuzzy.mjs").Range} Range
 */

stylesheet("picker/parts.css");

/**
 * The picture of a LoRA, loaded when it comes into sight, or a tile with its first letters.
 *
 * @param {Pick<Entry, "name" | "preview" | "modified">} entry
 * @param {string} title
 * @param {number} size asked of the server, in pixels
 */
export function picture(entry, title, size) {
  // The same colour each time for the same LoRA.
  const hue = [...entry.name].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 360, 7);
  const named = title.replace(/[^\p{L}\p{N} _-]/gu, " ").split(/[\s_-]+/u).filter(Boolean);
  const initials = named
    .slice(0, 2)
    .map((word) => [...word][0]?.toUpperCase())
    .join("");
  const tile = h("div", { class: "loom-picture", style: { "--hue": String(hue) }, "aria-hidden": "true" }, initials);
  if (entry.preview) {
    // A new file under the old name has a new picture.
    const source = `${previewUrl(entry.name, size)}&v=${Math.round(entry.modified)}`;
    const image = h("img", { src: source, alt: "", loading: "lazy", decoding: "async", draggable: "false" });
    image.addEventListener("error", () => image.remove());
    tile.append(image);
  }
  return tile;
}

/**
 * A text with parts marked.
 *
 * @param {string} text
 * @param {readonly Range[]} parts
 * @returns {(string | HTMLElement)[]}
 */
export function marked(text, parts) {
  /** @type {(string | HTMLElement)[]} */
  const pieces = [];
  let done = 0;
  for (const [start, end] of parts) {
    if (end <= done || start >= text.length) continue;
    pieces.push(text.slice(done, Math.max(done, start)), h("mark", {}, text.slice(Math.max(done, start), end)));
    done = end;
  }
  return [...pieces, text.slice(done)];
}

/**
 * Ranges of a text within a part of it.
 *
 * @param {readonly Range[]} parts
 * @param {number} start
 * @param {number} end
 * @returns {Range[]}
 */
const within = (parts, start, end) =>
  parts
    .filter(([from, to]) => to > start && from < end)
    .map(([from, to]) => [Math.max(from, start) - start, Math.min(to, end) - start]);

/**
 * The two lines of an entry with what the query found in it: the title, and where it lies or why it was found.
 *
 * @param {Entry} entry
 * @param {readonly string[]} wanted the query's words
 */
function lines(entry, wanted) {
  const fields = fieldsOf(entry);
  const { text, base } = fields.name;
  const inName = ranges(wanted, fields.name);
  const stem = text.slice(base);
  const title = titleOf(entry);
  const folder = folderOf(entry.name);
  if (title === stem) {
    const second = folder ? marked(folder, within(inName, 0, folder.length)) : ["in the top folder"];
    return { title: marked(stem, within(inName, base, text.length)), second: words(second) };
  }
  return { title: marked(title, ranges(wanted, fields.title)), second: words(marked(text, inName)) };

  /** @param {(string | HTMLElement)[]} otherwise */
  function words(otherwise) {
    const found = ranges(wanted, fields.words);
    const shown = inName.length || ranges(wanted, fields.title).length;
    return !shown && found.length ? marked(fields.words.text, found) : otherwise;
  }
}

/**
 * A row of the list.
 *
 * @param {Entry} entry
 * @param {object} options
 * @param {readonly string[]} options.wanted the query's words
 * @param {boolean} options.multiple with a box to mark several
 */
export function entryRow(entry, { wanted, multiple }) {
  const state = stateText(entry);
  const { title, second } = lines(entry, wanted);
  const bad = entry.state === "failed";
  // Box and star are for the mouse; by keyboard there are Ctrl+Enter and the button beside the list.
  return h(
    "div",
    { class: `loom-picker-row${bad ? " loom-bad" : ""}`, title: entry.name + (state ? `\n${state}` : "") },
    multiple && h("span", { class: "loom-picker-check", dataset: { act: "check" }, "aria-hidden": "true" }, icon("check")),
    picture(entry, titleOf(entry), 96),
    h(
      "span",
      { class: "loom-picker-lines" },
      h("span", { class: "loom-picker-title loom-cut", dir: "auto" }, title),
      h(
        "span",
        { class: `loom-picker-second loom-cut ${bad ? "loom-error-text" : "loom-muted"}`, dir: "auto" },
        entry.state === "described" ? second : state,
      ),
    ),
    entry.state === "described" && entry.problems > 0 && icon("warning", { class: "loom-picker-warn" }),
    entry.state === "described" &&
      h(
        "span",
        { class: "loom-picker-base-rank" },
        h("span", { class: "loom-cut", style: { "max-width": "100%" } }, entry.base || "unknown base"),
        entry.rank && h("span", { class: "loom-cut", style: { "max-width": "100%" } }, `rank ${entry.rank}`),
      ),
    h("span", { class: "loom-picker-star", dataset: { act: "star" }, "aria-hidden": "true" }, icon("star")),
  );
}
