// @ts-check
/**
 * A copy of the index of LoRAs that follows the server's: the whole of it once, then what changed. It asks through a
 * function that it is given, so it runs without a page; `library.mjs` has the page's one.
 *
 * @typedef {import("../server.mjs").Entry} Entry
 * @typedef {import("../server.mjs").Library} Answer
 * @typedef {import("../server.mjs").LibraryState} LibraryState
 */

/**
 * The entries after an answer of the server, as a new map in the order of their names.
 *
 * @param {ReadonlyMap<string, Entry>} entries
 * @param {Answer} answer
 * @param {boolean} whole whether the answer is all there is, not what changed
 * @returns {Map<string, Entry>}
 */
export function merged(entries, answer, whole) {
  const found = new Map(whole ? [] : entries);
  for (const name of answer.gone) found.delete(name);
  let added = false;
  for (const entry of answer.loras) {
    added ||= !found.has(entry.name);
    found.set(entry.name, entry);
  }
  return added ? new Map([...found].sort(([a], [b]) => order(a, b))) : found;
}

// Upper and lower case together, numbers by their value: as file managers do.
const { compare } = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/**
 * @param {string} a
 * @param {string} b
 */
const order = (a, b) => compare(a, b) || (a < b ? -1 : 1);

const LATER = 2500;

export class Catalogue {
  /** @type {ReadonlyMap<string, Entry>} by name; another map after each change */
  entries = new Map();
  /** Why the last question failed, "" when it did not. */
  error = "";
  /** Whether the server has answered at all. */
  loaded = false;
  /** @type {LibraryState} how far the server is with looking into the files */
  state = { files: 0, described: 0, hashed: 0, busy: false };

  #version = 0;
  /** @type {Promise<void> | null} */
  #running = null;
  #again = false;
  /** @type {Promise<void> | null} */
  #ready = null;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {Map<string, Entry> | null} */
  #hashes = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #later;
  /** @type {(since?: number) => Promise<Answer>} */
  #ask;

  /** @param {(since?: number) => Promise<Answer>} ask */
  constructor(ask) {
    this.#ask = ask;
  }

  /** The first answer; asked for when somebody first wants it. It comes to its end after a fault too: see `error`. */
  get ready() {
    return (this.#ready ??= this.refresh());
  }

  /** Whether somebody wanted it yet; until then there is nothing to keep up to date. */
  get wanted() {
    return this.#ready !== null;
  }

  /** @param {string} name */
  entry(name) {
    return this.entries.get(name);
  }

  /**
   * The file with a content, wherever it lies now.
   *
   * @param {string} autov3
   */
  byHash(autov3) {
    this.#hashes ??= new Map(
      [...this.entries.values()].flatMap((entry) => (entry.autov3 ? [[entry.autov3.toLowerCase(), entry]] : [])),
    );
    return autov3 ? this.#hashes.get(autov3.toLowerCase()) : undefined;
  }

  /**
   * @param {() => void} listener called after each change of the entries, the state or the error
   * @returns {() => void} ends it
   */
  subscribe(listener) {
    this.#listeners.add(listener);
    void this.ready;
    return () => void this.#listeners.delete(listener);
  }

  /** The server's index is at a version: ask for the rest of it unless it is here already. */
  heard(/** @type {number} */ version) {
    if (this.wanted && version !== this.#version) void this.refresh();
  }

  /**
   * Asks for what changed; never throws. Questions do not overlap: one that comes while another runs is asked after it.
   *
   * @param {{ whole?: boolean }} [options] whole: all of it, after the server started anew
   */
  refresh({ whole = false } = {}) {
    if (whole) this.#version = 0;
    if (this.#running) this.#again = true;
    else {
      this.#running = this.#refresh().finally(() => {
        this.#running = null;
      });
      this.#ready ??= this.#running;
    }
    return this.#running ?? Promise.resolve();
  }

  /**
   * Looks for files that are new: now, and once more when the server is willing to look at its folders again, since it
   * does so at most every second or two.
   */
  look() {
    void this.refresh();
    clearTimeout(this.#later);
    this.#later = setTimeout(() => void this.refresh(), LATER);
  }

  async #refresh() {
    do {
      this.#again = false;
      const since = this.#version;
      try {
        const answer = await this.#ask(since || undefined);
        this.entries = merged(this.entries, answer, answer.full);
        this.#hashes = null;
        // Somebody may have asked for the whole meanwhile.
        this.#version = this.#version === since ? answer.version : 0;
        this.state = answer.state;
        this.loaded = true;
        this.error = "";
      } catch (fault) {
        this.error = (fault instanceof Error && fault.message) || "The server did not answer.";
        this.#again = false;
      }
      for (const listener of [...this.#listeners]) listener();
    } while (this.#again);
  }
}
