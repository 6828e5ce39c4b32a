// @ts-check
/** Copying with a word about it. */

import { h, icon } from "../dom.mjs";
import { toast } from "../host.mjs";

/**
 * @param {string} text
 * @param {string} what for the message
 */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast("success", `${what} copied`);
  } catch {
    // A page that is not served over https has no clipboard.
    toast("warn", "The browser does not let the page copy", text);
  }
}

/**
 * @param {string} what
 * @param {() => string} text
 */
export const copyButton = (what, text) =>
  h(
    "button",
    {
      class: "loom-button loom-icon-only",
      type: "button",
      title: `Copy ${what}`,
      "aria-label": `Copy ${what}`,
      on: { click: () => void copy(text(), what) },
    },
    icon("copy"),
  );
