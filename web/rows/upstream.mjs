// @ts-check
/**
 * Which file the model at a node's input comes from: back along the links to the loader, through nodes that change a
 * model, reroutes, bypassed nodes, and in and out of subgraphs. Works on what LiteGraph's graphs look like from outside.
 *
 * @typedef {{ link?: number | null, name: string, type: unknown, widget?: { name: string } }} Input
 * @typedef {{ origin_id: number | string, origin_slot: number | string }} Link
 *
 * @typedef {object} GraphNode
 * @property {number | string} id
 * @property {string} [comfyClass]
 * @property {string | null} [type]
 * @property {number} [mode]
 * @property {boolean} [isVirtualNode]
 * @property {Input[]} [inputs]
 * @property {{ type: unknown }[]} [outputs]
 * @property {{ name?: string, value?: unknown }[]} [widgets]
 * @property {Graph | null} [graph]
 * @property {SubGraph} [subgraph] of a node that is one
 * @property {(slot: number) => Link | null} [getInputLink]
 * @property {(slot: number) => { node: GraphNode, slot: number } | undefined} [resolveVirtualOutput]
 *
 * @typedef {object} Graph
 * @property {GraphNode[]} [nodes]
 * @property {Graph} [rootGraph]
 * @property {Map<unknown, SubGraph>} [subgraphs]
 * @property {(id: any) => GraphNode | null | undefined} getNodeById
 * @property {(id: any) => Link | null | undefined} [getLink]
 *
 * @typedef {Graph & { outputs?: { linkIds?: number[] }[] }} SubGraph
 *
 * @typedef {{ kind: "checkpoints" | "diffusion_models" | "demo", name: string }} Model
 */

const MUTED = 2;
const BYPASSED = 4;
/** What stands for the edge of a subgraph in the links inside of it. */
const INSIDE_INPUTS = "-10";
/** Longer chains are loops. */
const FARTHEST = 500;

/** The widget that names the file -> the folder of the host that it lies in. */
const LOADERS = /** @type {const} */ ({ ckpt_name: "checkpoints", unet_name: "diffusion_models" });

/**
 * @param {GraphNode} node
 * @param {string} [input]
 * @returns {Model | null} null where nothing is connected, or something that we do not know
 */
export function modelOf(node, input = "model") {
  const slot = node.inputs?.findIndex((one) => one.name === input) ?? -1;
  try {
    return slot < 0 ? null : along(node, slot, [], { left: FARTHEST });
  } catch {
    return null; // a graph that is being changed
  }
}

/**
 * What comes in at an input.
 *
 * @param {GraphNode} node
 * @param {number} slot
 * @param {GraphNode[]} inside the subgraph nodes that we went into, the innermost last
 * @param {{ left: number }} steps
 * @returns {Model | null}
 */
function along(node, slot, inside, steps) {
  if (steps.left-- <= 0) return null;
  const graph = node.graph;
  const link = linkOf(graph, node.inputs?.[slot]?.link);
  if (!graph || !link) return null;
  if (String(link.origin_id) === INSIDE_INPUTS) {
    const outer = inside.at(-1) ?? holderOf(graph);
    return outer ? along(outer, Number(link.origin_slot), inside.slice(0, -1), steps) : null;
  }
  const origin = graph.getNodeById(link.origin_id);
  return origin ? from(origin, Number(link.origin_slot), inside, steps) : null;
}

/**
 * What goes out at an output.
 *
 * @param {GraphNode} node
 * @param {number} slot
 * @param {GraphNode[]} inside
 * @param {{ left: number }} steps
 * @returns {Model | null}
 */
function from(node, slot, inside, steps) {
  if (steps.left-- <= 0 || node.mode === MUTED) return null;
  const type = node.outputs?.[slot]?.type;
  if (node.mode === BYPASSED) return through(node, slot, type, inside, steps);
  if (node.subgraph) {
    const id = node.subgraph.outputs?.[slot]?.linkIds?.[0];
    const link = linkOf(node.subgraph, id);
    if (!link) return null;
    if (String(link.origin_id) === INSIDE_INPUTS) return along(node, Number(link.origin_slot), inside, steps);
    const origin = node.subgraph.getNodeById(link.origin_id);
    return origin ? from(origin, Number(link.origin_slot), [...inside, node], steps) : null;
  }
  if (node.isVirtualNode) {
    const other = node.resolveVirtualOutput?.(slot);
    if (other) return from(other.node, other.slot, inside, steps);
    const link = node.getInputLink?.(slot);
    const origin = link && node.graph?.getNodeById(link.origin_id);
    return link && origin ? from(origin, Number(link.origin_slot), inside, steps) : along(node, 0, inside, steps);
  }
  const loader = loaded(node, inside);
  return loader === undefined ? through(node, slot, type, inside, steps) : loader;
}

/**
 * Through a node that hands a model on: at the same place if that has the type, else at the first input of the type.
 *
 * @param {GraphNode} node
 * @param {number} slot
 * @param {unknown} type
 * @param {GraphNode[]} inside
 * @param {{ left: number }} steps
 */
function through(node, slot, type, inside, steps) {
  const { inputs = [] } = node;
  const wanted = String(type).toUpperCase();
  const fits = (/** @type {Input | undefined} */ input) =>
    input !== undefined && (wanted === "*" || String(input.type) === "*" || String(input.type).toUpperCase() === wanted);
  const at = node.mode === BYPASSED && fits(inputs[slot]) ? slot : inputs.findIndex(fits);
  return at < 0 ? null : along(node, at, inside, steps);
}

/**
 * The file that a loader loads; undefined for other nodes, null where its name is not to be known.
 *
 * @param {GraphNode} node
 * @param {GraphNode[]} inside
 * @returns {Model | null | undefined}
 */
function loaded(node, inside) {
  const called = node.comfyClass ?? node.type;
  if (called === "LoomDemoModel") return { kind: "demo", name: String(valueOf(node, "ckpt_name", inside) ?? "") };
  for (const [widget, kind] of Object.entries(LOADERS)) {
    if (!node.widgets?.some((one) => one.name === widget)) continue;
    const name = valueOf(node, widget, inside);
    return typeof name === "string" && name ? { kind, name } : null;
  }
  return undefined;
}

/**
 * The value of a widget, or of the subgraph's that it was made into.
 *
 * @param {GraphNode} node
 * @param {string} name
 * @param {GraphNode[]} inside
 * @returns {unknown}
 */
function valueOf(node, name, inside) {
  const input = node.inputs?.find((one) => one.widget?.name === name && one.link !== null && one.link !== undefined);
  const link = input && linkOf(node.graph, input.link);
  if (!link) return node.widgets?.find((one) => one.name === name)?.value;
  if (String(link.origin_id) !== INSIDE_INPUTS || !node.graph) return null;
  const outer = inside.at(-1) ?? holderOf(node.graph);
  const outside = outer?.inputs?.[Number(link.origin_slot)];
  return outer && outside ? valueOf(outer, outside.widget?.name ?? outside.name, inside.slice(0, -1)) : null;
}

/**
 * @param {Graph | null | undefined} graph
 * @param {number | null | undefined} id
 */
const linkOf = (graph, id) => (id === null || id === undefined ? null : graph?.getLink?.(id));

/**
 * The widgets of subgraph nodes that a widget was made into: the host queues their values, not that of the widget
 * itself. One per node that shows the subgraph; none where the widget's own value counts.
 *
 * @param {GraphNode} node
 * @param {string} name of the widget
 * @param {number} [left] subgraphs in each other
 * @returns {{ value?: unknown }[]}
 */
export function promoted(node, name, left = 20) {
  const input = node.inputs?.find((one) => (one.widget?.name ?? one.name) === name);
  const link = linkOf(node.graph, input?.link);
  if (!link || !node.graph || String(link.origin_id) !== INSIDE_INPUTS || !left) return [];
  return holdersOf(node.graph).flatMap((outer) => {
    const slot = outer.inputs?.[Number(link.origin_slot)];
    if (!slot) return [];
    const further = promoted(outer, slot.name, left - 1);
    return further.length ? further : (outer.widgets ?? []).filter((one) => one.name === slot.name);
  });
}

/**
 * The nodes that a subgraph is shown as.
 *
 * @param {Graph} graph
 */
function holdersOf(graph) {
  const root = graph.rootGraph ?? graph;
  const graphs = [root, ...(root.subgraphs?.values() ?? [])];
  return graphs.flatMap((one) => one.nodes ?? []).filter((node) => node.subgraph === graph);
}

/** The first of them: from within they cannot be told apart. */
const holderOf = (/** @type {Graph} */ graph) => holdersOf(graph)[0];
