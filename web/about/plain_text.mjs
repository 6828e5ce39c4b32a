// @ts-check
/**
 * The text of a description that may be HTML, as model sites write them: tags go, paragraphs and list items become
 * lines, entities become letters. The outcome is text and is shown as text; nothing of it is ever parsed by the browser.
 */

// Their content is for machines.
const SILENT = /<(script|style|template|noscript|svg|math|iframe|object|head|title)\b[^>]*>[\s\S]*?(<\/\1\s*>|$)/gi;
const COMMENT = /<!--[\s\S]*?(-->|$)/g;
const LINE = /<(br|hr)\b[^>]*>|<\/(p|div|h[1-6]|ul|ol|li|tr|table|blockquote|pre|section|article)\s*>/gi;
const ITEM = /<li\b[^>]*>/gi;
// Quotes may hold a ">"; a "<" that begins no tag, as in "strength < 1", stays.
const TAG = /<\/?[a-z!?](?:"[^"]*"|'[^']*'|[^"'>])*(>|$)/gi;
const ENTITY = /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]{2,8}));/gi;

/** @type {Record<string, string>} */
const NAMED = {
  ...{ amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", ndash: "–", mdash: "—" },
  ...{ lsquo: "‘", rsquo: "’", ldquo: "“", rdquo: "”", bull: "•", middot: "·", copy: "©", reg: "®", trade: "™" },
  ...{ times: "×", deg: "°", rarr: "→", larr: "←", laquo: "«", raquo: "»", eacute: "é", uuml: "ü", szlig: "ß" },
};

/**
 * @param {string} html
 * @returns {string}
 */
export function plainText(html) {
  const bare = html
    .replace(COMMENT, "")
    .replace(SILENT, "")
    .replace(/\r\n?/g, "\n")
    .replace(LINE, "\n")
    .replace(ITEM, "• ")
    .replace(TAG, "");
  return withoutControls(decoded(bare))
    .replace(/[ \t\u00a0]+\n/g, "\n")
    .replace(/\n{3,}/g, "\n\n")
    .trim();
}

/**
 * Entities become letters, once: what comes out is not looked at again.
 *
 * @param {string} text
 */
function decoded(text) {
  return text.replace(ENTITY, (whole, decimal, hex, name) => {
    if (name) return NAMED[name.toLowerCase()] ?? whole;
    const code = decimal ? Number(decimal) : parseInt(hex, 16);
    const letter = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    return letter ? String.fromCodePoint(code) : "\ufffd";
  });
}

/**
 * Without control characters and without marks that turn the direction of what follows them.
 *
 * @param {string} text
 */
export function withoutControls(text) {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
}
