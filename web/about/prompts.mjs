// @ts-check
/**
 * Where a trigger word can go in the graph: the prompts that the node's CLIP output feeds, the positive ones first; without
 * a node, every prompt of the graph. It knows only the shape of the host's graph, so it runs without a page.
 *
 * @typedef {{ name: string, value?: unknown, type?: string, callback?: ((value: any, ...more: any[]) => unknown) | undefined }} Widget
 * @typedef {{ name: string, type: unknown, link?: number | null, widget?: { name: string } }} Input
 * @typedef {{ name: string, type: unknown, links?: number[] | null }} Output
 * @typedef {{ id: number | string, title?: string, type?: string | null, widgets?: Widget[], inputs?: Input[], outputs?: Output[] }} Node
 * @typedef {{ target_id: number | string, target_slot: number }} Link
 * @typedef {{ nodes: Node[], getLink(id: number): Link | null | undefined,
 *   getNodeById(id: number | string): Node | null | undefined }} Graph
 *
 * @typedef {{ node: Node, widget: Widget, title: string, positive: boolean }} Target
 */

/**
 * @param {Graph} graph
 * @param {Node | null} node the one whose CLIP the prompts use
 * @returns {Target[]}
 */
export function promptTargets(graph, node) {
  const readers = node ? downstream(graph, node, "CLIP") : [];
  const nodes = readers.some((one) => textOf(one)) ? readers : graph.nodes;
  return nodes
    .flatMap((one) => {
      const widget = textOf(one);
      return widget ? [{ node: one, widget, ...described(graph, one) }] : [];
    })
    .sort((a, b) => Number(b.positive) - Number(a.positive));
}

/**
 * @param {Graph} graph
 * @param {Node} node
 */
function described(graph, node) {
  const ends = inputsReached(graph, node, "CONDITIONING");
  const positive = ends.has("positive");
  const role = positive ? " (positive)" : ends.has("negative") ? " (negative)" : "";
  return { positive, title: `${node.title || node.type} #${node.id}${role}` };
}

/**
 * The text of a node that makes a condition of it; one that comes in by a link is nobody's to write.
 *
 * @param {Node} node
 */
function textOf(node) {
  if (!node.outputs?.some(({ type }) => type === "CONDITIONING")) return null;
  const texts = node.widgets?.filter(({ name, value }) => typeof value === "string" && /^(text|prompt)/.test(name)) ?? [];
  return texts.find(({ name }) => !node.inputs?.some((one) => one.widget?.name === name && one.link)) ?? null;
}

/**
 * The nodes that a node feeds with a type, straight or through nodes that hand the type on.
 *
 * @param {Graph} graph
 * @param {Node} node
 * @param {string} type
 */
function downstream(graph, node, type) {
  /** @type {Set<Node>} */
  const found = new Set();
  const next = [node];
  for (let one = next.pop(); one; one = next.pop()) {
    for (const { target } of linksOf(graph, one, type)) {
      if (found.has(target) || target === node) continue;
      found.add(target);
      next.push(target);
    }
  }
  return [...found];
}

/**
 * The names of the inputs in which a node's outputs of a type end.
 *
 * @param {Graph} graph
 * @param {Node} node
 * @param {string} type
 */
function inputsReached(graph, node, type) {
  const all = [node, ...downstream(graph, node, type)];
  return new Set(all.flatMap((one) => linksOf(graph, one, type).map(({ input }) => input)));
}

/**
 * @param {Graph} graph
 * @param {Node} node
 * @param {string} type
 */
function linksOf(graph, node, type) {
  return (node.outputs ?? [])
    .filter((output) => output.type === type)
    .flatMap((output) => output.links ?? [])
    .flatMap((id) => {
      const link = graph.getLink(id);
      const target = link && graph.getNodeById(link.target_id);
      return target ? [{ target, input: target.inputs?.[link.target_slot]?.name ?? "" }] : [];
    });
}

/**
 * A prompt with a word at its end; null when it has it already.
 *
 * @param {string} prompt
 * @param {string} word
 */
export function withWord(prompt, word) {
  const known = prompt.split(",").some((part) => part.trim().toLowerCase() === word.trim().toLowerCase());
  if (known) return null;
  const before = prompt.trimEnd();
  if (!before) return word;
  return before.endsWith(",") ? `${before} ${word}` : `${before}, ${word}`;
}
