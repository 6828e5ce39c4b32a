// @ts-check
/**
 * Curves as lists of points, and what is made of them for the eye.
 *
 * @typedef {import("../server.mjs").Curve} Curve
 */

/** How much a smoothed curve keeps of what was before, as the slider says it first. */
export const SMOOTHING = 0.95;
/** Points of one curve that are drawn; a screen has not more columns. */
export const POINTS = 2000;

/**
 * A running mean: each point keeps the share `kept` of the mean before it. It begins at the first value, not at zero.
 *
 * @param {Curve} points
 * @param {number} kept from 0 (the curve itself) to less than 1
 * @returns {Curve}
 *
 * @example smoothed([[1, 4], [2, 0]], 0.5) // [[1, 4], [2, 4 / 3]]
 */
export function smoothed(points, kept) {
  let sum = 0;
  let weight = 0;
  return points.map(([step, value]) => {
    sum = kept * sum + (1 - kept) * value;
    weight = kept * weight + (1 - kept);
    return [step, sum / weight];
  });
}

/**
 * At most so many points: of each stretch its lowest and its highest, so that peaks stay where they were; the same as
 * the server does for runs on disk.
 *
 * @param {Curve} points
 * @param {number} most
 * @returns {Curve}
 */
export function thinned(points, most = POINTS) {
  const [first, last] = [points[0], points[points.length - 1]];
  if (points.length <= most || !first || !last) return points;
  const inner = points.length - 2;
  const stretches = Math.floor((most - 2) / 2);
  const kept = [first];
  for (let index = 0; index < stretches; index++) {
    const start = 1 + Math.floor((index * inner) / stretches);
    const end = 1 + Math.floor(((index + 1) * inner) / stretches);
    let low = start;
    let high = start;
    for (let at = start; at < end; at++) {
      if (value(points, at) < value(points, low)) low = at;
      if (value(points, at) > value(points, high)) high = at;
    }
    for (const at of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
      const point = points[at];
      if (point) kept.push(point);
    }
  }
  kept.push(last);
  return kept;
}

const value = (/** @type {Curve} */ points, /** @type {number} */ at) => points[at]?.[1] ?? 0;

/**
 * Points of two sources in one curve. From the first step of `later` on only its points count: a run that goes on from
 * a saved state forgets what came after it.
 *
 * @param {Curve} earlier
 * @param {Curve} later
 * @returns {Curve}
 */
export function continued(earlier, later) {
  const start = later[0]?.[0] ?? Infinity;
  const last = earlier[earlier.length - 1];
  if (!last || last[0] < start) return [...earlier, ...later];
  return [...earlier.filter(([step]) => step < start), ...later];
}

/**
 * Points of two sources where both may have holes; `live` wins.
 *
 * @param {Curve} disk
 * @param {Curve} live
 * @returns {Curve}
 */
export function united(disk, live) {
  const points = new Map([...disk, ...live]);
  return [...points].sort(([one], [other]) => one - other);
}

/**
 * What a curve shows, for those who do not see it.
 *
 * @param {Curve} points
 */
export function described(points) {
  const first = points[0];
  const last = points[points.length - 1];
  if (!first || !last) return "no points yet";
  let lowest = first;
  for (const point of points) if (point[1] < lowest[1]) lowest = point;
  const mean = number(smoothed(points, SMOOTHING).at(-1)?.[1] ?? last[1]);
  return (
    `from ${number(first[1])} at step ${first[0]} to ${mean} at step ${last[0]} (running mean), ` +
    `lowest ${number(lowest[1])} at step ${lowest[0]}`
  );
}

/**
 * A loss or rate with as many digits as tell something.
 *
 * @param {number} given
 */
export function number(given, digits = 4) {
  return String(Number(given.toPrecision(Math.abs(given) < 0.001 ? 3 : digits)));
}
