// @ts-check
/**
 * Elements from plain values. Text becomes text nodes and attributes are set as such, so what a stranger wrote into a
 * file cannot become HTML here; the linter forbids the other ways.
 */

/**
 * @typedef {Node | string | number | null | undefined | false} Child
 * @typedef {Record<string, unknown>} Properties `class`, `dataset`, `style` (an object), `on` (an object of listeners),
 *   `aria-...` and other attributes; true is an attribute without value, false, null and undefined are none.
 */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} [properties]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[Tag]}
 *
 * @example h("button", { class: "loom-button", on: { click: add } }, "Add LoRA")
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  set(element, properties);
  append(element, children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * The same for SVG.
 *
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} [properties]
 * @param {...(Child | Child[])} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svg(tag, properties = {}, ...children) {
  const element = /** @type {SVGElementTagNameMap[Tag]} */ (document.createElementNS(SVG, tag));
  set(element, properties);
  append(element, children);
  return element;
}

/**
 * @param {HTMLElement | SVGElement} element
 * @param {Properties} properties
 */
export function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") {
      for (const [type, listener] of Object.entries(/** @type {Record<string, EventListener>} */ (value))) {
        element.addEventListener(type, listener);
      }
    } else if (name === "dataset") {
      Object.assign(element.dataset, value);
    } else if (name === "style") {
      for (const [property, text] of Object.entries(/** @type {Record<string, string>} */ (value))) {
        element.style.setProperty(property, text);
      }
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value === false || value === null || value === undefined) {
      element.removeAttribute(name);
    } else {
      element.setAttribute(name, String(value));
    }
  }
}

/**
 * @param {Element} element
 * @param {(Child | Child[])[]} children
 */
function append(element, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * A line icon, 16 pixels, in the colour of the text; `ICONS` has their paths.
 *
 * @param {keyof typeof ICONS} name
 * @param {Properties} [properties]
 */
export function icon(name, properties = {}) {
  return svg(
    "svg",
    {
      viewBox: "0 0 16 16",
      width: 16,
      height: 16,
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 1.5,
      "stroke-linecap": "round",
      "stroke-linejoin": "round",
      "aria-hidden": "true",
      ...properties,
    },
    svg("path", { d: ICONS[name] }),
  );
}

/** Our own drawings. */
export const ICONS = {
  add: "M8 3v10M3 8h10",
  close: "M4 4l8 8M12 4l-8 8",
  grip: "M6 4v.01M10 4v.01M6 8v.01M10 8v.01M6 12v.01M10 12v.01",
  info: "M8 7.2v4M8 4.6v.01M14 8A6 6 0 112 8a6 6 0 0112 0z",
  warning: "M8 6v3.2M8 11.4v.01M7.1 2.7L1.7 12a1 1 0 00.9 1.5h10.8a1 1 0 00.9-1.5L8.9 2.7a1 1 0 00-1.8 0z",
  copy: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
  paste: "M5 3.5H3.5v10h9v-10H11M6 2.5h4v2H6z",
  search: "M7 11.5a4.5 4.5 0 100-9 4.5 4.5 0 000 9zM10.3 10.3L14 14",
  star: "M8 2l1.8 3.8 4.2.5-3.1 2.9.8 4.1L8 11.3l-3.7 2 .8-4.1L2 6.3l4.2-.5z",
  link: "M6.5 9.5l3-3M7.5 4.8l1-1a2.6 2.6 0 013.7 3.7l-1 1M8.5 11.2l-1 1a2.6 2.6 0 01-3.7-3.7l1-1",
  split: "M3 4h3l4 8h3M10 4h3M11.5 2.5L13 4l-1.5 1.5",
  bars: "M3 13V8M6.3 13V4M9.7 13V9.5M13 13V6",
  folder: "M2 4.5h4l1.5 1.5H14v7H2z",
  down: "M4 6l4 4 4-4",
  up: "M4 10l4-4 4 4",
  right: "M6 4l4 4-4 4",
  more: "M3.5 8v.01M8 8v.01M12.5 8v.01",
  stop: "M4 4h8v8H4z",
  play: "M5 3.5l7 4.5-7 4.5z",
  refresh: "M13 8a5 5 0 11-1.5-3.6M13 2.5v2.8h-2.8",
  check: "M3.5 8.5l3 3 6-7",
  save: "M3 3h8l2 2v8H3zM5.5 3v3h4V3M5.5 13V9.5h5V13",
  bin: "M3 4.5h10M6.5 4V2.5h3V4M4.5 4.5l.6 9h5.8l.6-9M7 7v4M9 7v4",
  send: "M2.5 8h9M8 4.5L11.5 8 8 11.5M14 3v10",
};
