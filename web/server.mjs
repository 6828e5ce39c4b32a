// @ts-check
/**
 * The routes of the pack (docs/PAGE.md), one function each.
 *
 * @typedef {{ on: boolean, lora: string, model: number, clip: number, blocks: string, hash: string }} Row
 *
 * @typedef {object} Entry what the index knows of a LoRA
 * @property {string} name in the host's list
 * @property {number} size bytes
 * @property {number} modified seconds
 * @property {string} title
 * @property {string} architecture name of the family, "" where it is unknown
 * @property {string} base title of the family
 * @property {string} format
 * @property {string[]} types
 * @property {string} rank
 * @property {number} used tensors
 * @property {number} total tensors
 * @property {number} problems tensors that are unmatched or do not fit
 * @property {string[]} trigger_words
 * @property {number | null} strength recommended
 * @property {boolean} preview whether there is one
 * @property {string | null} autov3
 * @property {string | null} sha256
 * @property {"new" | "described" | "failed"} state
 * @property {string | null} error
 *
 * @typedef {{ files: number, described: number, hashed: number, busy: boolean }} LibraryState
 * @typedef {{ version: number, full: boolean, state: LibraryState, loras: Entry[], gone: string[] }} Library `full`: all there is
 *
 * @typedef {{ sha256: string, autov2: string, autov3: string | null }} Hashes
 *
 * @typedef {object} Sidecar
 * @property {string} description
 * @property {string} base
 * @property {string} negative
 * @property {string} notes
 * @property {string[]} trigger_words
 * @property {number | null} strength
 * @property {number | null} strength_min
 * @property {number | null} strength_max
 * @property {string[]} sources
 * @property {string[]} warnings
 *
 * @typedef {object} Report as `loom inspect --json` has it
 * @property {string} file
 * @property {string} format
 * @property {string} architecture
 * @property {Record<string, number>} adapter_types
 * @property {Record<string, number>} components
 * @property {Record<string, number>} ranks
 * @property {{ total: number, used: number, unmatched: string[], ignored: Record<string, string>,
 *   misfit: { key: string, expected: unknown, got: number[] }[], left_out?: number }} tensors
 * @property {string[]} trigger_words
 * @property {string[]} [notes]
 *
 * @typedef {{ name: string, size: number, modified: number, report: Report | null, error?: string | null,
 *   metadata: Record<string, string>, sidecar: Sidecar, hashes: Hashes | null, preview: boolean, saved?: string[] }} About `saved`: names of the
 *   sidecars that were just written
 *
 * @typedef {{ fits: boolean | null, matched: number, total: number, reason: string }} Fit
 * @typedef {{ a: number, b: number, cosine: number, shared: number, text: string }} Conflict
 * @typedef {{ architecture: string, title: string, blocks: string[], presets: { name: string, text: string }[],
 *   vectors: { source: string, length: number }[] }} Blocks
 *
 * @typedef {{ filename: string, subfolder: string, type: string, prompt?: string, changed?: number }} Image
 *
 * @typedef {object} LiveRun what was told last of a training that is going on, as `nodes/_train_watcher.py` lists it
 * @property {string} prompt_id
 * @property {string} node
 * @property {{ what: string, done: number, total: number } | null} stage
 * @property {{ step: number, steps: number, loss: number | null, steps_per_second: number,
 *   seconds_left: number | null, memory: number } | null} progress
 * @property {string[]} notes
 * @property {string[]} warnings
 *
 * @typedef {object} Run
 * @property {string} run
 * @property {string} lora name in the host's list, "" where the file is not there
 * @property {number} step
 * @property {number} steps 0 where nobody knows
 * @property {boolean} finished
 * @property {number} modified seconds
 * @property {number | null} loss
 * @property {number} samples how many moments
 * @property {Image | null} preview
 * @property {string} fault
 * @property {LiveRun | null} live
 *
 * @typedef {[step: number, value: number][]} Curve
 * @typedef {{ step: number, images: Image[] }} Moment
 * @typedef {Omit<Run, "samples"> & { config: Record<string, any>, losses: Curve, validation: Curve,
 *   rates: Record<string, Curve>, samples: Moment[] }} WholeRun
 */

import { api } from "./host.mjs";

/** An answer that says what is wrong, in one line. */
export class ServerError extends Error {}

/**
 * @param {string} path below /loom/
 * @param {Record<string, string | number | undefined>} [query]
 */
const get = (path, query) => ask(withQuery(path, query));

/**
 * @param {string} path below /loom/
 * @param {unknown} body
 */
const post = (path, body) =>
  ask(`/loom/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

/**
 * @param {string} path
 * @param {Record<string, string | number | undefined>} [query]
 */
function withQuery(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `/loom/${path}${text && `?${text}`}`;
}

/**
 * @param {string} route
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function ask(route, options) {
  const response = await api.fetchApi(route, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new ServerError(answer.error ?? `${route}: ${response.status} ${response.statusText}`);
  return answer;
}

/** @returns {Promise<Library>} */
export const loras = (/** @type {number | undefined} */ since = undefined) => get("loras", { since });

/** @returns {Promise<About>} */
export const about = (/** @type {string} */ name) => get("lora", { name });

/** @returns {Promise<{ blocks: { name: string, norm: number }[], architecture: string }>} */
export const norms = (/** @type {string} */ name) => get("norms", { name });

/** The address of a preview, for an `img`. */
export const previewUrl = (/** @type {string} */ name, size = 256) =>
  api.apiURL(withQuery("preview", { name, size }));

/** The address of a picture in one of the host's folders. */
export const viewUrl = (/** @type {Image} */ { filename, subfolder, type, changed = 0 }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, t: String(changed) })}`);

/**
 * @param {string} name
 * @param {{ notes?: string, strength?: number | null, trigger_words?: string | string[] }} changes
 * @returns {Promise<About>}
 */
export const saveNotes = (name, changes) => post("notes", { name, ...changes });

/** @returns {Promise<Hashes>} */
export const hash = (/** @type {string} */ name) => post("hash", { name });

/** @returns {Promise<{ rows: Row[], faults: string[] }>} */
export const readRows = (/** @type {unknown} */ rows) => post("rows", { rows });

/**
 * @param {{ kind: string, name: string }} model
 * @param {string[]} names
 * @returns {Promise<{ architecture: string, title: string, fits: Record<string, Fit> }>}
 */
export const fit = (model, names) => post("fit", { model, loras: names });

/** @returns {Promise<{ pairs: Conflict[] }>} */
export const conflicts = (/** @type {Row[]} */ rows) => post("conflicts", { rows });

/** @returns {Promise<Blocks>} */
export const blocks = (/** @type {string} */ architecture) => get("blocks", { architecture });

/**
 * @param {string} architecture
 * @param {string} text
 * @returns {Promise<{ factors: Record<string, number>, fault: string }>}
 */
export const parseBlocks = (architecture, text) => post("blocks", { architecture, text });

/** @returns {Promise<{ runs: Run[] }>} */
export const runs = () => get("runs");

/** @returns {Promise<WholeRun>} */
export const run = (/** @type {string} */ name) => get("run", { run: name });
