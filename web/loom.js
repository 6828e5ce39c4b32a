// @ts-check
/** What the host loads: the extension, which hands everything on to the modules beside this file. */

import { app, stylesheet } from "./host.mjs";
import { nodeMenuItems } from "./picker/node_menu.mjs";
import { rowsWidget } from "./rows/widget.mjs";
import { foldAdvanced } from "./training/advanced.mjs";
import { trainingInNode } from "./training/node.mjs";
import { trainingCommands, trainingMenu, trainingTab } from "./training/tab.mjs";

stylesheet("loom.css");

app.registerExtension({
  name: "loom",
  getNodeMenuItems: nodeMenuItems,
  getCustomWidgets: () => ({ LOOM_ROWS: /** @type {any} */ (rowsWidget) }),
  nodeCreated: (node) => {
    foldAdvanced(/** @type {any} */ (node));
    trainingInNode(/** @type {any} */ (node));
  },
  commands: trainingCommands,
  menuCommands: trainingMenu,
  bottomPanelTabs: [trainingTab],
});
