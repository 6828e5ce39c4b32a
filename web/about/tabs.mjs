// @ts-check
/** Tabs: one of several panels is shown; arrow keys go from tab to tab. A panel is made when it is first shown. */

import { h } from "../dom.mjs";

let made = 0;

/**
 * @param {string} label
 * @param {{ name: string, panel: () => HTMLElement }[]} all
 */
export function tabs(label, all) {
  const group = `loom-tabs-${++made}`;
  const heads = all.map(({ name }, i) =>
    h(
      "button",
      { class: "loom-tab", type: "button", role: "tab", id: `${group}-${i}`, on: { click: () => show(i) } },
      name,
    ),
  );
  /** @type {(HTMLElement | undefined)[]} */
  const panels = all.map(() => undefined);
  const bar = h("div", { class: "loom-tabs", role: "tablist", "aria-label": label }, heads);
  const body = h("div", { class: "loom-tab-body" });

  bar.addEventListener("keydown", (event) => {
    const now = heads.findIndex((head) => head.ariaSelected === "true");
    const moves = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: heads.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = (moves[/** @type {keyof typeof moves} */ (event.key)] + heads.length) % heads.length;
    show(next);
    heads[next]?.focus();
  });

  /** @param {number} index */
  function show(index) {
    const panel = (panels[index] ??= all[index]?.panel());
    heads.forEach((head, i) => {
      head.ariaSelected = String(i === index);
      head.tabIndex = i === index ? 0 : -1;
    });
    if (!panel) return;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `${group}-${index}`);
    body.replaceChildren(panel);
    body.scrollTop = 0;
  }

  show(0);
  return { bar, body };
}
