// @ts-check
/** The trainings of this host, fed by its events, and what a user can do about one. */

import { api, app, toast } from "../host.mjs";
import { run, runs } from "../server.mjs";
import { state } from "./words.mjs";
import { Trainings } from "./trainings.mjs";

/** @typedef {import("./store.mjs").Run} Run */

const EVENT = "loom.train";

export const trainings = new Trainings({ runs, run });

api.addEventListener(/** @type {any} */ (EVENT), (/** @type {any} */ event) => {
  const { detail } = event;
  trainings.receive(detail);
  const now = trainings.get(detail.run);
  if (detail.kind !== "ended" || !now) return;
  if (now.ended === "finished") toast("success", "Training finished", `${now.run}, ${state(now)}`);
  if (now.ended === "stopped") toast("info", "Training stopped", `${now.run}: saved at step ${now.step}, and goes on from there.`);
});
// After a break what was sent in it is missing.
api.addEventListener("reconnected", () => void trainings.list());

/**
 * Asks, and then has the host stop the prompt that trains.
 *
 * @param {Run} training
 */
export async function stop(training) {
  if (!training.live) return;
  const { promptId } = training.live;
  const sure = await /** @type {any} */ (app.extensionManager).dialog.confirm({
    title: "Stop the training?",
    message: `${training.run} saves where it is, at step ${training.step}. When the graph runs again it goes on from there.`,
  });
  if (!sure) return;
  try {
    await api.interrupt(promptId);
  } catch (error) {
    toast("error", "The training was not stopped", error instanceof Error ? error.message : String(error));
  }
}

/**
 * A LoRA Loader with the LoRA of a run, in the middle of what is seen of the graph.
 *
 * @param {string} lora
 */
export function useInGraph(lora) {
  const { LiteGraph } = /** @type {any} */ (globalThis);
  const node = LiteGraph.createNode("LoomLoraLoader");
  const widget = node?.widgets?.find((/** @type {any} */ one) => one.name === "lora_name");
  if (!node || !widget || !app.graph) return;
  const [x = 0, y = 0, width = 0, height = 0] = app.canvas.visible_area;
  app.canvas.emitBeforeChange();
  node.pos = [x + width / 2 - node.size[0] / 2, y + height / 3 - node.size[1] / 2];
  app.graph.add(node);
  widget.value = lora;
  widget.callback?.(lora);
  app.canvas.selectNode(node);
  app.canvas.emitAfterChange();
  toast("success", "LoRA Loader added", lora);
}
