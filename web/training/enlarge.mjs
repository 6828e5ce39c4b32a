// @ts-check
/** A picture as large as the window allows; arrow keys go on to the next prompt. */

import { h, icon } from "../dom.mjs";
import { viewUrl } from "../server.mjs";

/**
 * @param {import("../server.mjs").Image[]} images
 * @param {number} index of the one that is shown first
 * @param {string} title
 */
export function enlarge(images, index, title) {
  const before = document.activeElement;
  let at = index;
  const picture = h("img", { alt: "" });
  const caption = h("figcaption", {});
  const button = (/** @type {string} */ label, /** @type {"close" | "right"} */ name, /** @type {() => void} */ click, side = "") =>
    h("button", { class: `loom-button loom-icon-only ${side}`, type: "button", title: label, "aria-label": label, on: { click } }, icon(name));
  const move = (/** @type {number} */ by) => {
    at = (at + by + images.length) % images.length;
    const image = images[at];
    if (!image) return;
    picture.src = viewUrl(image);
    picture.alt = image.prompt ?? "";
    caption.textContent = [image.prompt, title].filter(Boolean).join(" · ");
  };
  const close = button("Close", "close", () => dialog.close(), "loom-training-close");
  close.autofocus = true;
  const dialog = h(
    "dialog",
    { class: "loom loom-training-large", "aria-label": `Sample, ${title}` },
    h("figure", {}, picture, caption),
    images.length > 1 ? button("Previous prompt", "right", () => move(-1), "loom-training-back") : null,
    images.length > 1 ? button("Next prompt", "right", () => move(1), "loom-training-on") : null,
    close,
  );
  dialog.addEventListener("keydown", (event) => {
    // Keys are the dialog's alone: the host would take some for the graph.
    event.stopPropagation();
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before instanceof HTMLElement) before.focus();
  });
  document.body.append(dialog);
  move(0);
  dialog.showModal();
}
