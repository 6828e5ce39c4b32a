// @ts-check
/** The dialog about one LoRA. */

import { h, icon } from "../dom.mjs";
import { stylesheet } from "../host.mjs";
import { library } from "../picker/library.mjs";
import { keepEvents } from "../picker/popup.mjs";
import { stemOf } from "../picker/choice.mjs";
import { about as ask } from "../server.mjs";
import { factsColumn } from "./facts.mjs";
import { metadataPanel } from "./metadata.mjs";
import { normsPanel } from "./norms.mjs";
import { notesForm } from "./notes.mjs";
import { overview } from "./overview.mjs";
import { withoutControls } from "./plain_text.mjs";
import { faultLine, reportPanel } from "./report.mjs";
import { tabs } from "./tabs.mjs";
import { sendTarget } from "./target.mjs";

/**
 * @typedef {import("../server.mjs").About} About
 *
 * @typedef {object} AboutOptions
 * @property {import("../host.mjs").LGraphNode} [node] the one it was opened from; its prompts are offered for trigger words
 * @property {(word: string) => void} [onSend] takes a trigger word instead of a prompt of the graph
 * @property {(strength: number) => void} [onStrength] takes the recommended strength
 */

/**
 * Shows what is known of a LoRA.
 *
 * @param {string} name in the host's list
 * @param {AboutOptions} [options]
 */
export function openAbout(name, options = {}) {
  stylesheet("about/about.css");
  stylesheet("about/panels.css");
  const before = document.activeElement;
  const title = h("h2", { class: "loom-cut", dir: "auto" }, withoutControls(library.entry(name)?.title || stemOf(name)));
  const path = h("div", { class: "loom-muted loom-cut", dir: "auto", title: name }, name);
  const body = h("div", { class: "loom-about-body" }, h("p", { class: "loom-muted loom-busy", role: "status" }, "Reading the file…"));
  const close = h("button", { class: "loom-button loom-icon-only", type: "button", title: "Close", "aria-label": "Close" }, icon("close"));
  const dialog = h(
    "dialog",
    { class: "loom loom-about", "aria-label": `About ${withoutControls(name)}`, tabindex: -1 },
    h("header", {}, h("div", { class: "loom-about-title" }, title, path), close),
    body,
  );
  /** @type {ReturnType<typeof fill> | null} */
  let filled = null;
  const unsubscribe = library.subscribe(() => filled?.facts.update(library.entry(name)));

  const end = async () => {
    // Notes that cannot be saved keep it open, with the reason; a second try to close gives them up.
    if (filled?.notes.dirty() && !dialog.dataset.failed && !(await filled.notes.store())) {
      dialog.dataset.failed = "yes";
      return;
    }
    dialog.close();
  };
  close.addEventListener("click", () => void end());
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    void end();
  });
  dialog.addEventListener("input", () => delete dialog.dataset.failed);
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog) void end();
  });
  dialog.addEventListener("close", () => {
    unsubscribe();
    dialog.remove();
    if (before instanceof HTMLElement) before.focus({ preventScroll: true });
  });
  keepEvents(dialog);

  const load = async () => {
    try {
      const found = await ask(name);
      const told = library.entry(name);
      // A file that came while the page was open.
      if (!told || told.state === "new") library.look();
      title.textContent = withoutControls(told?.title || found.metadata["modelspec.title"] || stemOf(name));
      filled = fill(body, found, { ...options, title: title.textContent, close: () => void end() });
      filled.facts.update(told);
    } catch (fault) {
      const again = h("button", { class: "loom-button loom-bordered", type: "button", on: { click: load } }, "Try again");
      body.replaceChildren(h("div", { class: "loom-about-failed" }, faultLine(/** @type {Error} */ (fault).message), again));
    }
  };

  document.body.append(dialog);
  dialog.showModal();
  // No button is the one to press.
  dialog.focus();
  void load();
}

/**
 * @param {HTMLElement} body
 * @param {About} about
 * @param {AboutOptions & { title: string, close: () => void }} options
 */
function fill(body, about, { title, close, node, onSend, onStrength }) {
  const target = sendTarget({ node, onSend });
  const notes = notesForm(about, () => void library.refresh());
  const useStrength = onStrength
    ? (/** @type {number} */ strength) => {
        onStrength(strength);
        close();
      }
    : null;
  const { bar, body: panels } = tabs("About", [
    { name: "Overview", panel: () => overview(about, { target, useStrength, notes }) },
    { name: "Blocks", panel: () => normsPanel(about.name) },
    { name: "Report", panel: () => reportPanel(about) },
    { name: `Metadata (${Object.keys(about.metadata).length})`, panel: () => metadataPanel(about.metadata) },
  ]);
  const facts = factsColumn(about, title);
  body.replaceChildren(facts.element, h("div", { class: "loom-about-main" }, bar, panels));
  return { notes, facts };
}
