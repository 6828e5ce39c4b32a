// From a node's model input back to the loader, on graphs of the shape that LiteGraph has.
import assert from "node:assert/strict";
import { test } from "node:test";

import { modelOf, promoted } from "../../web/rows/upstream.mjs";

/**
 * A graph of nodes by id: `[class, { inputs as "id:slot" }, more]`. Input ids of -10 are the subgraph's own.
 *
 * @param {Record<string, [string, Record<string, string | null>, Record<string, any>?]>} nodes
 * @param {{ outputs?: string[], root?: any }} [options]
 * @returns {any}
 */
function graphOf(nodes, { outputs = [], root } = {}) {
  /** @type {any[]} */
  const links = [];
  const link = (/** @type {string} */ from) => {
    const split = from.lastIndexOf(":");
    return links.push({ origin_id: Number(from.slice(0, split)), origin_slot: Number(from.slice(split + 1)) }) - 1;
  };
  /** @type {any} */
  const graph = { getLink: (/** @type {number} */ id) => links[id] };
  graph.nodes = Object.entries(nodes).map(([id, [comfyClass, inputs, more = {}]]) => ({
    id: Number(id),
    comfyClass,
    graph,
    mode: 0,
    outputs: [{ type: "MODEL" }, { type: "CLIP" }],
    inputs: Object.entries(inputs).map(([name, from]) => ({
      name,
      type: name.includes("clip") ? "CLIP" : name.endsWith("name") ? "COMBO" : "MODEL",
      link: from === null ? null : link(from),
      ...(name.endsWith("name") ? { widget: { name } } : {}),
    })),
    ...more,
  }));
  graph.getNodeById = (/** @type {number} */ id) => graph.nodes.find((/** @type {any} */ one) => one.id === Number(id));
  graph.outputs = outputs.map((from) => ({ linkIds: [link(from)] }));
  graph.rootGraph = root ?? graph;
  return graph;
}

const checkpoint = (/** @type {string} */ name) => ({ widgets: [{ name: "ckpt_name", value: name }] });
const SDXL = { kind: "checkpoints", name: "sdxl.safetensors" };

test("a checkpoint, a diffusion model, the demo's model", () => {
  const graph = graphOf({
    1: ["CheckpointLoaderSimple", {}, checkpoint("sdxl.safetensors")],
    2: ["UNETLoader", {}, { widgets: [{ name: "unet_name", value: "flux.safetensors" }] }],
    3: ["LoomDemoModel", {}, { widgets: [{ name: "ckpt_name", value: "demo" }] }],
    4: ["LoomLoraStack", { model: "1:0" }],
    5: ["LoomLoraStack", { model: "2:0" }],
    6: ["LoomLoraStack", { model: "3:0" }],
    7: ["LoomLoraStack", { model: null }],
  });
  const found = [4, 5, 6, 7].map((id) => modelOf(graph.getNodeById(id)));
  assert.deepEqual(found, [SDXL, { kind: "diffusion_models", name: "flux.safetensors" }, { kind: "demo", name: "demo" }, null]);
});

test("through nodes that change a model, reroutes and nodes that are bypassed; not through muted ones", () => {
  const through = (/** @type {any} */ more) =>
    graphOf({
      1: ["CheckpointLoaderSimple", {}, checkpoint("sdxl.safetensors")],
      2: ["Patch", { clip: "1:1", model: "1:0" }, more],
      3: ["Reroute", { "": "2:0" }, { isVirtualNode: true, outputs: [{ type: "*" }] }],
      4: ["LoomLoraStack", { model: "3:0" }],
    });
  assert.deepEqual(modelOf(through({}).getNodeById(4)), SDXL);
  assert.deepEqual(modelOf(through({ mode: 4 }).getNodeById(4)), SDXL);
  assert.equal(modelOf(through({ mode: 2 }).getNodeById(4)), null);
});

test("into a subgraph and out of it, also where the loader's name is the subgraph's", () => {
  const inner = graphOf({ 7: ["CheckpointLoaderSimple", { ckpt_name: "-10:0" }, checkpoint("inner.safetensors")] }, { outputs: ["7:0"] });
  const root = graphOf({
    1: ["graph", { ckpt_name: null }, { subgraph: inner, widgets: [{ name: "ckpt_name", value: "sdxl.safetensors" }] }],
    2: ["LoomLoraStack", { model: "1:0" }],
  });
  inner.rootGraph = root;
  assert.deepEqual(modelOf(root.getNodeById(2)), SDXL);

  const stack = graphOf({ 9: ["LoomLoraStack", { model: "-10:0" }] });
  const outside = graphOf({
    1: ["CheckpointLoaderSimple", {}, checkpoint("sdxl.safetensors")],
    2: ["graph", { model: "1:0" }, { subgraph: stack }],
  });
  stack.rootGraph = outside;
  assert.deepEqual(modelOf(stack.getNodeById(9)), SDXL);
});

test("a loop, and a link to a node that is gone, are nothing", () => {
  const graph = graphOf({ 1: ["Patch", { model: "2:0" }], 2: ["Patch", { model: "1:0" }], 3: ["LoomLoraStack", { model: "8:0" }] });
  assert.equal(modelOf(graph.getNodeById(1)), null);
  assert.equal(modelOf(graph.getNodeById(3)), null);
});

test("a widget that was made into one of the subgraph's nodes is found there, in each of them", () => {
  const inner = graphOf({ 5: ["LoomLoraStack", { "rows name": "-10:0", model: null }] });
  const holder = (/** @type {number} */ value) => ({ subgraph: inner, widgets: [{ name: "rows", value }] });
  inner.nodes[0].inputs[0].widget = { name: "rows" };
  const root = graphOf({ 1: ["graph", { rows: null }, holder(1)], 2: ["graph", { rows: null }, holder(2)] });
  inner.rootGraph = root;
  assert.deepEqual(promoted(inner.getNodeById(5), "rows").map((one) => one.value), [1, 2]);
  assert.deepEqual(promoted(root.getNodeById(1), "rows"), []);
  assert.deepEqual(promoted(inner.getNodeById(5), "strict"), []);
});
