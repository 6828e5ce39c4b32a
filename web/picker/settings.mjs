// @ts-check
/** What the popup remembers from one time to the next, in the browser. */

const KEY = "loom.picker";

/**
 * `base`: "model" follows the connected model, "" is all, else a family's name.
 *
 * @typedef {{ base: string, sort: "name" | "newest" }} Remembered
 */

/** @returns {Remembered} */
export function remembered() {
  /** @type {any} */
  let found;
  try {
    found = JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    found = {};
  }
  return {
    base: typeof found?.base === "string" ? found.base : "model",
    sort: found?.sort === "newest" ? "newest" : "name",
  };
}

/** @param {Remembered} settings */
export function remember(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // A browser that keeps nothing.
  }
}
