/** A call through the broker: which service it needs, and the way there over the proxy. */

import * as http from "node:http";
import * as https from "node:https";
import { Readable } from "node:stream";

import { AmbiguousService, byCode, InvalidRequest, KeyholeError, NoService, Unreachable } from "../errors.js";
import type { Fields, Operation, Result } from "./core.js";
import { collected, unreachable } from "./http.js";
import { refusalIn, type Road } from "./road.js";

const LIMIT = 256 * 1024 * 1024;

type Named = Readonly<Record<string, string>>;
type Ask = (operation: Operation, path: string, data: Fields) => Promise<Result>;

/** A call as its caller means it. It names secrets, never values. */
export interface CallOptions {
  /** Secret that goes into `Authorization: Bearer`, such as `stripe/api-key`. */
  readonly bearer?: string;
  /** Secret that goes into `Authorization: Basic`. */
  readonly basic?: string;
  /** Header name to secret. */
  readonly header?: Named;
  /** Name of a query parameter to secret. */
  readonly query?: Named;
  /** Path to a field of the JSON body, such as `auth.key`, to secret. */
  readonly bodyField?: Named;
  /** Name of a form field to secret. */
  readonly formField?: Named;
  /** Name of the service to use, where several fit. */
  readonly service?: string;
  /** Headers of the message itself. */
  readonly headers?: Named;
  /** Body of the message. */
  readonly body?: string | Uint8Array;
  /** Seconds without a byte. */
  readonly timeout?: number;
}

/** What the upstream said, scrubbed. */
export class Answered {
  readonly status: number;
  /** Pairs in wire order. */
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer;
  /** Through which the call went; empty where the caller left that to the broker. */
  readonly service: string;

  constructor(status: number, headers: readonly (readonly [string, string])[], body: Buffer, service: string) {
    this.status = status;
    this.headers = headers;
    this.body = body;
    this.service = service;
  }

  /** The body as UTF-8; other bytes are replaced. */
  get text(): string {
    return this.body.toString();
  }

  /** The body as JSON. Throws a `SyntaxError`. */
  json(): any {
    return JSON.parse(this.text);
  }
}

/**
 * The service for a call: the one that binds the named secret, this destination and this way of attaching it.
 *
 * Throws `NoService` when the caller may use none that does, and why the call would be refused, which is on record then.
 */
export async function resolve(ask: Ask, method: string, url: string, options: CallOptions): Promise<string> {
  const wanted = wantedBy(options);
  const [first] = wanted;
  if (first === undefined) {
    return options.service ?? "";
  }
  if (wanted.length > 1) {
    throw new InvalidRequest("a call names one secret", "make a service for each, and call them one by one");
  }
  const [secret, how] = first;
  const question = { method, url, service: options.service ?? "" };
  const answer = (await ask("update", "sys/why", question)).data;
  if (fits(answer, secret, how)) {
    return String(answer["service"]);
  }
  if (!options.service) {
    for (const name of await candidates(ask, String(answer["caller"] ?? ""), secret)) {
      if (fits((await ask("update", "sys/why", { ...question, service: name })).data, secret, how)) {
        return name;
      }
    }
  }
  // Services that do not bind this secret may be as many as they like.
  if (answer["error"] && answer["error"]["code"] !== AmbiguousService.code) {
    const detail = (await ask("update", "sys/why", { ...question, given_up: true })).data["error"];
    if (detail) {
      throw new (byCode(detail["code"]))(detail["reason"], detail["hint"]);
    }
  }
  throw new NoService(
    `no service that you may use sends the secret '${secret}' to this destination as '${how.replace(/[:=]+$/, "")}'`,
    `keyhole why ${method} URL shows which service matches`,
  );
}

/** `(secret, how it is attached)` for every secret that the caller named, in the words of `sys/why`. */
function wantedBy(options: CallOptions): [string, string][] {
  const named: [string, string][] = [
    [options.bearer ?? "", "authorization: Bearer"],
    [options.basic ?? "", "authorization: Basic"],
    ...Object.entries(options.header ?? {}).map(([name, secret]): [string, string] => [secret, `${name.toLowerCase()}:`]),
  ];
  for (const [place, secrets] of [
    ["query", options.query], ["body", options.bodyField], ["form", options.formField],
  ] as const) {
    named.push(...Object.entries(secrets ?? {}).map(([name, secret]): [string, string] => [secret, `${place} ${name}=`]));
  }
  return named.filter(([secret]) => secret !== "").map(([secret, how]) => [full(secret), how]);
}

function fits(answer: Fields, secret: string, how: string): boolean {
  const bound = Boolean(answer["allowed"]) && full(String(answer["secret"] ?? "")) === secret;
  return bound && String(answer["inject"] ?? "").split(", ").some((part) => part.startsWith(how));
}

/** Services of the caller that bind the secret, for the case that another one matched better. */
async function candidates(ask: Ask, caller: string, secret: string): Promise<string[]> {
  if (caller.startsWith("agent/")) {
    const usable = (await ask("read", "sys/what-can", {})).data["services"];
    return (usable as Named[]).filter((each) => full(each["secret"] ?? "") === secret).map((each) => each["name"] ?? "");
  }
  const found = (await ask("read", `sys/who-can/${secret.split("#", 1)[0]}`, {})).data["services"];
  return (found as unknown[]).map(String);
}

/** A reference with its field written out. */
function full(reference: string): string {
  return reference === "" || reference.includes("#") ? reference : `${reference}#value`;
}

/** A message on its way to an upstream. */
export interface Message {
  readonly method: string;
  readonly url: URL;
  readonly headers: http.OutgoingHttpHeaders;
  readonly body: Uint8Array | Readable | null;
  /** Seconds without a byte; 0 for no bound. */
  readonly timeout: number;
  readonly signal?: AbortSignal;
  /** Instead of a connection of its own. */
  readonly agent?: https.Agent;
}

/** Send a message through the proxy. Gives the answer with its body still to come; no redirect is followed. */
export async function send(road: Road, message: Message): Promise<http.IncomingMessage> {
  const { url, method, timeout, agent, signal } = message;
  const path = `${url.pathname}${url.search}`;
  const length = message.body instanceof Uint8Array ? { "Content-Length": message.body.length } : {};
  const headers: http.OutgoingHttpHeaders = { Host: url.host, ...message.headers, ...length };
  const options = { method, headers, timeout: timeout * 1000, ...(signal === undefined ? {} : { signal }) };
  let request: http.ClientRequest;
  if (url.protocol === "http:") {
    request = road.plain({ ...options, path: `http://${url.host}${path}` });
  } else {
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const port = Number(url.port || 443);
    const through = agent ?? (await tunnelled(road, host, port, signal));
    request = https.request({ ...options, path, host, port, agent: through });
  }
  return new Promise((done, reject) => {
    request.on("response", done);
    request.on("timeout", () => request.destroy(Object.assign(new Error("late"), { code: "ETIMEDOUT" })));
    request.on("error", (error: NodeJS.ErrnoException) => {
      if (error instanceof KeyholeError || signal?.aborted === true) {
        reject(signal?.aborted === true ? signal.reason : error);
      } else {
        reject(Object.assign(unreachable(road.name, error.code ?? ""), { stale: request.reusedSocket }));
      }
    });
    if (message.body instanceof Readable) {
      message.body.on("error", (error) => request.destroy(error)).pipe(request);
    } else {
      request.end(message.body ?? undefined);
    }
  });
}

/** An agent that has one tunnel, for one message. */
async function tunnelled(road: Road, host: string, port: number, signal?: AbortSignal): Promise<https.Agent> {
  signal?.throwIfAborted();
  const socket = await road.tunnel(host, port);
  const agent = new https.Agent({ keepAlive: false });
  return Object.assign(agent, { createConnection: () => socket });
}

/** The URL of a call. Throws `InvalidRequest` for one that is not absolute. */
export function parseUrl(text: string): URL {
  try {
    const url = new URL(text);
    if (/^https?:$/.test(url.protocol) && url.username === "" && url.password === "") {
      return url;
    }
  } catch {
    // told below
  }
  throw new InvalidRequest("the URL is not absolute", "write https://HOST/PATH");
}

/** Make a call, and give the whole answer. Throws what the broker refused, or `Unreachable`. */
export async function call(
  road: Road, method: string, address: string, options: CallOptions, service: string, said: Named = {},
): Promise<Answered> {
  const headers: http.OutgoingHttpHeaders = { ...options.headers, ...said };
  if (service !== "") {
    headers["X-Keyhole-Service"] = service;
  }
  const body = options.body === undefined ? null : Buffer.from(options.body);
  const type = options.bodyField ? "application/json" : options.formField ? "application/x-www-form-urlencoded" : "";
  if (body !== null && type !== "" && !Object.keys(headers).some((name) => name.toLowerCase() === "content-type")) {
    headers["Content-Type"] = type;
  }
  const answer = await send(road, { method, url: parseUrl(address), headers, body, timeout: options.timeout ?? 300 });
  const content = await collected(answer, LIMIT).catch((error: NodeJS.ErrnoException) => {
    throw unreachable(road.name, error.code ?? "");
  });
  if (content === null) {
    throw new Unreachable(`the answer is larger than ${LIMIT} bytes`, "use fetch() and stream it");
  }
  const refused = refusalIn(answer, content);
  if (refused !== null) {
    throw refused;
  }
  return new Answered(answer.statusCode ?? 0, pairsOf(answer), content, service);
}

/** The headers of an answer in wire order. */
export function pairsOf(answer: http.IncomingMessage): [string, string][] {
  const raw = answer.rawHeaders;
  return raw.flatMap((name, at): [string, string][] => (at % 2 === 0 ? [[name, raw[at + 1] ?? ""]] : []));
}
