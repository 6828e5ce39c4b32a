// @ts-check
/** Trigger words and training tags: a click copies, the arrow sends into a prompt. */

import { h, icon } from "../dom.mjs";
import { copy } from "./copy.mjs";

/**
 * @typedef {object} Send where words can go
 * @property {string} title of the place
 * @property {(word: string) => void} send
 */

/**
 * @param {string} word
 * @param {object} options
 * @param {Send | null} options.send
 * @param {string} [options.note] behind the word, as how often it occurs
 * @param {(word: string) => void} [options.add] makes it one of the trigger words
 */
export function wordChip(word, { send, note = "", add }) {
  const copied = { class: "loom-word-copy", type: "button", title: `Copy “${word}”`, dir: "auto" };
  return h(
    "span",
    { class: "loom-word" },
    h("button", { ...copied, on: { click: () => void copy(word, "Trigger word") } }, word, note && h("small", { class: "loom-muted" }, note)),
    add && part("add", word, "trigger words", add),
    send && part("send", word, send.title, send.send),
  );
}

/**
 * @param {"add" | "send"} kind
 * @param {string} word
 * @param {string} place
 * @param {(word: string) => void} act
 */
function part(kind, word, place, act) {
  const verb = kind === "add" ? "Add" : "Send";
  const label = { title: `${verb} to ${place}`, "aria-label": `${verb} “${word}” to ${place}` };
  return h("button", { class: "loom-word-send", type: "button", ...label, on: { click: () => act(word) } }, icon(kind));
}

/**
 * @param {readonly string[]} words
 * @param {Send | null} send
 */
export function wordList(words, send) {
  if (!words.length) return h("p", { class: "loom-muted" }, "The file and what lies beside it name none.");
  return h(
    "div",
    { class: "loom-words" },
    words.map((word) => wordChip(word, { send })),
    words.length > 1 &&
      h(
        "button",
        { class: "loom-button loom-bordered", type: "button", on: { click: () => void copy(words.join(", "), "Trigger words") } },
        icon("copy"),
        "Copy all",
      ),
  );
}
