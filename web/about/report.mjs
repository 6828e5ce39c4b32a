// @ts-check
/** What the library understood of the file, and every tensor that it did not use, with the reason. */

import { h, icon } from "../dom.mjs";
import { countText } from "../picker/entry_text.mjs";
import { withoutControls } from "./plain_text.mjs";
import { countsText } from "./values.mjs";

/** @param {import("../server.mjs").About} about */
export function reportPanel({ report, error }) {
  if (!report) return h("div", {}, faultLine(error || "There is no report of this file."));
  const { tensors } = report;
  const facts = [
    ["Format", report.format],
    ["Architecture", report.architecture || "unknown"],
    ["Adapter types", countsText(report.adapter_types)],
    ["Ranks", countsText(report.ranks)],
    ["Modules", Object.entries(report.components).map(([name, count]) => `${countText(count)} ${name.replaceAll("_", " ")}`).join(", ")],
  ];
  const ignored = Object.entries(tensors.ignored);
  return h(
    "div",
    { class: "loom-report" },
    h("dl", { class: "loom-facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, value)))),
    meter(tensors.used, tensors.total),
    listing("Unmatched", "No module of the architecture has such a name.", tensors.unmatched.map((key) => [key, ""])),
    listing(
      "Misfit",
      "The name fits, the shape does not.",
      tensors.misfit.map(({ key, expected, got }) => [key, `expected ${shape(expected)}, got ${shape(got)}`]),
    ),
    listing("Ignored", "Left out on purpose.", ignored),
    tensors.left_out ? h("p", { class: "loom-muted" }, `${countText(tensors.left_out)} more are not listed here.`) : null,
    (report.notes ?? []).map((note) => h("p", { class: "loom-muted", dir: "auto" }, withoutControls(note))),
  );
}

/** @param {unknown} value */
const shape = (value) => (Array.isArray(value) ? value.join(" × ") : withoutControls(String(value)));

/** @param {string} text */
export const faultLine = (text) =>
  h("p", { class: "loom-about-fault loom-error-text", role: "alert" }, icon("warning"), h("span", { dir: "auto" }, withoutControls(text)));

/**
 * @param {number} used
 * @param {number} total
 */
function meter(used, total) {
  const part = total ? used / total : 0;
  return h(
    "div",
    { class: "loom-about-meter" },
    h("div", {}, `${countText(used)} of ${countText(total)} tensors used`, used === total ? "" : ` (${Math.floor(part * 100)} %)`),
    h("div", { class: `loom-about-track${used < total ? " loom-part" : ""}`, "aria-hidden": "true" }, h("i", { style: { width: `${part * 100}%` } })),
  );
}

/**
 * @param {string} name
 * @param {string} meaning
 * @param {[key: string, reason: string][]} rows
 */
function listing(name, meaning, rows) {
  if (!rows.length) return null;
  return h(
    "details",
    { class: "loom-about-listing" },
    h("summary", {}, `${name}: ${countText(rows.length)}`, h("span", { class: "loom-muted" }, ` ${meaning}`)),
    h(
      "ul",
      {},
      rows.map(([key, reason]) =>
        h("li", { dir: "auto" }, h("code", {}, withoutControls(key)), reason && h("span", { class: "loom-muted" }, ` ${withoutControls(reason)}`)),
      ),
    ),
  );
}
