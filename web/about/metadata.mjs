// @ts-check
/** The metadata in the file's header, as a table that can be searched. */

import { h } from "../dom.mjs";
import { copyButton } from "./copy.mjs";
import { withoutControls } from "./plain_text.mjs";
import { metadataRows, readable } from "./values.mjs";

// Longer values are folded.
const SHORT = 160;

/** @param {Record<string, string>} metadata */
export function metadataPanel(metadata) {
  const total = Object.keys(metadata).length;
  if (!total) return h("div", {}, h("p", { class: "loom-muted" }, "The header of the file holds no metadata."));
  const search = h("input", {
    class: "loom-input loom-about-filter",
    type: "search",
    placeholder: `Filter ${total} entries`,
    "aria-label": "Filter the metadata",
  });
  const body = h("tbody");
  const status = h("span", { class: "loom-muted", role: "status" });
  const fill = () => {
    const rows = metadataRows(metadata, search.value);
    body.replaceChildren(...rows.map(([key, value]) => row(key, value)));
    status.textContent = search.value.trim() ? `${rows.length} of ${total}` : "";
  };
  search.addEventListener("input", fill);
  fill();
  return h(
    "div",
    {},
    h("div", { class: "loom-about-bar" }, search, status, copyButton("all metadata", () => JSON.stringify(metadata, null, 2))),
    h(
      "table",
      { class: "loom-about-table" },
      h("colgroup", {}, h("col", { style: { width: "36%" } }), h("col"), h("col", { style: { width: "32px" } })),
      h("thead", { class: "loom-unseen" }, h("tr", {}, h("th", {}, "Key"), h("th", {}, "Value"), h("th", {}, "Copy"))),
      body,
    ),
  );
}

/**
 * @param {string} key
 * @param {string} value
 */
function row(key, value) {
  const text = readable(value);
  const long = text.length > SHORT || text.includes("\n");
  return h(
    "tr",
    {},
    h("th", { scope: "row", dir: "auto" }, withoutControls(key)),
    h(
      "td",
      { dir: "auto" },
      long
        ? h("details", {}, h("summary", {}, withoutControls(value).slice(0, SHORT)), h("pre", {}, text))
        : text,
    ),
    h("td", { class: "loom-about-copy" }, copyButton(withoutControls(key), () => value)),
  );
}
