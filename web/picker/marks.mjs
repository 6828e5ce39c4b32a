// @ts-check
/** What a user marked: favourites, kept by the host per user, and what was used recently, kept by the browser. */

import { readUserData, writeUserData } from "../userdata.mjs";

const FILE = "loom/favourites.json";
const RECENT = "loom.recent";
const MOST_RECENT = 60;

/** Names of favourites; another set after each change. @type {ReadonlySet<string>} */
let names = new Set();
/** @type {Promise<void> | null} */
let loading = null;
let writing = Promise.resolve();

/** The favourites, asked for once; a fault leaves none and is told to the one who asks. */
export async function favourites() {
  loading ??= readUserData(FILE, /** @type {string[]} */ ([])).then((found) => {
    names = new Set(Array.isArray(found) ? found.filter((name) => typeof name === "string") : []);
  });
  try {
    await loading;
  } catch (fault) {
    loading = null;
    throw fault;
  }
  return names;
}

/** The favourites as they are known now. */
export const knownFavourites = () => names;

/**
 * Adds a LoRA to the favourites or takes it out. The answer comes when it is written.
 *
 * @param {string} name
 * @param {boolean} on
 */
export async function setFavourite(name, on) {
  await favourites();
  names = new Set(on ? [...names, name] : [...names].filter((one) => one !== name));
  // One after the other, each with what is known by then: the last write has all.
  writing = writing.catch(() => undefined).then(() => writeUserData(FILE, [...names].sort()));
  await writing;
}

/** Names of what was used, the latest first. @returns {string[]} */
export function recent() {
  try {
    const found = JSON.parse(localStorage.getItem(RECENT) ?? "[]");
    return Array.isArray(found) ? found.filter((name) => typeof name === "string") : [];
  } catch {
    return [];
  }
}

/** @param {readonly string[]} used the latest first */
export function markUsed(used) {
  const all = [...new Set([...used, ...recent()])].slice(0, MOST_RECENT);
  try {
    localStorage.setItem(RECENT, JSON.stringify(all));
  } catch {
    // A browser that keeps nothing: there is no list of recent ones then.
  }
}
