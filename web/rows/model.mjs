// @ts-check
/**
 * The list of rows, as data: every change makes another list, so the host sees each as a value of its own and can
 * undo it. Nothing here knows the page.
 *
 * @typedef {import("../server.mjs").Row} Row
 * @typedef {readonly Row[]} Rows
 */

export const LOWEST = -100;
export const HIGHEST = 100;
export const STEP = 0.05;

/** @type {Readonly<Row>} */
const PLAIN = { on: true, lora: "", model: 1, clip: 1, blocks: "", hash: "" };

/**
 * What rows of this pack, of rgthree's loader and of Lora-Manager call their fields.
 *
 * @type {Record<"ours" | "rgthree" | "manager", { on: string, lora: string, model: string, clip: string }>}
 */
const FIELDS = {
  ours: { on: "on", lora: "lora", model: "model", clip: "clip" },
  rgthree: { on: "on", lora: "lora", model: "strength", clip: "strengthTwo" },
  manager: { on: "active", lora: "name", model: "strength", clip: "clipStrength" },
};

/**
 * A row with all of its fields from one that may lack some; another program's is read too.
 *
 * @param {Record<string, unknown>} fields
 * @returns {Row}
 */
export function row(fields) {
  const names =
    !("lora" in fields) && "name" in fields
      ? FIELDS.manager
      : "strength" in fields || "strengthTwo" in fields
        ? FIELDS.rgthree
        : FIELDS.ours;
  const model = number(fields[names.model], PLAIN.model);
  const lora = text(fields[names.lora]);
  return {
    on: fields[names.on] !== false,
    lora: lora === "None" ? "" : lora,
    model,
    clip: number(fields[names.clip], model),
    blocks: text(fields["blocks"]),
    hash: text(fields["hash"]),
  };
}

const text = (/** @type {unknown} */ value) => (typeof value === "string" ? value.trim() : "");

/**
 * @param {unknown} value
 * @param {number} otherwise
 */
function number(value, otherwise) {
  const found = typeof value === "string" && value.trim() ? Number(value) : value;
  return typeof found === "number" && Number.isFinite(found) ? found : otherwise;
}

/**
 * The rows in a widget's value: a list, the same as JSON text, or `{"__value__": [...]}` from the API's form.
 *
 * @param {unknown} value
 * @returns {{ rows: Row[], fault: string }} a value that holds no rows has a fault, one line
 */
export function parse(value) {
  let list = value;
  if (typeof list === "string") {
    if (!list.trim()) return { rows: [], fault: "" };
    try {
      list = JSON.parse(list);
    } catch {
      return { rows: [], fault: "These rows are not JSON." };
    }
  }
  if (list && typeof list === "object" && "__value__" in list) return parse(list.__value__);
  if (list === null || list === undefined) return { rows: [], fault: "" };
  if (!Array.isArray(list)) return { rows: [], fault: "This is no list of rows." };
  const wrong = list.findIndex((one) => !one || typeof one !== "object" || Array.isArray(one));
  if (wrong >= 0) return { rows: [], fault: `Entry ${wrong + 1} of the list is no row.` };
  return { rows: list.map(row), fault: "" };
}

/**
 * @param {Rows} rows
 * @param {Rows} added
 * @param {number} [at] index of the first added row
 */
export const add = (rows, added, at = rows.length) => [...rows.slice(0, at), ...added, ...rows.slice(at)];

/**
 * @param {Rows} rows
 * @param {number} index
 * @param {Partial<Row>} changes
 */
export const replace = (rows, index, changes) =>
  rows.map((one, place) => (place === index ? { ...one, ...changes } : one));

/**
 * @param {Rows} rows
 * @param {number} index
 */
export const toggle = (rows, index) => rows.map((one, place) => (place === index ? { ...one, on: !one.on } : one));

/**
 * Whether all rows are on, some or none; no rows are none.
 *
 * @param {Rows} rows
 * @returns {"all" | "some" | "none"}
 */
export function whichOn(rows) {
  const on = rows.filter((one) => one.on).length;
  return on === 0 ? "none" : on === rows.length ? "all" : "some";
}

/**
 * All on; or all off when all were on.
 *
 * @param {Rows} rows
 */
export function toggleAll(rows) {
  const on = whichOn(rows) !== "all";
  return rows.map((one) => ({ ...one, on }));
}

/**
 * @param {Rows} rows
 * @param {number} from
 * @param {number} to the index that the row has afterwards
 */
export function move(rows, from, to) {
  const moved = rows[from];
  if (!moved) return [...rows];
  const rest = rows.filter((_, place) => place !== from);
  return add(rest, [moved], Math.max(0, Math.min(to, rest.length)));
}

/**
 * Whether a row shows a strength each for model and clip. One whose strengths differ does so always: what is set is
 * seen.
 *
 * @param {Row} one
 * @param {boolean} split whether the node shows both
 */
export const showsBoth = (one, split) => split || one.clip !== one.model;

/**
 * @param {Rows} rows
 * @param {number} index
 * @param {"model" | "clip"} which
 * @param {number} value
 * @param {boolean} split whether the row shows both; where it does not, both are set
 */
export function setStrength(rows, index, which, value, split) {
  const strength = clamp(value);
  return replace(rows, index, split ? { [which]: strength } : { model: strength, clip: strength });
}

/**
 * @param {Rows} rows
 * @param {number} index
 */
export const duplicate = (rows, index) => add(rows, rows.slice(index, index + 1), index + 1);

/**
 * @param {Rows} rows
 * @param {number} index
 */
export const remove = (rows, index) => rows.filter((_, place) => place !== index);

/** @param {Rows} rows */
export const removeOff = (rows) => rows.filter((one) => one.on);

/**
 * Rows as text for the clipboard: JSON that the node takes, a row a line.
 *
 * @param {Rows} rows
 */
export const toText = (rows) => `[\n${rows.map((one) => `  ${JSON.stringify(one)}`).join(",\n")}\n]`;

/** @param {number} value */
export const clamp = (value) => Math.max(LOWEST, Math.min(HIGHEST, rounded(value)));

/** Without the dust of binary fractions: 0.1 + 0.2 is 0.3. */
const rounded = (/** @type {number} */ value) => Math.round(value * 1e4) / 1e4 || 0;

/**
 * The next strength on a grid: from 0.83 by 1 step of 0.05 to 0.85, not to 0.88.
 *
 * @param {number} value
 * @param {number} steps
 * @param {number} size of a step
 */
export function stepped(value, steps, size = STEP) {
  const places = value / size;
  const start = steps > 0 ? Math.floor(places + 1e-6) : Math.ceil(places - 1e-6);
  return steps === 0 ? clamp(value) : clamp((start + steps) * size);
}

/**
 * A strength that a user typed: `0.8`, `0,8`, `.8`, `-1`; null where it is none.
 *
 * @param {string} typed
 */
export function readStrength(typed) {
  const plain = typed.trim().replace(",", ".").replace("−", "-");
  return /^[+-]?(\d+\.?\d*|\.\d+)$/.test(plain) ? clamp(Number(plain)) : null;
}

/** A strength as it is shown: two places, more only where they say something. */
export function showStrength(/** @type {number} */ value) {
  const whole = String(rounded(value));
  const shown = (whole.split(".")[1] ?? "").length > 2 ? whole : value.toFixed(2);
  return shown.replace("-", "−");
}

/**
 * A name's parts: the folder with its last slash, the file's stem, and the extension.
 *
 * @param {string} name
 */
export function nameParts(name) {
  const slash = Math.max(name.lastIndexOf("/"), name.lastIndexOf("\\")) + 1;
  const file = name.slice(slash);
  const extension = file.match(/\.(safetensors|pt|ckpt|bin|pth|sft)$/i)?.[0] ?? "";
  return { folder: name.slice(0, slash), stem: file.slice(0, file.length - extension.length) || file, extension };
}
