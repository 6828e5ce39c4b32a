// The dialog about a LoRA: foreign text, values, and where a word goes in the graph.
import assert from "node:assert/strict";
import { test } from "node:test";

import { plainText, withoutControls } from "../../web/about/plain_text.mjs";
import { promptTargets, withWord } from "../../web/about/prompts.mjs";
import {
  countsText,
  metadataRows,
  readable,
  roundUp,
  shortNumber,
  strengthText,
  trainingTags,
  triggerWords,
  wordsOf,
} from "../../web/about/values.mjs";

test("HTML becomes its text", () => {
  assert.equal(plainText("<p>An <b>ink</b> style.</p><p>Use&nbsp;it<br>well</p>"), "An ink style.\nUse\u00a0it\nwell");
  assert.equal(plainText("<ul><li>one</li><li>two</li></ul>"), "• one\n• two");
  assert.equal(plainText("a &amp;lt;b&gt; &#x2013; &#8212; &eacute; &unknown;"), "a &lt;b> – — é &unknown;");
  assert.equal(plainText("strength < 1 and > 0.5\n\n\n\nnext"), "strength < 1 and > 0.5\n\nnext");
});

test("what is for machines goes with its content, closed or not", () => {
  assert.equal(plainText("a<script>alert(1)</script>b<style>x{}</style>c<!-- d -->e"), "abce");
  assert.equal(plainText("a<script>alert(1)"), "a");
  assert.equal(plainText('a<img src=x title=">" onerror="alert(1)">b'), "ab");
  assert.equal(plainText("a<img src=x onerror=alert(1)"), "a");
  assert.equal(plainText("&lt;script&gt;alert(1)&lt;/script&gt;"), "<script>alert(1)</script>");
});

test("control characters and turned directions go", () => {
  assert.equal(withoutControls("a\u0000\u0007b\u202ec\u2066d\ne\tf"), "abcd\ne\tf");
  assert.equal(plainText("&#7;&#x202e;x&#xd800;&#0;"), "x\ufffd\ufffd");
});

test("trigger words of file and sidecars, each once", () => {
  /** @type {any} */
  const about = { report: { trigger_words: ["ink", "wash"] }, sidecar: { trigger_words: ["wash ", "boat", ""] } };
  assert.deepEqual(triggerWords(about), ["ink", "wash", "boat"]);
  assert.deepEqual(triggerWords({ ...about, report: null }), ["wash", "boat"]);
  assert.deepEqual(wordsOf("ink, wash\nboat,,ink"), ["ink", "wash", "boat"]);
});

test("training tags are summed over folders; what is broken has none", () => {
  const metadata = { ss_tag_frequency: JSON.stringify({ a: { ink: 3, boat: 1 }, b: { ink: 2, odd: "x" }, c: null }) };
  assert.deepEqual(trainingTags(metadata), [
    ["ink", 5],
    ["boat", 1],
  ]);
  assert.deepEqual(trainingTags({ ss_tag_frequency: "{" }), []);
  assert.deepEqual(trainingTags({}), []);
});

test("metadata is searched in keys and values, and JSON is set in lines", () => {
  const metadata = { ss_network_dim: "16", "modelspec.title": "Ink 16", other: "x" };
  assert.deepEqual(metadataRows(metadata, " INK "), [["modelspec.title", "Ink 16"]]);
  assert.equal(metadataRows(metadata, "").length, 3);
  assert.equal(readable('{"a":[1]}'), '{\n  "a": [\n    1\n  ]\n}');
  assert.equal(readable("{not json"), "{not json");
});

test("numbers in words", () => {
  assert.equal(countsText({ lora: 4 }), "lora");
  assert.equal(countsText({ lora: 4, dora: 12 }), "dora (12), lora (4)");
  assert.equal(strengthText({ strength: 0.8, strength_min: 0.6, strength_max: 1 }), "0.8 (0.6 to 1)");
  assert.equal(strengthText({ strength: null, strength_min: 0.6, strength_max: null }), "from 0.6");
  assert.equal(strengthText({ strength: null, strength_min: null, strength_max: null }), "");
  assert.deepEqual([0, 96.4321, 0.012345, 1234].map(shortNumber), ["0", "96.4", "0.0123", "1230"]);
  assert.deepEqual([0, 96, 0.21, 1, 1200].map(roundUp), [1, 100, 0.25, 1, 2000]);
});

/** LoRA -> CLIP skip -> two prompts -> sampler, and a prompt that another CLIP feeds. */
function graph() {
  const clip = { name: "clip", type: "CLIP" };
  const links = [
    { target_id: 2, target_slot: 0 },
    { target_id: 3, target_slot: 0 },
    { target_id: 4, target_slot: 0 },
    { target_id: 5, target_slot: 1 },
    { target_id: 5, target_slot: 0 },
  ];
  const prompt = (/** @type {number} */ id, /** @type {number[]} */ out, /** @type {object} */ more = {}) => ({
    id,
    title: "Prompt",
    inputs: [clip],
    outputs: [{ name: "CONDITIONING", type: "CONDITIONING", links: out }],
    widgets: [{ name: "text", value: "" }],
    ...more,
  });
  const lora = { id: 1, type: "LoomLoraLoader", outputs: [{ name: "MODEL", type: "MODEL" }, { name: "CLIP", type: "CLIP", links: [0] }] };
  const nodes = [
    lora,
    { id: 2, type: "CLIPSetLastLayer", inputs: [clip], outputs: [{ name: "CLIP", type: "CLIP", links: [1, 2] }] },
    prompt(3, [3]),
    prompt(4, [4]),
    { id: 5, type: "KSampler", inputs: [{ name: "positive", type: "CONDITIONING" }, { name: "negative", type: "CONDITIONING" }], outputs: [] },
    prompt(6, []),
    prompt(7, [], { inputs: [clip, { name: "text", type: "STRING", link: 9, widget: { name: "text" } }] }),
  ];
  const getLink = (/** @type {number} */ id) => links[id];
  const getNodeById = (/** @type {number | string} */ id) => nodes.find((one) => one.id === id);
  return { lora, graph: { nodes, getLink, getNodeById } };
}

test("words go to the prompts that the node's CLIP feeds, the positive one first", () => {
  const { graph: whole, lora } = graph();
  assert.deepEqual(
    promptTargets(whole, lora).map(({ title }) => title),
    ["Prompt #4 (positive)", "Prompt #3 (negative)"],
  );
});

test("without a node, every prompt that has a text of its own is offered", () => {
  const { graph: whole, lora } = graph();
  const ids = promptTargets(whole, null).map(({ node }) => node.id);
  assert.deepEqual(ids, [4, 3, 6]);
  lora.outputs = [];
  assert.equal(promptTargets(whole, lora).length, 3);
});

test("a word is put at the end of a prompt once", () => {
  assert.equal(withWord("", "ink"), "ink");
  assert.equal(withWord("a boat ", "ink"), "a boat, ink");
  assert.equal(withWord("a boat, ", "ink"), "a boat, ink");
  assert.equal(withWord("Ink , a boat", "ink"), null);
  assert.equal(withWord("inky boat", "ink"), "inky boat, ink");
});
