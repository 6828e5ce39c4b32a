// @ts-check
/** The page's one copy of the index of LoRAs; it asks when somebody first wants it and follows the server from then on. */

import { api } from "../host.mjs";
import { loras } from "../server.mjs";
import { Catalogue } from "./catalogue.mjs";

export const library = new Catalogue(loras);

// The published types know the host's own events alone.
const events = /** @type {EventTarget} */ (/** @type {unknown} */ (api));
events.addEventListener("loom.library", (event) => {
  library.heard(/** @type {CustomEvent<{ version: number }>} */ (event).detail.version);
});
// After a new start the server may count its versions anew.
events.addEventListener("reconnected", () => {
  if (library.wanted) void library.refresh({ whole: true });
});
