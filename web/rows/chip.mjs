// @ts-check
/**
 * What a row's chip says. Of all that is known the truest comes first: what the last run took, whether the file fits
 * the connected model, what the file holds.
 *
 * @typedef {import("../server.mjs").Row} Row
 * @typedef {import("../server.mjs").Entry} Entry
 * @typedef {import("../server.mjs").Fit} Fit
 *
 * @typedef {object} Taken what the model took of a LoRA when the node ran
 * @property {number | null} row
 * @property {string} lora
 * @property {string | null} model
 * @property {number} matched
 * @property {number} total
 * @property {number} missing
 * @property {number} misfit
 * @property {Record<string, number>} absent
 * @property {string} reason
 * @property {string[]} notes
 *
 * @typedef {object} Known
 * @property {Entry} [entry] of the index
 * @property {Entry} [renamed] another file with the row's content, where the row's own is not there
 * @property {boolean} listed whether the index is here at all
 * @property {Fit} [fit]
 * @property {string} [model] title of the connected model's family
 * @property {Taken} [taken]
 * @property {string[]} [conflicts] a line each
 *
 * @typedef {object} Chip
 * @property {"none" | "quiet" | "good" | "bad" | "warning"} tone
 * @property {string} count matched / total, or what is wrong in a word or two
 * @property {string[]} facts architecture, rank, type: as many as there is room for
 * @property {string} title all of it in lines
 * @property {string} [rename] the name that one click sets
 */

/**
 * @param {Row} row
 * @param {Known} known
 * @returns {Chip}
 */
export function chipOf(row, known) {
  const { entry, renamed, fit, taken, conflicts = [] } = known;
  if (!row.lora || !known.listed) return { tone: "none", count: "", facts: [], title: "" };
  if (!entry) {
    if (!renamed) return bad("not found", `There is no ${row.lora} among the LoRAs.`);
    const title = `There is no ${row.lora}, but ${renamed.name} has the same content. Click to take it.`;
    return { ...bad("renamed", title), rename: renamed.name };
  }
  const facts = factsOf(entry);
  // Of a file that was not looked into yet nothing is known, not that its family is unknown.
  const base = entry.base || (entry.state === "new" ? "" : "Unknown family");
  const about = [base, entry.rank && `rank ${entry.rank}`, entry.types.join(", ")].filter(Boolean).join(", ");
  if (entry.state === "failed") return bad("unreadable", entry.error || "This file cannot be read.");
  if (fit?.fits === false && !fit.total) return bad("unreadable", fit.reason || "This file cannot be read.");
  /**
   * @param {{ matched: number, total: number }} of
   * @param {string} why it does not fit
   * @param {string} where
   * @param {string[]} rest
   * @returns {Chip}
   */
  const said = ({ matched, total }, why, where, rest) => ({
    tone: why ? "bad" : conflicts.length ? "warning" : "good",
    count: `${matched}/${total}`,
    facts: why ? [why] : facts,
    title: [about, `${matched} of ${total} modules fit ${where}.`, why, ...rest].filter(Boolean).join("\n"),
  });
  if (taken) return said(taken, whyNot(taken), "in the last run", [...restOf(taken), ...conflicts]);
  if (fit && fit.fits !== null) {
    return said(fit, fit.fits ? "" : fit.reason, `the connected ${known.model || "model"}`, conflicts);
  }
  if (entry.state === "new") return { tone: "quiet", count: "…", facts: [], title: "Not looked into yet." };
  const why = entry.problems ? [`${entry.problems} tensors are of no module that we know.`] : [];
  return {
    tone: conflicts.length || why.length ? "warning" : "quiet",
    count: `${entry.used}/${entry.total}`,
    facts,
    title: [about, `${entry.used} of ${entry.total} tensors are read.`, ...why, fit?.reason, ...conflicts]
      .filter(Boolean)
      .join("\n"),
  };
}

/**
 * @param {Taken} taken
 * @returns {string} why something of the file had no place in the model; "" when all of it had
 */
const whyNot = (taken) =>
  taken.missing || taken.misfit ? taken.reason || `${taken.missing + taken.misfit} modules are left out` : "";

/** @param {Taken} taken */
function restOf(taken) {
  const absent = Object.entries(taken.absent ?? {});
  const names = absent.map(([name, count]) => `${count} modules are for ${name.replaceAll("_", " ")}, not connected.`);
  return [...names, ...(taken.notes ?? [])];
}

/**
 * @param {string} count
 * @param {string} title
 * @returns {Chip}
 */
const bad = (count, title) => ({ tone: "bad", count, facts: [], title });

/** @param {Entry} entry */
const factsOf = (entry) => [entry.base, entry.rank && `r${entry.rank}`, typesOf(entry.types)].filter(Boolean);

/** @type {Record<string, string>} */
const TYPES = { lora: "LoRA", loha: "LoHa", lokr: "LoKr", dora: "DoRA", oft: "OFT", boft: "BOFT", ia3: "IA3", glora: "GLoRA", diff: "full", full: "full" };

/** @param {string[]} types */
const typesOf = (types) => types.map((name) => TYPES[name] ?? name).join(" ");

/**
 * Rows that are on and of one file, or of one content.
 *
 * @param {readonly Row[]} rows
 * @returns {{ a: number, b: number }[]}
 */
export function twins(rows) {
  /** @type {Map<string, number>} */
  const first = new Map();
  /** @type {{ a: number, b: number }[]} */
  const pairs = [];
  rows.forEach((row, index) => {
    const key = row.on ? row.hash || row.lora : "";
    const before = first.get(key);
    if (!key) return;
    if (before === undefined) first.set(key, index);
    else pairs.push({ a: before, b: index });
  });
  return pairs;
}

/**
 * The lines about conflicts for each row.
 *
 * @param {number} count of rows
 * @param {{ a: number, b: number, text: string }[]} pairs
 * @param {(index: number) => string} called what a row is called
 * @returns {string[][]}
 */
export function conflictLines(count, pairs, called) {
  /** @type {string[][]} */
  const lines = Array.from({ length: count }, () => []);
  for (const { a, b, text } of pairs) {
    lines[a]?.push(`With row ${b + 1}, ${called(b)}: ${text}`);
    lines[b]?.push(`With row ${a + 1}, ${called(a)}: ${text}`);
  }
  return lines;
}
