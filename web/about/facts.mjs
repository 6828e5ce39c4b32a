// @ts-check
/** The column beside the tabs: the picture, the facts of the file, its hashes. */

import { h, icon } from "../dom.mjs";
import { countText, dateText, sizeText } from "../picker/entry_text.mjs";
import { picture } from "../picker/parts.mjs";
import { hash } from "../server.mjs";
import { copyButton } from "./copy.mjs";
import { withoutControls } from "./plain_text.mjs";
import { countsText } from "./values.mjs";

/**
 * @typedef {import("../server.mjs").About} About
 * @typedef {import("../server.mjs").Hashes} Hashes
 */

/**
 * @param {About} about
 * @param {string} title
 */
export function factsColumn(about, title) {
  const { report } = about;
  /** @type {[string, string][]} */
  const facts = [["Base model", report?.architecture || "unknown"]];
  if (about.sidecar.base) facts.push(["Said to be for", about.sidecar.base]);
  if (report) {
    facts.push(["Format", report.format], ["Type", countsText(report.adapter_types)], ["Rank", Object.keys(report.ranks).join(", ")]);
    facts.push(["Tensors used", `${countText(report.tensors.used)} of ${countText(report.tensors.total)}`]);
  }
  facts.push(["Size", sizeText(about.size)], ["Modified", dateText(about.modified)]);
  const values = facts.map(([name, value]) => ({ name, place: h("dd", { dir: "auto" }, withoutControls(value) || "–") }));
  const used = values.find(({ name }) => name === "Tensors used");
  if (report && report.tensors.used < report.tensors.total) used?.place.classList.add("loom-part");
  const hashes = hashesPart(about);
  const element = h(
    "aside",
    { class: "loom-about-facts", "aria-label": "The file" },
    h("div", { class: "loom-about-picture" }, picture(about, title, 512)),
    h("dl", { class: "loom-facts" }, values.map(({ name, place }) => h("div", {}, h("dt", {}, name), place))),
    hashes.element,
  );

  /** What the index knows by now. @param {import("../server.mjs").Entry | undefined} entry */
  function update(entry) {
    const base = values[0]?.place;
    if (base && entry?.base) base.textContent = entry.base;
    if (entry?.sha256) hashes.show({ sha256: entry.sha256, autov2: entry.sha256.slice(0, 10), autov3: entry.autov3 });
  }

  return { element, update };
}

/** @param {About} about */
function hashesPart(about) {
  const place = h("div", { class: "loom-hashes" });
  let shown = "";
  /** @param {Hashes} hashes */
  const show = (hashes) => {
    // Known already: the focus may be on one of its buttons.
    if (shown !== hashes.sha256) place.replaceChildren(...hashList(hashes));
    shown = hashes.sha256;
  };
  const compute = async () => {
    place.replaceChildren(h("p", { class: "loom-muted loom-busy", role: "status" }, `Reading ${sizeText(about.size)}…`));
    try {
      show(await hash(about.name));
    } catch (fault) {
      place.replaceChildren(h("p", { class: "loom-error-text", role: "alert" }, /** @type {Error} */ (fault).message), button());
    }
  };
  const button = () => h("button", { class: "loom-button loom-bordered", type: "button", on: { click: compute } }, "Compute hashes");
  if (about.hashes) show(about.hashes);
  else place.append(button());
  return { element: h("section", { "aria-label": "Hashes" }, h("h3", {}, "Hashes"), place), show };
}

/** @param {Hashes} hashes */
function hashList({ sha256, autov2, autov3 }) {
  /** @type {[string, string | null][]} */
  const all = [["AutoV2", autov2], ["AutoV3", autov3], ["SHA256", sha256]];
  const query = new URLSearchParams({ query: autov2 });
  return [
    ...all.flatMap(([name, value]) =>
      value
        ? [h("div", { class: "loom-hash" }, h("span", { class: "loom-muted" }, name), h("code", { class: "loom-cut", title: value }, value), copyButton(name, () => value))]
        : [],
    ),
    // Nothing is asked of the net before somebody presses it.
    h(
      "a",
      { class: "loom-about-link", href: `https://civitai.com/search/models?${query}`, target: "_blank", rel: "noopener noreferrer" },
      icon("search"),
      "Search Civitai for it (new tab)",
    ),
  ];
}
