// @ts-check
/**
 * The curves of one or more runs: uPlot with what a training wants of it.
 *
 * @typedef {import("../server.mjs").Curve} Curve
 *
 * @typedef {object} Line a run in the chart
 * @property {string} name
 * @property {string} colour a CSS custom property, `--loom-curve-1`
 * @property {Curve} losses
 * @property {Curve} validation
 * @property {Record<string, Curve>} rates
 *
 * @typedef {object} Look
 * @property {number} smoothing share that a running mean keeps, 0 for none
 * @property {boolean} log whether the losses' axis is logarithmic
 * @property {boolean} rates whether learning rates are drawn, on an axis of their own
 */

import uPlot from "../vendor/uplot/uPlot.mjs";
import { h } from "../dom.mjs";
import { described, number, smoothed, thinned } from "./curves.mjs";

const LOSS = "loss";
const RATE = "rate";

export class Chart {
  /** @type {Line[]} */
  #lines = [];
  /** @type {Look} */
  #look = { smoothing: 0.9, log: false, rates: false };
  /** @type {uPlot | null} */
  #plot = null;
  #shape = "";

  /**
   * @param {object} options
   * @param {boolean} options.small without axes' names and pointer, for a place that the host scales
   */
  constructor({ small }) {
    this.small = small;
    this.description = h("p", { class: "loom-unseen", role: "status" });
    this.readout = h("div", { class: "loom-training-readout loom-muted", "aria-hidden": "true" });
    this.area = h("div", { class: "loom-training-plot", role: "img" });
    // Takes on a colour of the theme, so that the browser says what it is: a canvas knows no variables.
    this.probe = h("span", { hidden: true });
    this.element = h(
      "div",
      { class: "loom-training-chart" },
      this.area,
      small ? null : this.readout,
      this.description,
      this.probe,
    );
    this.resizing = new ResizeObserver(() => this.#resize());
    this.resizing.observe(this.area);
    // The host's theme is classes and variables on the page's outermost elements.
    this.theming = new MutationObserver(() => this.#draw(true));
    for (const element of [document.documentElement, document.body]) {
      this.theming.observe(element, { attributes: true, attributeFilter: ["class", "style"] });
    }
  }

  /**
   * @param {Line[]} lines
   * @param {Look} look
   */
  show(lines, look) {
    this.#lines = lines;
    this.#look = look;
    const texts = lines.map(
      (line) =>
        `${line.name}: training loss ${described(line.losses)}` +
        (line.validation.length ? `; validation ${described(line.validation)}` : ""),
    );
    this.description.textContent = texts.join(". ");
    this.area.setAttribute("aria-label", `Chart of losses. ${texts.join(". ")}`);
    this.#draw(false);
  }

  destroy() {
    this.resizing.disconnect();
    this.theming.disconnect();
    this.#plot?.destroy();
    this.#plot = null;
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.area;
    if (!width || !height) return;
    if (this.#plot) this.#plot.setSize({ width, height });
    else this.#draw(false);
  }

  #draw(/** @type {boolean} */ anew) {
    const { clientWidth: width, clientHeight: height } = this.area;
    if (!width || !height || !this.area.isConnected) return;
    const { data, series } = this.#series();
    // Of the same curves only the numbers change; zoom and pointer stay.
    const shape = JSON.stringify([series.map(({ label, scale, points }) => [label, scale, points?.show]), this.#look.log]);
    if (this.#plot && !anew && shape === this.#shape) {
      const zoomed = this.#isZoomed(this.#plot);
      this.#plot.setData(data, !zoomed);
      if (zoomed) this.#plot.redraw();
      return;
    }
    this.#shape = shape;
    this.#plot?.destroy();
    this.#plot = new uPlot({ width, height, ...this.#options(series) }, data, this.area);
  }

  #isZoomed(/** @type {uPlot} */ plot) {
    const steps = plot.data[0];
    const { min, max } = plot.scales.x ?? {};
    const [first, last] = [steps[0], steps[steps.length - 1]];
    return min !== undefined && max !== undefined && first !== undefined && last !== undefined && (min > first || max < last);
  }

  /** @returns {{ data: uPlot.AlignedData, series: uPlot.Series[] }} */
  #series() {
    /** @type {uPlot.AlignedData[]} */
    const tables = [];
    /** @type {uPlot.Series[]} */
    const series = [{ label: "step" }];
    const many = this.#lines.length > 1;
    const add = (/** @type {Curve} */ curve, /** @type {uPlot.Series} */ one) => {
      if (!curve.length) return;
      const log = one.scale === LOSS && this.#look.log;
      const kept = thinned(log ? curve.filter(([, value]) => value > 0) : curve);
      tables.push([kept.map(([step]) => step), kept.map(([, value]) => value)]);
      series.push({ spanGaps: true, points: { show: kept.length === 1 }, ...one });
    };
    for (const { name, colour, losses, validation, rates } of this.#lines) {
      const stroke = () => this.#colour(colour);
      const { smoothing } = this.#look;
      const label = (/** @type {string} */ what) => (many ? `${name}: ${what}` : what);
      add(losses, { label: label("loss"), scale: LOSS, stroke, alpha: smoothing ? 0.28 : 1, width: smoothing ? 1 : 1.5 });
      if (smoothing) add(smoothed(losses, smoothing), { label: label("mean"), scale: LOSS, stroke, width: 2 });
      const own = many ? stroke : () => this.#colour("--loom-curve-validation");
      const points = { show: true, size: 5, fill: own };
      add(validation, { label: label("validation"), scale: LOSS, stroke: own, width: 1.5, dash: many ? [5, 3] : [], points });
      if (this.#look.rates) {
        for (const [group, curve] of Object.entries(rates)) {
          const faint = () => this.#colour(many ? colour : "--loom-curve-rate");
          add(curve, { label: label(`rate ${group}`), scale: RATE, stroke: faint, width: 1, dash: [2, 3] });
        }
      }
    }
    const data = tables.length ? uPlot.join(tables) : /** @type {uPlot.AlignedData} */ ([[]]);
    return { data, series };
  }

  /**
   * @param {uPlot.Series[]} series
   * @returns {Omit<uPlot.Options, "width" | "height">}
   */
  #options(series) {
    const text = () => this.#colour("--loom-muted");
    const faint = () => this.#colour("--loom-grid");
    const font = `${this.small ? 10 : 11}px Inter, system-ui, sans-serif`;
    const line = { stroke: faint, width: 1 };
    const axis = { stroke: text, font, ticks: { ...line, size: 4 }, grid: line, gap: 4 };
    const values = (/** @type {uPlot} */ _, /** @type {(number | null)[]} */ splits) =>
      splits.map((one) => (one === null ? "" : number(one)));
    const rates = series.some(({ scale }) => scale === RATE);
    return {
      series,
      legend: { show: false },
      cursor: this.small
        ? { show: false }
        : { drag: { x: true, y: false }, points: { size: 6 }, focus: { prox: 24 } },
      padding: [8, rates ? 0 : 16, 0, 0], // half of the last step's number is beyond the last step
      scales: {
        x: { time: false },
        // A single point, or a flat line, has a range too.
        [LOSS]: { distr: this.#look.log ? 3 : 1 },
        [RATE]: { range: (_, __, high) => [0, (high || 1) * 1.05] },
      },
      axes: [
        { ...axis, size: this.small ? 22 : 26, space: this.small ? 60 : 80, incrs: WHOLE },
        { ...axis, scale: LOSS, size: this.small ? 40 : 48, space: this.small ? 26 : 30, values },
        ...(rates ? [{ ...axis, scale: RATE, side: /** @type {1} */ (1), size: 54, grid: { show: false }, values }] : []),
      ],
      hooks: this.small ? {} : { setCursor: [(plot) => this.#read(plot)] },
    };
  }

  /** The numbers under the pointer, in one line. */
  #read(/** @type {uPlot} */ plot) {
    const at = plot.cursor.idx;
    if (at === null || at === undefined || !plot.cursor.left || plot.cursor.left < 0) {
      this.readout.textContent = "";
      return;
    }
    const parts = [`step ${plot.data[0][at]}`];
    plot.series.forEach((one, index) => {
      const value = index ? plot.data[index]?.[at] : null;
      if (value !== null && value !== undefined) parts.push(`${String(one.label)} ${number(value)}`);
    });
    this.readout.textContent = parts.join("  ·  ");
  }

  #colour(/** @type {string} */ name) {
    this.probe.style.color = `var(${name})`;
    return getComputedStyle(this.probe).color;
  }
}

/** Between two marks of the axis of steps: there is no half step. */
const WHOLE = [1, 2, 5].flatMap((one) => [0, 1, 2, 3, 4, 5, 6].map((power) => one * 10 ** power)).sort((a, b) => a - b);
