/** The client against a server and a broker that are there already; the environment says where. */

import assert from "node:assert/strict";
import { get } from "node:https";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { format, inspect } from "node:util";

import {
  Client, Expired, InvalidRequest, KeyholeError, NoService, NotFound, PolicyDenied, Unauthenticated, Unreachable,
} from "@keyhole/sdk";

const { base, site, token, key } = JSON.parse(process.env.SDK_WORLD);
const root = new Client();
const agent = new Client("", { token });
const every = { depth: Infinity, showHidden: true, customInspect: false };

function shows(...values) {
  const texts = values.flatMap((each) => [JSON.stringify(each), inspect(each), inspect(each, every), format("%o %s", each, each)]);
  return texts.concat(values.map((each) => String(each?.stack ?? ""))).join("\n");
}

async function refusedBy(work) {
  try {
    await work();
  } catch (error) {
    assert(error instanceof KeyholeError, inspect(error));
    for (const secret of [token, key, process.env.KEYHOLE_TOKEN]) {
      assert(!shows(error).includes(secret));
    }
    return error;
  }
  return assert.fail("it was not refused");
}

test("what is written is read, listed, patched and deleted", async () => {
  await root.write("secret/data/sdk/o'ne two", { data: { value: "first", n: 1 } });
  await root.patch("secret/data/sdk/o'ne two", { data: { value: "\u00fc" } });
  const { data, requestId } = await root.read("secret/data/sdk/o'ne two");
  assert.deepEqual(data.data, { value: "\u00fc", n: 1 });
  assert.match(requestId, /./);
  assert.deepEqual((await root.list("/secret/metadata/sdk/")).data.keys, ["o'ne two"]);
  assert.deepEqual((await root.read("secret/data/sdk/o'ne two", { version: 1 })).data.data.value, "first");
  await root.delete("secret/data/sdk/o'ne two");
  assert.equal((await root.read("secret/data/sdk/o'ne two")).found, false);
});

test("a refusal has code, reason, hint and the id of its record", async () => {
  const missing = await refusedBy(() => root.read("secret/data/no/such"));
  assert(missing instanceof NotFound);
  const denied = await refusedBy(() => agent.read("secret/data/api/key"));
  assert(denied instanceof PolicyDenied);
  assert.equal(denied.code, "policy_denied");
  assert.match(denied.requestId, /./);
  const stranger = new Client("", { token: "kht-nobody" });
  const unknown = await refusedBy(() => stranger.read("secret/data/api/key"));
  assert(unknown instanceof PolicyDenied || unknown instanceof Unauthenticated);
});

test("no way of showing a client shows its token", async () => {
  assert.equal(inspect(agent), `Client("${process.env.KEYHOLE_ADDR}")`);
  await agent.call("GET", `${base}/v1/warm`);
  assert(!shows(agent, { agent }).includes(token));
});

test("a call goes with the secret that it names, or with the one that fits", async () => {
  const named = await agent.call("POST", `${base}/v1/named`, { bearer: "api/key", body: "four" });
  assert.deepEqual([named.status, named.json(), named.service], [200, { ok: true, got: 4 }, "api"]);
  assert.deepEqual((await agent.call("GET", `${base}/v1/unnamed`)).json(), { ok: true, got: 0 });
  const refused = await refusedBy(() => agent.call("GET", `${base}/v1/x`, { basic: "api/key" }));
  assert(refused instanceof NoService);
  const two = await refusedBy(() => agent.call("GET", `${base}/v1/x`, { bearer: "api/key", query: { k: "api/key" } }));
  assert(two instanceof InvalidRequest);
});

test("the answer to a call has no key in it", async () => {
  const { text: said } = await agent.call("GET", `${base}/echo`);
  assert.match(said, /\*{20}/);
  assert(!said.includes(key));
});

test("what the broker refuses is an error, before the tunnel and within it", async () => {
  for (const [url, code] of [
    ["https://other.example.test/", "no_service"], ["http://other.example.test/", "no_service"],
    [`${base}/elsewhere`, "policy_denied"],
  ]) {
    const error = await refusedBy(() => agent.call("GET", url));
    assert.equal(error.code, code, url);
    assert.match(error.hint, /./);
    assert.match(error.requestId, /./);
  }
  assert.equal((await refusedBy(() => agent.call("GET", "/v1/x"))).code, "invalid_request");
});

test("fetch sends and receives as the one of the platform", async () => {
  const made = await agent.fetch(`${base}/v1/made`, { method: "POST", body: new URLSearchParams({ a: "b c" }) });
  assert.deepEqual([made.status, made.ok, await made.json()], [200, true, { ok: true, got: 5 }]);
  const streamed = new ReadableStream({
    start(controller) {
      controller.enqueue(Buffer.from("one"));
      controller.enqueue(Buffer.from("two"));
      controller.close();
    },
  });
  const sent = await agent.fetch(new URL(`${base}/v1/streamed`), { method: "PUT", body: streamed, duplex: "half" });
  assert.deepEqual(await sent.json(), { ok: true, got: 6 });
  const asked = await agent.fetch(new Request(`${base}/v1/request`, { method: "POST", body: "abc" }));
  assert.deepEqual(await asked.json(), { ok: true, got: 3 });
});

test("fetch follows redirects, unpacks what is packed and gives a stream as it comes", async () => {
  const landed = await agent.fetch(`${site}/redirect`, { method: "POST", body: "x" });
  assert.deepEqual([await landed.text(), landed.url, landed.redirected], ["GET /landed", `${site}/landed`, true]);
  assert.equal((await agent.fetch(`${site}/redirect`, { redirect: "manual" })).status, 302);
  await refusedBy(() => agent.fetch(`${site}/redirect`, { redirect: "error" }));
  await refusedBy(() => agent.fetch(`${site}/round`));
  assert.equal(await (await agent.fetch(`${site}/packed`)).text(), "packed ".repeat(1000));
  const parts = [];
  for await (const part of (await agent.fetch(`${site}/chunks`)).body) {
    parts.push(Buffer.from(part).toString());
  }
  assert.equal(parts.join(""), "one two three");
  assert.equal(await (await agent.fetch(`${site}/nothing`)).text(), "");
});

test("fetch can be aborted, and rejects with what the broker refuses", async () => {
  await assert.rejects(agent.fetch(`${base}/v1/x`, { signal: AbortSignal.abort(new Error("enough")) }), /enough/);
  assert((await refusedBy(() => agent.fetch("https://other.example.test/"))) instanceof NoService);
  const inside = await agent.fetch(`${base}/elsewhere`);
  assert.deepEqual([inside.status, inside.headers.get("x-keyhole-error")], [403, "policy_denied"]);
});

test("libraries take its agent", async () => {
  const answer = await new Promise((resolve, reject) => {
    get(`${base}/v1/library`, { agent: agent.httpsAgent() }, resolve).on("error", reject);
  });
  assert.deepEqual(JSON.parse(await text(answer)), { ok: true, got: 0 });
});

test("a source without a lease is read for the length of a function", async () => {
  await root.write("secret/data/sdk/kept", { data: { value: "v", port: 5432 } });
  let kept;
  const value = await root.withLease("/secret/data/sdk/kept", (lease) => {
    kept = lease;
    assert(!shows(lease).includes("5432"));
    assert(lease.remaining > 200);
    return lease.fields();
  });
  assert.deepEqual(value, { value: "v", port: "5432" });
  assert.throws(() => kept.fields(), Expired);
  assert((await refusedBy(() => root.lease("/secret/data/no/such"))) instanceof NotFound);
});

test("a server that is not there, and none at all, are said", async () => {
  const gone = new Client("http://127.0.0.1:9", { token: "t" });
  assert((await refusedBy(() => gone.read("x"))) instanceof Unreachable);
  const several = new Client(`http://127.0.0.1:9,${process.env.KEYHOLE_ADDR}`);
  assert.deepEqual((await several.write("secret/data/sdk/over", { data: { value: "v" } })).found, true);
  for (const location of ["", "sqlite:/tmp/x", "ftp://x", "http://keyhole.example", "https://a,b"]) {
    assert.throws(() => new Client("", { environ: { KEYHOLE_ADDR: location }, token: "t" }), InvalidRequest);
  }
  assert.throws(() => new Client("https://a", { token: "two words" }), InvalidRequest);
});
