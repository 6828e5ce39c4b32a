// @ts-check
/**
 * What the user writes about a LoRA, saved beside the file: notes, a strength, trigger words. Saved by the button, by
 * Ctrl+S, and when the dialog closes, so that nothing is lost.
 */

import { h, icon } from "../dom.mjs";
import { saveNotes } from "../server.mjs";
import { wordsOf } from "./values.mjs";

/** @typedef {import("../server.mjs").About} About */

/**
 * @param {About} about
 * @param {(about: About) => void} saved called with the answer
 */
export function notesForm(about, saved) {
  let known = about;
  const notes = h("textarea", { class: "loom-input", rows: 4, dir: "auto", spellcheck: "true" });
  const words = h("input", { class: "loom-input", type: "text", dir: "auto", placeholder: "ink style, fine lines" });
  const strength = h("input", { class: "loom-input loom-notes-strength", type: "number", step: "0.05", min: -100, max: 100, placeholder: "–" });
  const status = h("span", { class: "loom-muted loom-cut", role: "status" });
  const save = h("button", { class: "loom-button loom-primary", type: "submit", disabled: true }, icon("save"), "Save");
  const revert = h("button", { class: "loom-button", type: "button", disabled: true, on: { click: () => fill() } }, "Revert");
  const form = h(
    "form",
    { class: "loom-notes" },
    field("Notes", notes),
    h(
      "div",
      { class: "loom-notes-line" },
      field("Trigger words (the nodes’ output has them too)", words),
      field("Strength", strength),
    ),
    h("div", { class: "loom-about-bar" }, save, revert, status),
  );

  const given = () => ({
    notes: known.sidecar.notes,
    trigger_words: known.sidecar.trigger_words.join(", "),
    strength: known.sidecar.strength,
  });
  const written = () => ({
    notes: notes.value,
    trigger_words: words.value,
    strength: strength.value.trim() === "" ? null : Number(strength.value),
  });

  function fill() {
    const { notes: text, trigger_words: list, strength: number } = given();
    notes.value = text;
    words.value = list;
    strength.value = number === null ? "" : String(number);
    status.textContent = about.sidecar.sources.length ? `Kept in ${known.sidecar.sources.join(", ")}` : "Saved beside the file";
    changed();
  }

  /** Only what is different: the rest may stand in the sidecars of other programs. */
  function changes() {
    const [before, now] = [given(), written()];
    /** @type {{ notes?: string, strength?: number | null, trigger_words?: string[] }} */
    const found = {};
    // A textarea turns other line ends into its own.
    if (now.notes !== before.notes.replace(/\r\n?/g, "\n")) found.notes = now.notes;
    if (now.trigger_words.trim() !== before.trigger_words.trim()) found.trigger_words = wordsOf(now.trigger_words);
    if (now.strength !== before.strength && !Number.isNaN(now.strength)) found.strength = now.strength;
    return found;
  }

  const dirty = () => Object.keys(changes()).length > 0;

  /** @param {boolean} on */
  function enable(on) {
    // A button that is disabled keeps the focus and swallows keys, Escape too.
    if (!on && (document.activeElement === save || document.activeElement === revert)) notes.focus();
    save.disabled = revert.disabled = !on;
  }

  function changed() {
    const now = dirty();
    enable(now);
    if (now) {
      status.className = "loom-muted loom-cut";
      status.textContent = "Not saved yet";
    }
  }

  /** @returns {Promise<boolean>} whether all is saved */
  async function store() {
    const different = changes();
    if (!Object.keys(different).length) return true;
    enable(false);
    status.textContent = "Saving…";
    try {
      const answer = await saveNotes(known.name, different);
      known = answer;
      const places = answer.saved ?? answer.sidecar.sources;
      changed();
      if (!dirty()) status.textContent = `Saved in ${places.join(", ")}`;
      saved(answer);
      return true;
    } catch (fault) {
      changed();
      status.className = "loom-error-text loom-cut";
      status.textContent = `Not saved: ${/** @type {Error} */ (fault).message}`;
      status.title = status.textContent;
      return false;
    }
  }

  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void store();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "s" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    void store();
  });
  fill();

  /** Puts a word into the field of trigger words. @param {string} word */
  function addWord(word) {
    words.value = [...new Set([...wordsOf(words.value), word])].join(", ");
    changed();
    words.focus();
  }

  return { element: form, store, dirty, addWord };
}

/**
 * @param {string} name
 * @param {HTMLElement} input
 */
const field = (name, input) => h("label", { class: "loom-notes-field" }, h("span", { class: "loom-muted" }, name), input);
