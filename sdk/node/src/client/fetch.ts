/** `fetch` whose requests go through the broker: the same arguments and the same `Response`. */

import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import type { IncomingMessage } from "node:http";

import { InvalidRequest, KeyholeError, Unreachable } from "../errors.js";
import type { Road, TunnelAgent } from "./road.js";
import { pairsOf, parseUrl, send } from "./travel.js";

const MOST_REDIRECTS = 20;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const WITHOUT_BODY = new Set([101, 204, 205, 304]);
const CODINGS = { gzip: createGunzip, "x-gzip": createGunzip, deflate: createInflate, br: createBrotliDecompress };

/**
 * One fetch, with its redirects, each of which is a call that the broker judges.
 *
 * What the broker refuses before it speaks to an upstream is a `KeyholeError`; what it refuses then is its answer, 403
 * for example, with the header `X-Keyhole-Error`.
 */
export async function brokered(
  road: Road, agent: TunnelAgent, said: Readonly<Record<string, string>>, input: string | URL | Request, init?: RequestInit,
): Promise<Response> {
  const request = new Request(input, init);
  const streamed = init?.body instanceof globalThis.ReadableStream;
  const whole = streamed || request.body === null ? null : Buffer.from(await request.arrayBuffer());
  let body: Buffer | Readable | null = streamed ? Readable.fromWeb(request.body as ReadableStream) : whole;
  let url = parseUrl(request.url);
  let method = request.method;
  const headers = new Headers(request.headers);
  if (!headers.has("accept-encoding")) {
    headers.set("accept-encoding", "identity"); // what is not packed is scrubbed as it comes
  }
  for (const [name, text] of Object.entries(said)) {
    headers.set(name, text); // it goes no further than the broker
  }
  for (let redirects = 0; ; redirects += 1) {
    const message = { method, url, headers: Object.fromEntries(headers), body, timeout: 0, signal: request.signal, agent };
    const mayRepeat = method === "GET" || method === "HEAD";
    const answer = await send(road, message).catch((error: KeyholeError & { stale?: boolean }) => {
      if (mayRepeat && error.stale === true) {
        return send(road, message); // a kept connection had ended meanwhile
      }
      throw error;
    });
    const status = answer.statusCode ?? 0;
    const location = answer.headers.location;
    if (!REDIRECTS.has(status) || location === undefined || request.redirect === "manual") {
      return responseOf(answer, url, redirects > 0);
    }
    answer.destroy();
    if (request.redirect === "error" || redirects === MOST_REDIRECTS) {
      throw new Unreachable(`the upstream redirects${redirects > 0 ? " again and again" : ""}`, "ask where it leads to");
    }
    const next = parseUrl(new URL(location, url).href);
    if (status === 303 ? method !== "HEAD" : status < 303 && method === "POST") {
      [method, body] = ["GET", null];
      ["content-type", "content-length", "content-encoding"].forEach((name) => headers.delete(name));
    }
    if (next.origin !== url.origin) {
      ["authorization", "cookie", "x-keyhole-service"].forEach((name) => headers.delete(name));
    }
    if (body instanceof Readable) {
      throw new InvalidRequest("the body of this request was a stream, which cannot be sent twice", "send it as a whole");
    }
    url = next;
  }
}

function responseOf(answer: IncomingMessage, url: URL, redirected: boolean): Response {
  const headers = new Headers(pairsOf(answer));
  const status = answer.statusCode ?? 0;
  const coding = (answer.headers["content-encoding"] ?? "").toLowerCase();
  let stream: Readable | null = answer;
  if (WITHOUT_BODY.has(status)) {
    answer.resume();
    stream = null;
  } else if (Object.hasOwn(CODINGS, coding)) {
    const decoder = CODINGS[coding as keyof typeof CODINGS]();
    stream = answer.on("error", (error) => decoder.destroy(error)).pipe(decoder);
    headers.delete("content-encoding");
    headers.delete("content-length");
  }
  const body = stream === null ? null : (Readable.toWeb(stream) as ConstructorParameters<typeof Response>[0]);
  const response = new Response(body, { status, statusText: answer.statusMessage ?? "", headers });
  return Object.defineProperties(response, { url: { value: url.href }, redirected: { value: redirected } });
}
