// @ts-check
/**
 * Which LoRAs the popup lists, in which order, and what it offers to narrow them: all of it from plain values.
 *
 * @typedef {import("../server.mjs").Entry} Entry
 * @typedef {import("./fuzzy.mjs").Field} Field
 *
 * @typedef {object} Wanted
 * @property {string} query
 * @property {string} folder "" for all, else as `styles/ink`
 * @property {string} base a family's name, "" for all, `UNKNOWN` for files of which it is not known
 * @property {ReadonlySet<string> | readonly string[] | null} only names: favourites as a set, what was used recently in its order
 * @property {"name" | "newest"} sort without a query; with one the best match comes first
 */

import { field, score, words } from "./fuzzy.mjs";

/** What `base` is for files whose family is not known. */
export const UNKNOWN = "?";

/** @param {string} name */
export const folderOf = (name) => name.slice(0, Math.max(0, name.lastIndexOf("/")));

/**
 * A name as people read it: without folder and ending.
 *
 * @param {string} name
 */
export const stemOf = (name) => name.slice(name.lastIndexOf("/") + 1).replace(/\.(safetensors|pt|ckpt|bin|pth)$/i, "");

/** @type {WeakMap<Entry, { name: Field, title: Field, words: Field, base: Field, all: Field[] }>} */
const prepared = new WeakMap();

/**
 * The texts of an entry that a query looks at. The ending is not one of them: every file has it.
 *
 * @param {Entry} entry
 */
export function fieldsOf(entry) {
  let found = prepared.get(entry);
  if (!found) {
    const path = entry.name.replace(/\.(safetensors|pt|ckpt|bin|pth)$/i, "");
    const name = field(path, { base: entry.name.lastIndexOf("/") + 1 });
    const title = field(entry.title, { weight: 0.95 });
    const triggers = field(entry.trigger_words.join(", "), { loose: false, weight: 0.75 });
    const base = field(entry.base, { loose: false, weight: 0.5 });
    // A title that is the name over again need not be looked through twice.
    const own = title.lower && !name.lower.endsWith(title.lower) ? [title] : [];
    found = { name, title, words: triggers, base, all: [name, ...own, triggers, base] };
    prepared.set(entry, found);
  }
  return found;
}

/**
 * @param {Iterable<Entry>} entries in the order of their names
 * @param {Wanted} wanted
 * @returns {Entry[]}
 */
export function chosen(entries, { query, folder, base, only, sort }) {
  const wantedWords = words(query);
  const inside = folder && `${folder}/`;
  const allowed = only && new Set(only);
  /** @type {{ entry: Entry, points: number }[]} */
  const found = [];
  for (const entry of entries) {
    if (allowed && !allowed.has(entry.name)) continue;
    if (inside && !entry.name.startsWith(inside)) continue;
    if (!fitsBase(entry, base)) continue;
    const points = wantedWords.length ? score(wantedWords, fieldsOf(entry).all) : 1;
    if (points) found.push({ entry, points });
  }
  if (wantedWords.length) found.sort((a, b) => b.points - a.points);
  else if (Array.isArray(only)) {
    const place = new Map(only.map((name, i) => [name, i]));
    found.sort((a, b) => (place.get(a.entry.name) ?? 0) - (place.get(b.entry.name) ?? 0));
  } else if (sort === "newest") found.sort((a, b) => b.entry.modified - a.entry.modified);
  return found.map(({ entry }) => entry);
}

/**
 * A file that nobody looked into yet may be of any family, so no family hides it.
 *
 * @param {Entry} entry
 * @param {string} base
 */
function fitsBase(entry, base) {
  if (!base) return true;
  if (base === UNKNOWN) return !entry.architecture;
  return entry.architecture === base || entry.state === "new";
}

/**
 * The families that occur, most files first; those without one last.
 *
 * @param {Iterable<Entry>} entries
 * @returns {{ name: string, title: string, count: number }[]}
 */
export function basesOf(entries) {
  /** @type {Map<string, { name: string, title: string, count: number }>} */
  const found = new Map();
  for (const { architecture, base } of entries) {
    const name = architecture || UNKNOWN;
    const one = found.get(name);
    if (one) one.count++;
    else found.set(name, { name, title: architecture ? base || architecture : "Unknown", count: 1 });
  }
  const last = (/** @type {string} */ name) => Number(name === UNKNOWN);
  return [...found.values()].sort((a, b) => last(a.name) - last(b.name) || b.count - a.count);
}

/**
 * The folders right below one, with how many files lie in and below each.
 *
 * @param {Iterable<Entry>} entries
 * @param {string} folder "" for the top
 * @returns {{ path: string, name: string, count: number }[]}
 */
export function foldersBelow(entries, folder) {
  const inside = folder && `${folder}/`;
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { name } of entries) {
    if (!name.startsWith(inside)) continue;
    const end = name.indexOf("/", inside.length);
    if (end < 0) continue;
    const path = name.slice(0, end);
    counts.set(path, (counts.get(path) ?? 0) + 1);
  }
  return [...counts]
    .map(([path, count]) => ({ path, name: path.slice(inside.length), count }))
    .sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true, sensitivity: "base" }));
}

/**
 * The steps down to a folder: `a/b` is `a`, `a/b`.
 *
 * @param {string} folder
 */
export const stepsTo = (folder) =>
  folder ? folder.split("/").map((_, i, parts) => parts.slice(0, i + 1).join("/")) : [];
