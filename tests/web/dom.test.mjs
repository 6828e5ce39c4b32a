// The pure parts of dom.mjs; what makes elements is tested in the browser.
import assert from "node:assert/strict";
import { test } from "node:test";

import { ICONS } from "../../web/dom.mjs";

test("icons are paths inside their 16 pixels", () => {
  for (const [name, path] of Object.entries(ICONS)) {
    const first = path.match(/^M(-?[\d.]+)[ ,]?(-?[\d.]+)/);
    assert.ok(first, name);
    assert.ok(Number(first[1]) >= 0 && Number(first[1]) <= 16, name);
  }
});
