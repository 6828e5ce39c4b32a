// @ts-check
/** Numbers of a training in words. */

/**
 * @param {number} seconds
 *
 * @example duration(3725) // "1 h 02 min"
 */
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${two(whole % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${two(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} days ${hours % 24} h`;
}

/** Steps a second, or seconds a step where those are easier to read. */
export function speed(/** @type {number} */ stepsPerSecond) {
  if (!(stepsPerSecond > 0)) return "";
  return stepsPerSecond >= 1 ? `${stepsPerSecond.toFixed(1)} it/s` : `${(1 / stepsPerSecond).toFixed(1)} s/it`;
}

/** @example bytes(3.2e9) // "3.0 GB" */
export function bytes(/** @type {number} */ count) {
  if (!(count > 0)) return "";
  const gigabytes = count / 2 ** 30;
  return gigabytes >= 1 ? `${gigabytes.toFixed(1)} GB` : `${Math.round(count / 2 ** 20)} MB`;
}

/**
 * When something was, as short as it can be told.
 *
 * @param {number} seconds since 1970
 * @param {number} now the same
 */
export function since(seconds, now) {
  const gone = now - seconds;
  if (gone < 60) return "just now";
  if (gone < 3600) return `${Math.floor(gone / 60)} min ago`;
  if (gone < 86400) return `${Math.floor(gone / 3600)} h ago`;
  if (gone < 2 * 86400) return "1 day ago";
  if (gone < 7 * 86400) return `${Math.floor(gone / 86400)} days ago`;
  return new Date(seconds * 1000).toLocaleDateString();
}

/**
 * The name of a run, as the input `name` of LoRA Train gives it.
 *
 * @param {unknown} name
 *
 * @example runName("styles\\ink.safetensors") // "styles/ink"
 */
export function runName(name) {
  return String(name ?? "")
    .replaceAll("\\", "/")
    .replace(/\.safetensors$/, "");
}

/**
 * Where a run is, in one line.
 *
 * @param {{ step: number, steps: number, finished: boolean, live: { stepped: boolean } | null,
 *   stage?: { what: string, done: number, total: number } | null }} run
 */
export function state(run) {
  const steps = run.steps ? `step ${run.step} of ${run.steps}` : `step ${run.step}`;
  if (run.live && run.stage) {
    const { what, done, total } = run.stage;
    const text = total > 1 ? `${what} ${done}/${total}` : what;
    return run.live.stepped ? `${steps} · ${text}` : text;
  }
  if (run.live) return run.live.stepped ? steps : "beginning";
  if (run.finished) return `${run.step} steps`;
  return `stopped at ${steps}`;
}

const two = (/** @type {number} */ count) => String(count).padStart(2, "0");
