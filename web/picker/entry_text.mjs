// @ts-check
/** What the page writes about an entry of the index, in words. */

import { stemOf } from "./choice.mjs";

/** @typedef {import("../server.mjs").Entry} Entry */

/** @param {Entry} entry */
export const titleOf = (entry) => entry.title.trim() || stemOf(entry.name);

/** @param {number} bytes */
export function sizeText(bytes) {
  if (bytes < 1e3) return `${bytes} B`;
  const units = ["KB", "MB", "GB"];
  let value = bytes / 1e3;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1e3;
    unit++;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** @param {number} seconds since 1970 */
export const dateText = (seconds) =>
  new Date(seconds * 1000).toLocaleDateString(undefined, { year: "numeric", month: "short", day: "numeric" });

/** @param {number} count */
export const countText = (count) => count.toLocaleString("en-US");

/**
 * What is known of the file, in a few words; "" when all is well.
 *
 * @param {Entry} entry
 */
export function stateText(entry) {
  if (entry.state === "new") return "not looked into yet";
  if (entry.state === "failed") return `cannot be read: ${entry.error || "no reason given"}`;
  if (entry.problems) return `${countText(entry.problems)} of ${countText(entry.total)} tensors match no module`;
  return "";
}

/**
 * The facts that fit into a list.
 *
 * @param {Entry} entry
 * @returns {[name: string, value: string][]}
 */
export function factsOf(entry) {
  /** @type {[string, string][]} */
  const facts = [];
  if (entry.state === "described") {
    facts.push(["Base model", entry.base || "unknown"]);
    if (entry.types.length) facts.push(["Type", entry.types.join(", ")]);
    if (entry.rank) facts.push(["Rank", entry.rank]);
    facts.push(["Tensors used", `${countText(entry.used)} of ${countText(entry.total)}`]);
  }
  if (entry.strength !== null) facts.push(["Strength", String(entry.strength)]);
  facts.push(["Size", sizeText(entry.size)], ["Modified", dateText(entry.modified)]);
  return facts;
}
