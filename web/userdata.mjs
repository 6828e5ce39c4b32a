// @ts-check
/** JSON files that the host keeps per user (its `/userdata` routes). */

import { api } from "./host.mjs";

/**
 * @template T
 * @param {string} file as `loom/sets.json`
 * @param {T} otherwise the answer when there is no such file
 * @returns {Promise<T>}
 */
export async function readUserData(file, otherwise) {
  if (!(await exists(file))) return otherwise;
  const response = await api.getUserData(file);
  return response.ok ? await response.json() : otherwise;
}

/**
 * @param {string} file
 * @param {unknown} data
 */
export async function writeUserData(file, data) {
  await api.storeUserData(file, data);
}

/**
 * Whether a file is there: a question for one that is not would leave an error in the browser's console. Folders are
 * listed from the top, since one that is not there is such an error too.
 *
 * @param {string} file
 */
async function exists(file) {
  const parts = file.split("/");
  for (let depth = 0; depth < parts.length; depth++) {
    const folder = parts.slice(0, depth).join("/");
    const response = await api.fetchApi(`/v2/userdata?${new URLSearchParams({ path: folder })}`);
    if (!response.ok) return false;
    /** @type {{ name: string }[]} */
    const listed = await response.json();
    if (!listed.some(({ name }) => name === parts[depth])) return false;
  }
  return true;
}
