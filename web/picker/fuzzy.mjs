// @ts-check
/**
 * Fuzzy search in texts: the letters of a word in their order, with others between them. Letters in a row, at the start
 * of a word and in the name of the file (rather than in its folder) count more; too many gaps are no match.
 *
 * @typedef {{ text: string, lower: string, starts: Uint8Array, base: number, loose: boolean, weight: number }} Field
 *   a text to search in: `starts` is 1 where a word starts, `base` where the part begins that counts most; `loose`: letters
 *   may lie apart
 * @typedef {[start: number, end: number]} Range
 */

const LETTER = 16;
const IN_A_ROW = 8;
const AT_START = 10;
const IN_BASE = 4;
const GAP = -3;
const GAP_MORE = -1;
// What a letter must earn on the whole: letters that are strewn over a text are chance.
const LEAST = 16;
const NEVER = -1e6;

/**
 * @param {string} text
 * @param {{ base?: number, loose?: boolean, weight?: number }} [options]
 * @returns {Field}
 */
export function field(text, { base = 0, loose = true, weight = 1 } = {}) {
  const starts = new Uint8Array(text.length);
  for (let i = 0, before = OTHER; i < text.length; i++) {
    const now = kind(text.charCodeAt(i));
    const other = before === OTHER || (now === UPPER && before !== UPPER) || (now === DIGIT) !== (before === DIGIT);
    starts[i] = Number(now !== OTHER && other);
    before = now;
  }
  return { text, lower: lowered(text), starts, base, loose, weight };
}

const [OTHER, LOWER, UPPER, DIGIT] = [0, 1, 2, 3];

/** @param {number} code */
function kind(code) {
  if (code >= 97 && code <= 122) return LOWER;
  if (code >= 65 && code <= 90) return UPPER;
  if (code >= 48 && code <= 57) return DIGIT;
  return code > 127 ? LOWER : OTHER;
}

/**
 * In lower case, letter for letter: a few letters have more than one in lower case, and ranges must fit the text.
 *
 * @param {string} text
 */
function lowered(text) {
  const lower = text.toLowerCase();
  if (lower.length === text.length) return lower;
  return Array.from({ length: text.length }, (_, i) => {
    const one = text.charAt(i).toLowerCase();
    return one.length === 1 ? one : text.charAt(i);
  }).join("");
}

/**
 * The words of a query; all of them must match.
 *
 * @param {string} query
 */
export const words = (query) => lowered(query).split(/\s+/).filter(Boolean);

/**
 * How well the words match the fields, each word in the field that suits it best; 0: not all of them do.
 *
 * @param {readonly string[]} wanted
 * @param {readonly Field[]} fields
 */
export function score(wanted, fields) {
  let sum = 0;
  for (const word of wanted) {
    let best = 0;
    for (const one of fields) {
      if (best >= mostPoints(word, one)) continue;
      const points = pointsOf(word, one) * one.weight;
      if (points > best) best = points;
    }
    if (!best) return 0;
    sum += best;
  }
  return sum;
}

/**
 * Which parts of a field the words match, in order and joined where they touch.
 *
 * @param {readonly string[]} wanted
 * @param {Field} one
 * @returns {Range[]}
 */
export function ranges(wanted, one) {
  const hit = new Uint8Array(one.text.length);
  for (const word of wanted) {
    const at = bestPlace(word, one);
    if (at >= 0) hit.fill(1, at, at + word.length);
    else if (one.loose && scattered(word, one)) for (const i of trace(word, one)) hit[i] = 1;
  }
  /** @type {Range[]} */
  const found = [];
  for (let i = 0; i < hit.length; i++) {
    if (!hit[i]) continue;
    const last = found.at(-1);
    if (last && last[1] === i) last[1]++;
    else found.push([i, i + 1]);
  }
  return found;
}

/**
 * No field of the kind has more points for a word: what cannot be better need not be looked at.
 *
 * @param {string} word
 * @param {Field} one
 */
const mostPoints = (word, one) =>
  (word.length * (LETTER + IN_A_ROW + IN_BASE + (one.loose ? AT_START : 0)) + 2 * AT_START) * one.weight;

/**
 * @param {string} word
 * @param {Field} one
 */
function pointsOf(word, one) {
  const at = bestPlace(word, one);
  if (at >= 0) return wholePoints(word, one, at);
  return one.loose ? scattered(word, one) : 0;
}

/**
 * @param {string} word
 * @param {Field} one
 * @param {number} at
 */
function wholePoints(word, one, at) {
  const inBase = at >= one.base;
  const points = word.length * (LETTER + IN_A_ROW + (inBase ? IN_BASE : 0)) + (one.starts[at] ? AT_START : 0);
  // The first word of the name, and the whole of it, before those that only hold the word somewhere.
  const first = at === one.base ? AT_START : 0;
  const whole = one.loose && inBase ? (AT_START * word.length) / Math.max(1, one.text.length - one.base) : 0;
  return points + first + whole;
}

/**
 * Where the word stands as it is: at the start of a word of the name if it can be, else at the start of any, else at all.
 *
 * @param {string} word
 * @param {Field} one
 */
function bestPlace(word, { lower, starts, base }) {
  let found = -1;
  let best = -1;
  for (let at = lower.indexOf(word); at >= 0; at = lower.indexOf(word, at + 1)) {
    const rank = (starts[at] ? 2 : 0) + (at >= base ? 1 : 0);
    if (rank > best) [found, best] = [at, rank];
    if (rank === 3) break;
  }
  return found;
}

/** The best points of the letters so far, the last of them at each place of the text: one row a letter. */
let table = new Float64Array(0);

/**
 * The points of the word with gaps, 0 when it is not there or too far apart. Leaves `table` behind for `trace`.
 *
 * @param {string} word
 * @param {Field} one
 */
function scattered(word, { lower, starts, base }) {
  const width = lower.length;
  if (word.length < 2 || !subsequence(word, lower)) return 0;
  if (table.length < word.length * width) table = new Float64Array(word.length * width);
  let best = 0;
  for (let row = 0; row < word.length; row++) {
    const letter = word.charCodeAt(row);
    // The best of the row before that lies further left than a neighbour, with its gap counted up to here.
    let far = NEVER;
    best = NEVER;
    for (let i = 0; i < width; i++) {
      if (i > 1 && row) far = Math.max(far + GAP_MORE, value(row - 1, i - 2, width) + GAP);
      let points = NEVER;
      if (lower.charCodeAt(i) === letter) {
        const before = !row ? 0 : Math.max(i ? value(row - 1, i - 1, width) + IN_A_ROW : NEVER, far);
        points = before + LETTER + (starts[i] ? AT_START : 0) + (i >= base ? IN_BASE : 0);
      }
      table[row * width + i] = points;
      if (points > best) best = points;
    }
  }
  return best >= word.length * LEAST + LETTER ? best : 0;
}

/**
 * @param {number} row
 * @param {number} i
 * @param {number} width
 */
const value = (row, i, width) => table[row * width + i] ?? NEVER;

/**
 * The places of the letters in the best way through the table of the last `scattered`, from the last letter back.
 *
 * @param {string} word
 * @param {Field} one
 */
function trace(word, { lower, starts, base }) {
  const width = lower.length;
  /** @type {number[]} */
  const places = [];
  let place = -1;
  for (let i = 0, best = NEVER; i < width; i++) {
    if (value(word.length - 1, i, width) > best) [place, best] = [i, value(word.length - 1, i, width)];
  }
  for (let row = word.length - 1; row >= 0; row--) {
    places.unshift(place);
    if (!row) break;
    const own = LETTER + (starts[place] ? AT_START : 0) + (place >= base ? IN_BASE : 0);
    const before = value(row, place, width) - own;
    let next = place - 1;
    if (value(row - 1, next, width) + IN_A_ROW !== before) {
      for (next = place - 2; next > 0; next--) {
        if (value(row - 1, next, width) + GAP + GAP_MORE * (place - next - 2) === before) break;
      }
    }
    place = next;
  }
  return places;
}

/**
 * @param {string} word
 * @param {string} lower
 */
function subsequence(word, lower) {
  let at = -1;
  for (let row = 0; row < word.length; row++) {
    at = lower.indexOf(word.charAt(row), at + 1);
    if (at < 0) return false;
  }
  return true;
}
