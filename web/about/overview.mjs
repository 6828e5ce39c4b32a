// @ts-check
/** The first tab: words, strength, what people say about it, and the user's own notes. */

import { h } from "../dom.mjs";
import { copyButton } from "./copy.mjs";
import { plainText, withoutControls } from "./plain_text.mjs";
import { faultLine } from "./report.mjs";
import { strengthText, trainingTags, triggerWords } from "./values.mjs";
import { wordChip, wordList } from "./words.mjs";

/**
 * @typedef {import("../server.mjs").About} About
 * @typedef {import("./words.mjs").Send} Send
 */

/**
 * @param {About} about
 * @param {object} options
 * @param {{ element: HTMLElement | null, current: () => Send | null }} options.target where words are sent, with the field to choose it
 * @param {((strength: number) => void) | null} options.useStrength
 * @param {ReturnType<typeof import("./notes.mjs").notesForm>} options.notes
 */
export function overview(about, { target, useStrength, notes }) {
  const { sidecar, metadata } = about;
  const tags = trainingTags(metadata);
  const description = plainText(sidecar.description || metadata["modelspec.description"] || "");
  const strength = strengthText(sidecar);
  const words = triggerWords(about);
  return h(
    "div",
    { class: "loom-overview" },
    about.error && faultLine(about.error),
    part(
      "Trigger words",
      words.length || tags.length ? target.element : null,
      wordList(words, target.current()),
      tags.length > 0 &&
        h(
          "details",
          { class: "loom-about-listing" },
          h("summary", {}, "Tags of the training pictures"),
          h("div", { class: "loom-words" }, tags.map(([tag, count]) => wordChip(tag, { send: target.current(), note: ` ${count}`, add: notes.addWord }))),
        ),
    ),
    strength &&
      part(
        "Recommended strength",
        null,
        h(
          "p",
          {},
          strength,
          sidecar.strength !== null &&
            useStrength &&
            h(
              "button",
              { class: "loom-button loom-bordered loom-about-use", type: "button", on: { click: () => useStrength(/** @type {number} */ (sidecar.strength)) } },
              `Use ${sidecar.strength}`,
            ),
        ),
      ),
    sidecar.negative &&
      part("Negative prompt", copyButton("Negative prompt", () => sidecar.negative), h("p", { class: "loom-about-text", dir: "auto" }, withoutControls(sidecar.negative))),
    description && part("Description", null, h("p", { class: "loom-about-text", dir: "auto" }, description)),
    part("Your notes", null, notes.element),
    sidecar.warnings.map((warning) => h("p", { class: "loom-muted", dir: "auto" }, withoutControls(warning))),
  );
}

/**
 * @param {string} title
 * @param {HTMLElement | null} beside
 * @param {...(HTMLElement | false | null)} children
 */
const part = (title, beside, ...children) =>
  h("section", {}, h("div", { class: "loom-about-head" }, h("h3", {}, title), beside), children);
