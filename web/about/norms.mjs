// @ts-check
/** How much the LoRA changes each block of the model, as bars. */

import { h, svg } from "../dom.mjs";
import { norms } from "../server.mjs";
import { faultLine } from "./report.mjs";
import { roundUp, shortNumber } from "./values.mjs";

/** @typedef {{ name: string, norm: number }} Block */

const [WIDTH, HIGH, TOP] = [720, 182, 10];
const LEFT = 40;
const WIDEST = 72;

/** @param {string} name of a file */
export function normsPanel(name) {
  const panel = h("div", { class: "loom-norms" });
  const load = async () => {
    panel.replaceChildren(h("p", { class: "loom-muted loom-busy", role: "status" }, "Measuring what the file changes…"));
    try {
      const { blocks } = await norms(name);
      panel.replaceChildren(...(blocks.length ? chart(blocks) : [h("p", { class: "loom-muted" }, "The file changes no block.")]));
    } catch (fault) {
      const again = h("button", { class: "loom-button loom-bordered", type: "button", on: { click: load } }, "Try again");
      panel.replaceChildren(faultLine(/** @type {Error} */ (fault).message), again);
    }
  };
  void load();
  return panel;
}

/** @param {Block[]} blocks */
function chart(blocks) {
  const top = roundUp(Math.max(...blocks.map(({ norm }) => norm)));
  const wide = Math.min((WIDTH - LEFT) / blocks.length, WIDEST);
  const y = (/** @type {number} */ norm) => TOP + HIGH * (1 - norm / top);
  const each = Math.ceil(12 / wide);
  // Names lie along the axis where there is room, else they stand.
  const longest = Math.max(...blocks.map(({ name }) => name.length)) * 6.5;
  const along = wide > longest;
  const height = TOP + HIGH + 12 + (along ? 14 : Math.min(longest, 120));
  const readout = h("p", { class: "loom-norms-readout", "aria-live": "polite" }, "Point at a bar, or use the arrow keys.");

  const lines = [0, 0.5, 1].map((part) => [
    svg("line", { x1: LEFT, x2: WIDTH, y1: y(part * top), y2: y(part * top), class: "loom-norms-line" }),
    svg("text", { x: LEFT - 6, y: y(part * top) + 3.5, class: "loom-norms-scale" }, shortNumber(part * top)),
  ]);
  const bars = blocks.map(({ name, norm }, i) => {
    const x = LEFT + i * wide;
    const gap = Math.min(4, wide * 0.25);
    const tall = Math.max(norm > 0 ? 1 : 0, (HIGH * norm) / top);
    const middle = x + wide / 2;
    return svg(
      "g",
      { class: "loom-norms-bar" },
      svg("rect", { x, y: TOP, width: wide, height: HIGH, class: "loom-norms-hit" }),
      svg("rect", { x: x + gap / 2, y: TOP + HIGH - tall, width: wide - gap, height: tall, rx: Math.min(2, wide / 4), class: "loom-norms-fill" }),
      i % each === 0 &&
        svg(
          "text",
          along
            ? { class: "loom-norms-name", x: middle, y: TOP + HIGH + 16, style: { "text-anchor": "middle" } }
            : { class: "loom-norms-name", transform: `translate(${middle + 3.5} ${TOP + HIGH + 6}) rotate(-90)` },
          name,
        ),
    );
  });
  const picture = svg(
    "svg",
    {
      class: "loom-norms-chart",
      viewBox: `0 0 ${WIDTH} ${height}`,
      role: "img",
      tabindex: 0,
      "aria-label": `Norm of the change in each of ${blocks.length} blocks; the numbers are in the table below`,
    },
    lines.flat(),
    bars,
  );

  let active = -1;
  /** @param {number} index */
  const point = (index) => {
    const block = blocks[index];
    if (!block) return;
    bars[active]?.classList.remove("loom-active");
    active = index;
    bars[index]?.classList.add("loom-active");
    const names = h("strong", { dir: "auto" }, block.name);
    readout.replaceChildren(names, ` ${shortNumber(block.norm)}, ${Math.round((100 * block.norm) / Math.max(...blocks.map((one) => one.norm)) || 0)} % of the greatest`);
  };
  bars.forEach((bar, i) => bar.addEventListener("pointerenter", () => point(i)));
  picture.addEventListener("focus", () => point(Math.max(0, active)));
  picture.addEventListener("keydown", (event) => {
    const next = { ArrowRight: active + 1, ArrowLeft: active - 1, Home: 0, End: blocks.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    point(Math.min(Math.max(next, 0), blocks.length - 1));
  });

  const table = h(
    "details",
    { class: "loom-about-listing" },
    h("summary", {}, "As a table"),
    h(
      "table",
      { class: "loom-about-table" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Block"), h("th", { scope: "col" }, "Norm"))),
      h("tbody", {}, blocks.map(({ name, norm }) => h("tr", {}, h("th", { scope: "row", dir: "auto" }, name), h("td", {}, shortNumber(norm))))),
    ),
  );
  const meaning = "The size of the change (Frobenius norm) in each block at strength 1.";
  return [h("p", { class: "loom-muted" }, meaning), readout, picture, table];
}
