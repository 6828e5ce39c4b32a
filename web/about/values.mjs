// @ts-check
/** Values of the dialog from the server's answers, without a page. */

import { withoutControls } from "./plain_text.mjs";

/** @typedef {import("../server.mjs").About} About */

/**
 * The trigger words of the file and of what lies beside it, each once.
 *
 * @param {About} about
 */
export function triggerWords({ report, sidecar }) {
  const all = [...(report?.trigger_words ?? []), ...sidecar.trigger_words];
  return [...new Set(all.map((word) => withoutControls(word).trim()))].filter(Boolean);
}

/**
 * Words that somebody wrote, by lines or commas.
 *
 * @param {string} text
 */
export const wordsOf = (text) => [
  ...new Set(
    text
      .split(/[\n,]/)
      .map((word) => word.trim())
      .filter(Boolean),
  ),
];

/**
 * The tags of the training pictures with how often each occurs, most first, from kohya's `ss_tag_frequency`.
 *
 * @param {Record<string, string>} metadata
 * @param {number} [most]
 * @returns {[tag: string, count: number][]}
 */
export function trainingTags(metadata, most = 24) {
  const folders = parsed(metadata.ss_tag_frequency ?? "");
  if (!folders || typeof folders !== "object") return [];
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const tags of Object.values(folders)) {
    if (!tags || typeof tags !== "object") continue;
    for (const [tag, count] of Object.entries(tags)) {
      const name = withoutControls(tag).trim();
      if (name && typeof count === "number") counts.set(name, (counts.get(name) ?? 0) + count);
    }
  }
  return [...counts].sort((a, b) => b[1] - a[1]).slice(0, most);
}

/**
 * A value of the metadata to read: JSON in lines, else the text.
 *
 * @param {string} value
 */
export function readable(value) {
  const found = /^\s*[[{]/.test(value) ? parsed(value) : undefined;
  return withoutControls(found === undefined ? value : JSON.stringify(found, null, 2));
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * The metadata whose key or value holds a text, in the order of the keys.
 *
 * @param {Record<string, string>} metadata
 * @param {string} query
 */
export function metadataRows(metadata, query) {
  const wanted = query.trim().toLowerCase();
  return Object.entries(metadata)
    .filter(([key, value]) => key.toLowerCase().includes(wanted) || value.toLowerCase().includes(wanted))
    .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
}

/**
 * Counts as `264 lora, 12 dora`; the names of one kind only are enough when there is one.
 *
 * @param {Record<string, number>} counts
 */
export function countsText(counts) {
  const all = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  if (all.length === 1) return `${all[0]?.[0]}`;
  return all.map(([name, count]) => `${name} (${count})`).join(", ");
}

/**
 * The recommended strength in words, "" when nobody recommends one.
 *
 * @param {{ strength: number | null, strength_min: number | null, strength_max: number | null }} sidecar
 */
export function strengthText({ strength, strength_min: from, strength_max: to }) {
  const range = from !== null && to !== null ? `${from} to ${to}` : from !== null ? `from ${from}` : to !== null ? `up to ${to}` : "";
  if (strength === null) return range;
  return range && !(from === strength && to === strength) ? `${strength} (${range})` : String(strength);
}

/**
 * A number for people: three digits that count.
 *
 * @param {number} value
 */
export const shortNumber = (value) => (value === 0 ? "0" : String(Number(value.toPrecision(3))));

/**
 * A round number that is not below the greatest value.
 *
 * @param {number} value
 */
export function roundUp(value) {
  if (!(value > 0) || !Number.isFinite(value)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 2.5, 5, 10].find((one) => one * unit >= value * 0.999999) ?? 10;
  return step * unit;
}
