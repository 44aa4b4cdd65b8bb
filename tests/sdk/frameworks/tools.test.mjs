/** `Client.tool` with the AI SDK and the MCP SDK as they are published. No model is asked. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import { Client, InvalidRequest, NotFound, ToolFailed } from "@keyhole/sdk";
import { Client as McpClient } from "@modelcontextprotocol/sdk/client/index.js";
import { InMemoryTransport } from "@modelcontextprotocol/sdk/inMemory.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { generateText, isStepCount, tool } from "ai";
import { MockLanguageModelV4 } from "ai/test";
import { z } from "zod";

const VALUE = "xoxb-0123456789";
const MASK = "*".repeat(VALUE.length);
const kh = new Client();
const needs = { token: "slack/bot-token" };
const every = { depth: Infinity, showHidden: true, customInspect: false };
const inputSchema = z.object({ channel: z.string() });

const send = kh.tool("slack.send", needs, async ({ channel }, { credentials }) => {
  assert.equal(credentials.token, VALUE);
  return { sent: channel, with: `Bearer ${credentials.token}` };
});
const fail = kh.tool("slack.fail", needs, async (_input, { credentials }) => {
  throw new Error(`bad token ${credentials.token}`, { cause: { headers: [credentials.token] } });
});
const none = kh.tool("slack.none", { token: "slack/none" }, async () => assert.fail("it is not called"));

async function thrown(work) {
  try {
    await work();
  } catch (error) {
    assert(!inspect(error, every).includes(VALUE), inspect(error));
    return error;
  }
  return assert.fail("nothing was thrown");
}

test("the AI SDK runs a tool without its model's seeing a value", async () => {
  const usage = { inputTokens: { total: 1 }, outputTokens: { total: 1 } };
  const calls = ["send", "flow", "fail", "none"].map((toolName) => (
    { type: "tool-call", toolCallId: toolName, toolName, input: JSON.stringify({ channel: "general" }) }
  ));
  const model = new MockLanguageModelV4({
    doGenerate: [
      { content: calls, finishReason: { unified: "tool-calls" }, usage, warnings: [] },
      { content: [{ type: "text", text: "done" }], finishReason: { unified: "stop" }, usage, warnings: [] },
    ],
  });
  const flow = kh.tool("slack.flow", needs, async function* ({ channel }, { credentials, toolCallId }) {
    yield { state: "loading" };
    yield `${toolCallId} ${channel} ${credentials.token}`;
  });
  const tools = Object.fromEntries(
    Object.entries({ send, flow, fail, none }).map(([name, execute]) => [name, tool({ description: name, inputSchema, execute })]),
  );
  const { text, steps } = await generateText({ model, tools, prompt: "say hi", stopWhen: isStepCount(3) });
  assert.equal(text, "done");
  const [shown, sent] = model.doGenerateCalls.map((call) => JSON.stringify(call));
  assert(!shown.includes("credentials"));
  assert(!(inspect(steps, every) + sent).includes(VALUE));
  assert(sent.includes(`Bearer ${MASK}`));
  assert(sent.includes(`flow general ${MASK}`));
  assert(sent.includes(`bad token ${MASK}`));
  assert(sent.includes("slack/none"));
});

test("a server of the MCP SDK has tools without its client's seeing a value", async () => {
  const server = new McpServer({ name: "slack", version: "1" });
  const content = (made) => ({ content: [{ type: "text", text: made }], structuredContent: { made } });
  const said = kh.tool("slack.said", needs, async ({ channel }, { credentials, requestId }) => {
    assert.notEqual(requestId, undefined);
    return content(`${channel} ${credentials.token}`);
  });
  server.registerTool("send", { description: "Send.", inputSchema: { channel: z.string() } }, said);
  server.registerTool("fail", { inputSchema: { channel: z.string() } }, fail);
  server.registerTool("none", {}, none);
  const [one, other] = InMemoryTransport.createLinkedPair();
  const client = new McpClient({ name: "test", version: "1" });
  await Promise.all([server.connect(one), client.connect(other)]);
  const { tools } = await client.listTools();
  assert.deepEqual(Object.keys(tools[0].inputSchema.properties), ["channel"]);
  const called = async (name) => {
    const result = await client.callTool({ name, arguments: { channel: "general" } });
    assert(!JSON.stringify(result).includes(VALUE));
    return [result.isError ?? false, result.content[0].text];
  };
  assert.deepEqual(await called("send"), [false, `general ${MASK}`]);
  assert.deepEqual(await called("fail"), [true, `Error: bad token ${MASK}: the tool put a credential into its error`]);
  const [wrong, why] = await called("none");
  assert(wrong);
  assert.match(why, /slack\/none/);
  await client.close();
});

test("credentials are fetched for each call and end with it", async () => {
  let kept;
  const keep = kh.tool("slack.keep", { ...needs, db: "db/prod" }, async (_input, { credentials }) => {
    kept = credentials;
    for (const text of [inspect(credentials), inspect(credentials, every), JSON.stringify(credentials), `${credentials}`]) {
      assert(!text.includes(VALUE));
    }
    return credentials.db.password.length;
  });
  assert.equal(await keep({}), 21);
  for (const read of [() => kept.token, () => kept.db]) {
    assert.throws(read, InvalidRequest);
  }
  await kh.write("secret/data/db/prod", { data: { username: "u", password: "another-0123456789" } });
  assert.equal(await keep({}), 18);
});

test("no result has a value in it", async () => {
  class Held {
    constructor(text) {
      this.inner = { list: [text] };
    }
  }
  const give = (make) => kh.tool("give", needs, async (_input, { credentials }) => make(credentials.token))({});
  const token = VALUE;
  assert.deepEqual(await give((text) => [text, { [text]: 1 }, new Map([[text, new Set([text])]]), Buffer.from(text)]), [
    MASK, { [MASK]: 1 }, new Map([[MASK, new Set([MASK])]]), Buffer.from(MASK),
  ]);
  const fine = { list: [1, 2n, null, undefined, "x", new Date(0), new Uint8Array(2)], nested: { a: new Held("x") } };
  assert.equal(await give(() => fine), fine);
  for (const make of [
    (text) => new Held(text), (text) => ({ deep: [new URL(`http://x/?k=${text}`)] }), (text) => new Error(text),
    (text) => new Response(text), (text) => [text].values(), (text) => ({ stream: new Blob([text]).stream() }),
    (text) => [Promise.resolve(text)], (text) => new (class { toString() { return text; } })(),
  ]) {
    assert(await thrown(() => give(make)) instanceof ToolFailed, String(make));
  }
  assert(!inspect(fine, every).includes(token));
});

test("no error has a value in it, and others are the very ones", async () => {
  const plain = new TypeError("nothing of it");
  const raise = (make) => thrown(() => kh.tool("raise", needs, async (_input, { credentials }) => {
    throw make(credentials.token);
  })({}));
  assert.equal(await raise(() => plain), plain);
  assert.equal(await raise((text) => `said ${text}`), `said ${MASK}`);
  for (const make of [
    (text) => new Error("outer", { cause: new Error(text) }), (text) => new AggregateError([new Error(text)], "both"),
    (text) => Object.assign(new Error("answered"), { response: { request: new Request("http://x", { headers: { a: text } }) } }),
  ]) {
    assert(await raise(make) instanceof ToolFailed, String(make));
  }
});

test("a stream that is left early, or fails, ends its credentials", async () => {
  let kept;
  const flow = kh.tool("flow", needs, async function* (_input, { credentials }) {
    kept = credentials;
    yield credentials.token;
    throw new Error(`after ${credentials.token}`);
  });
  for await (const piece of flow({})) {
    assert.equal(piece, MASK);
    break;
  }
  assert.throws(() => kept.token, InvalidRequest);
  const error = await thrown(async () => {
    for await (const piece of flow({})) {
      assert.equal(piece, MASK);
    }
  });
  assert.equal(error.reason, `Error: after ${MASK}`);
});

test("what is leased is taken back when the call ends", async () => {
  const leased = kh.tool("leased", { one: "/cubbyhole/creds" }, async (_input, { credentials }) => credentials.one.password);
  assert.equal(await leased({}), "*".repeat(16));
});

test("what is none is said, and a refusal is told as it is", async () => {
  for (const [name, wanted] of [["a b", {}], ["x", { token: "a//b" }], ["x", { token: "" }]]) {
    assert.throws(() => kh.tool(name, wanted, async () => 1), InvalidRequest);
  }
  assert(await thrown(() => none({})) instanceof NotFound);
});

test("what an async function* gives in pieces has no value in it either", async () => {
  const cut = kh.tool("slack.cut", needs, async function* (_input, { credentials }) {
    yield* ["it is ", VALUE.slice(0, 7), VALUE.slice(7), ", and ", "\ud83d", "\ude00"];
    yield { whole: credentials.token };
    yield Buffer.from(VALUE.slice(0, 5));
    yield Buffer.from(VALUE.slice(5));
  });
  const given = [];
  for await (const piece of cut({})) {
    given.push(piece);
  }
  const split = given.findIndex((piece) => typeof piece === "object");
  assert.equal(given.slice(0, split).join(""), `it is ${MASK}, and \u{1f600}`);
  assert.deepEqual(given[split], { whole: MASK });
  assert.equal(Buffer.concat(given.slice(split + 1)).toString(), MASK);
});

test("a stream that is left early ends what it holds", async () => {
  let ended = 0;
  const flow = kh.tool("slack.early", needs, async function* () {
    try {
      yield { n: 1 };
      yield { n: 2 };
    } finally {
      ended += 1;
    }
  });
  for await (const piece of flow({})) {
    assert.deepEqual(piece, { n: 1 });
    break;
  }
  assert.equal(ended, 1);
});

test("neither memory nor functions carry a value out", async () => {
  const bytes = () => new TextEncoder().encode(`${VALUE} `);
  for (const make of [
    () => bytes().buffer, () => new DataView(bytes().buffer), () => new Uint16Array(bytes().buffer),
    () => ({ deep: [bytes().buffer] }), () => () => VALUE, () => ({ then: 1, get: () => VALUE }),
  ]) {
    const give = kh.tool("slack.give", needs, async () => make());
    assert(await thrown(() => give({})) instanceof ToolFailed, make.toString());
  }
  const clean = new Uint16Array(4);
  assert.equal(await kh.tool("slack.clean", needs, async () => clean)({}), clean);
});

test("what is done is recorded with its run and step, and with the tool that does it", async () => {
  const read = () => kh.read("secret/data/slack/bot-token");
  const flow = kh.tool("slack.flow", needs, async function* () {
    await read();
    yield 1;
  });
  await kh.context({ workflow: "nightly", run: "sdk-1" }, async () => {
    await read();
    await kh.context({ step: "a b;=\u00e9", tool: "own" }, read);
    for await (const _ of flow({}));
  });
  const { data } = await kh.read("sys/audit-log", { run: "sdk-1", limit: 100 });
  const seen = new Set(data.records.map((each) => `${each.workflow} ${each.step ?? ""} ${each.tool ?? ""}`));
  assert.deepEqual([...seen].sort(), ["nightly  ", "nightly  slack.flow", "nightly a b;=\u00e9 own"]);
  assert(data.records.every((each) => each.claimed.includes("run")));
  for (const wrong of [{ run: "a\nb" }, { run: "x".repeat(201) }, { runs: "1" }, { step: 4 }, { step: "\ud800" }]) {
    assert.throws(() => kh.context(wrong, () => assert.fail("it is not called")), InvalidRequest);
  }
  const env = new Client("", { environ: { ...process.env, KEYHOLE_RUN: "sdk-2", TRACEPARENT: "none" } });
  await env.read("secret/data/slack/bot-token");
  assert.notEqual((await kh.read("sys/audit-log", { run: "sdk-2" })).data.records.length, 0);
});

test("a need that is none is said when the tool is made", () => {
  for (const wrong of [{ token: undefined }, { token: 3 }, null, "slack/bot-token"]) {
    assert.throws(() => kh.tool("slack.none", wrong, async () => 1), InvalidRequest);
  }
});
