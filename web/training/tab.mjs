// @ts-check
/** Where the panel is reached from: a tab of the host's bottom panel, and a command in its menu. */

import { app } from "../host.mjs";
import { TrainingPanel } from "./panel.mjs";

const TAB = "loom.training";

/** @type {TrainingPanel | null} */
let open = null;

/** @type {import("@comfyorg/comfyui-frontend-types").BottomPanelExtension} */
export const trainingTab = {
  id: TAB,
  title: "LoRA training",
  type: "custom",
  render(element) {
    open?.destroy();
    open = new TrainingPanel();
    element.style.height = "100%"; // the host gives it none of its own
    element.append(open.element);
  },
  destroy() {
    open?.destroy();
    open = null;
  },
};

/**
 * Opens the panel, and shows a run in it.
 *
 * @param {string} [run]
 */
export async function showTraining(run) {
  // The host's command closes what is open.
  if (!open?.element.isConnected) await app.extensionManager.command.execute(`Workspace.ToggleBottomPanelTab.${TAB}`);
  if (run) open?.select(run);
}

export const trainingCommands = [
  {
    id: "loom.showTraining",
    label: "LoRA Loom: Show training",
    menubarLabel: "Show training",
    icon: "pi pi-chart-line",
    function: () => showTraining(),
  },
];

export const trainingMenu = [{ path: ["LoRA Loom"], commands: ["loom.showTraining"] }];
