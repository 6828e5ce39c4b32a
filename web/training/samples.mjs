// @ts-check
/**
 * Samples of a run, a picture a prompt, with a slider over the moments at which they were drawn; those of runs that it
 * is compared with stand below.
 *
 * @typedef {import("../server.mjs").Image} Image
 * @typedef {import("../server.mjs").Moment} Moment
 * @typedef {{ name: string, colour: string, samples: Moment[] }} Group
 */

import { h, set } from "../dom.mjs";
import { viewUrl } from "../server.mjs";
import { enlarge } from "./enlarge.mjs";

export class Samples {
  /** @type {Group[]} */
  #groups = [];
  /** Step that is shown; Infinity follows the newest. */
  #step = Infinity;
  #shown = "";

  constructor() {
    this.slider = h("input", {
      type: "range",
      min: 0,
      step: 1,
      class: "loom-training-slider",
      "aria-label": "Step of the samples",
      on: { input: () => this.#slid() },
    });
    this.label = h("output", { class: "loom-training-step" });
    this.bar = h("div", { class: "loom-training-bar" }, this.slider, this.label);
    this.pictures = h("div", { class: "loom-training-pictures" });
    this.element = h("div", { class: "loom-training-samples", hidden: true }, this.bar, this.pictures);
  }

  /**
   * @param {Group[]} groups the first is the run itself
   */
  show(groups) {
    if (this.#groups[0]?.name !== groups[0]?.name) this.#step = Infinity;
    this.#groups = groups;
    this.#draw();
  }

  /** Whether there is a picture. */
  get any() {
    return this.#groups.some(({ samples }) => samples.length);
  }

  #moments() {
    return this.#groups.find(({ samples }) => samples.length)?.samples ?? [];
  }

  #slid() {
    const moments = this.#moments();
    const at = Number(this.slider.value);
    this.#step = at >= moments.length - 1 ? Infinity : (moments[at]?.step ?? Infinity);
    this.#draw();
  }

  #draw() {
    const moments = this.#moments();
    this.element.hidden = !this.any;
    if (!this.any) return;
    const at = nearest(moments, this.#step);
    const moment = moments[at];
    const text = `step ${moment?.step ?? 0}`;
    set(this.slider, { max: moments.length - 1, disabled: moments.length < 2, "aria-valuetext": text });
    this.slider.value = String(at);
    this.label.textContent = text;
    this.bar.hidden = moments.length < 2 && this.#groups.length < 2;
    const shown = this.#groups
      .map((group) => ({ ...group, moment: group.samples[nearest(group.samples, moment?.step ?? Infinity)] }))
      .filter((group) => group.moment);
    const key = JSON.stringify(shown.map(({ name, moment: one }) => [name, one]));
    if (key === this.#shown) return; // pictures that are loaded stay as they are
    this.#shown = key;
    const many = shown.length > 1;
    this.pictures.replaceChildren(
      ...shown.map(({ name, colour, moment: one }) => {
        const images = one?.images ?? [];
        const title = `${name}, step ${one?.step}`;
        return h(
          "div",
          { class: "loom-training-group" },
          many ? h("div", { class: "loom-training-of" }, swatch(colour), h("span", { class: "loom-cut" }, title)) : null,
          h("div", { class: "loom-training-row", style: { "--count": String(images.length) } }, ...images.map((image, index) => picture(images, index, title))),
        );
      }),
    );
  }
}

/** A spot in the colour of a run. */
export const swatch = (/** @type {string} */ colour) =>
  h("span", { class: "loom-training-swatch", style: { background: `var(${colour})` }, "aria-hidden": "true" });

/**
 * @param {Image[]} images
 * @param {number} index
 * @param {string} title
 */
function picture(images, index, title) {
  const image = images[index];
  if (!image) return null;
  const prompt = image.prompt || `prompt ${index + 1}`;
  const element = h("img", { src: viewUrl(image), alt: "", draggable: "false", loading: "lazy" });
  const button = h(
    "button",
    {
      class: "loom-training-picture",
      type: "button",
      title: prompt,
      "aria-label": `Enlarge: ${prompt}, ${title}`,
      on: { click: () => enlarge(images, index, title) },
    },
    element,
  );
  element.addEventListener("error", () => button.replaceChildren(h("span", { class: "loom-muted" }, "not there")), { once: true });
  return h("figure", {}, button, h("figcaption", { class: "loom-cut loom-muted", title: prompt }, prompt));
}

/**
 * Index of the last moment that is not after a step, or of the first.
 *
 * @param {Moment[]} moments
 * @param {number} step
 */
export function nearest(moments, step) {
  let found = 0;
  moments.forEach((moment, index) => {
    if (moment.step <= step) found = index;
  });
  return found;
}
