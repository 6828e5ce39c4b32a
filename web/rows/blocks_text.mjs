// @ts-check
/**
 * Block weights as text, in the short form with names: `in04=0.5, mid=0`. A factor of 1 is not written; kinds and runs
 * of blocks with one factor are written once. Reading other forms is the server's part.
 *
 * @typedef {Record<string, number>} Factors block -> factor; a block that is missing has 1
 */

const NUMBERED = /^([a-z_]+?)(\d+)$/i;

/**
 * @param {string} block
 * @returns {{ kind: string, number: number, digits: string } | null}
 */
function parts(block) {
  const match = NUMBERED.exec(block);
  return match ? { kind: String(match[1]), number: Number(match[2]), digits: String(match[2]) } : null;
}

/**
 * @param {Factors} factors
 * @param {readonly string[]} blocks of the model, in their order
 * @returns {string} "" where no block has another factor than 1
 */
export function writeBlocks(factors, blocks) {
  const factor = (/** @type {string} */ block) => factors[block] ?? 1;
  /** @type {{ kind: string, blocks: string[] }[]} */
  const kinds = [];
  for (const block of blocks) {
    const kind = parts(block)?.kind ?? block;
    const last = kinds.find((one) => one.kind === kind);
    if (last) last.blocks.push(block);
    else kinds.push({ kind, blocks: [block] });
  }
  return kinds.flatMap(({ kind, blocks: own }) => written(kind, own, factor)).join(", ");
}

/**
 * @param {string} kind
 * @param {string[]} blocks
 * @param {(block: string) => number} factor
 * @returns {string[]}
 */
function written(kind, blocks, factor) {
  const first = factor(String(blocks[0]));
  if (blocks.every((block) => factor(block) === first)) {
    const name = blocks.length > 1 ? kind : String(blocks[0]);
    return first === 1 ? [] : [`${name}=${shown(first)}`];
  }
  /** @type {string[]} */
  const items = [];
  for (let start = 0; start < blocks.length; ) {
    const value = factor(String(blocks[start]));
    let end = start;
    while (end + 1 < blocks.length && factor(String(blocks[end + 1])) === value && follows(blocks, end)) end++;
    if (value !== 1) {
      const from = String(blocks[start]);
      const name = end > start ? `${kind}${parts(from)?.number}-${parts(String(blocks[end]))?.number}` : from;
      items.push(`${name}=${shown(value)}`);
    }
    start = end + 1;
  }
  return items;
}

/**
 * Whether a block's number is followed by the next one: families may leave some out.
 *
 * @param {string[]} blocks
 * @param {number} at
 */
function follows(blocks, at) {
  const one = parts(String(blocks[at]));
  return one !== null && parts(String(blocks[at + 1]))?.number === one.number + 1;
}

const shown = (/** @type {number} */ value) => String(Math.round(value * 1e3) / 1e3 || 0);

/**
 * Factors in the short form with names; null for another form, which the server reads.
 *
 * @param {string} text
 * @param {readonly string[]} blocks
 * @returns {Factors | null}
 */
export function readBlocks(text, blocks) {
  /** @type {Factors} */
  const factors = {};
  for (const item of text.split(",").map((one) => one.trim())) {
    if (!item) continue;
    const match = /^([a-z_]+?)(?:(\d+)(?:-(\d+))?)?\s*=\s*([+-]?(?:\d+\.?\d*|\.\d+))$/i.exec(item);
    if (!match) return null;
    const [, kind = "", from, to = from, value] = match;
    const meant = blocks.filter((block) => {
      if (block === kind && from === undefined) return true;
      const own = parts(block);
      if (own?.kind !== kind.toLowerCase()) return false;
      return from === undefined || (own.number >= Number(from) && own.number <= Number(to));
    });
    if (!meant.length) return null;
    for (const block of meant) factors[block] = Number(value);
  }
  return factors;
}

/**
 * The kind of a block (`in` of `in04`): bars of a kind stand together.
 *
 * @param {string} block
 */
export const kindOf = (block) => parts(block)?.kind ?? block;
