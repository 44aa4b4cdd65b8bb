import type * as https from "node:https";
import { inspect } from "node:util";

import type { Environment } from "../environment.js";
import { stated, within, type Work } from "./context.js";
import type { Fields, Result } from "./core.js";
import { discover } from "./discover.js";
import { Failover } from "./failover.js";
import { brokered } from "./fetch.js";
import { HttpTransport, PATIENCE, TIMEOUT, type Transport } from "./http.js";
import { Lease, type LeaseOptions } from "./lease.js";
import { TunnelAgent, type Road } from "./road.js";
import { call, resolve, type Answered, type CallOptions } from "./travel.js";
import { wrap, type Given, type Needs } from "../tools/tool.js";

/** How to reach a server. */
export interface ClientOptions {
  /** Instead of the one that would be found. */
  readonly token?: string;
  /** Where to ask; empty for the token's own org. */
  readonly org?: string;
  /** Seconds without a byte before a server counts as unreachable. */
  readonly timeout?: number;
  /** Instead of `process.env`. */
  readonly environ?: Environment;
}

/**
 * A server of Keyhole, or several of one vault, and its broker.
 *
 *     const kh = new Client();
 *     const answer = await kh.call("GET", "https://api.stripe.com/v1/balance", { bearer: "stripe/api-key" });
 *
 * Found as by the command line: what is named, else `KEYHOLE_VAULT`, else `KEYHOLE_ADDR`; the token in `KEYHOLE_TOKEN`,
 * else the one of `keyhole login`.
 */
export class Client {
  readonly #servers: readonly string[];
  readonly #transport: Transport;
  readonly #environ: Environment;
  #road: Promise<Road> | null = null;
  #agent: TunnelAgent | null = null;

  /** `vault` is `https://HOST:PORT`, or several with commas between them. Throws `InvalidRequest`. */
  constructor(vault = "", options: ClientOptions = {}) {
    const environ = options.environ ?? process.env;
    const { servers, token } = discover(vault, options.token, environ);
    const timeout = options.timeout ?? (servers.length > 1 ? PATIENCE : TIMEOUT);
    const how = { token, org: options.org ?? "", environ, timeout, deadline: 0 };
    const transports = servers.map((server) => new HttpTransport(server, how));
    this.#servers = servers;
    this.#environ = environ;
    this.#transport = transports.length === 1 && transports[0] ? transports[0] : new Failover(transports);
  }

  /** Read an API path, such as `secret/data/stripe/api-key`. Throws `NotFound` and other refusals. */
  async read(path: string, query: Fields = {}): Promise<Result> {
    return this.#transport.ask("read", path, query);
  }

  /** The names below a path, in `data.keys`; folders end in a slash. */
  async list(path: string, query: Fields = {}): Promise<Result> {
    return this.#transport.ask("list", path, query);
  }

  /** Create or update what is at a path. */
  async write(path: string, data: Fields = {}): Promise<Result> {
    return this.#transport.ask("update", path, data);
  }

  /** Change some fields of what is at a path (RFC 7396). */
  async patch(path: string, data: Fields): Promise<Result> {
    return this.#transport.ask("patch", path, data);
  }

  /** Delete what is at a path. */
  async delete(path: string): Promise<Result> {
    return this.#transport.ask("delete", path, {});
  }

  /**
   * Make a call through the broker, which attaches the credential.
   *
   * Throws what the broker refuses with, or `Unreachable`.
   */
  async call(method: string, url: string, options: CallOptions = {}): Promise<Answered> {
    const service = await resolve((...asked) => this.#transport.ask(...asked), method, url, options);
    return call(await this.#way(), method, url, options, service, stated(this.#environ));
  }

  /**
   * `fetch` whose requests go through the broker, which attaches the credential of the service that fits. It is bound:
   * hand it to any library that takes a `fetch`.
   */
  readonly fetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> =>
    brokered(await this.#way(), this.#tunnels(), stated(this.#environ), input, init);

  /** For libraries that take an agent of `node:https`: each connection is a tunnel through the broker. */
  httpsAgent(): https.Agent {
    return this.#tunnels();
  }

  /** PEM of the CA whose certificates the broker shows. */
  async ca(): Promise<string> {
    return (await this.#way()).ca;
  }

  /**
   * A credential, such as of `/database/creds/readonly`: renewed while it is used, and taken back at the end.
   *
   *     await using creds = await kh.lease("/database/creds/readonly");
   *
   * Without `await using`, call `end()` in a `finally`, or use `withLease`.
   */
  async lease(source: string, options: LeaseOptions = {}): Promise<Lease> {
    return Lease.start(this.#transport.another(), source, options);
  }

  /** A credential for the length of a function. */
  async withLease<T>(source: string, work: (lease: Lease) => Promise<T> | T, options: LeaseOptions = {}): Promise<T> {
    const lease = await this.lease(source, options);
    try {
      return await work(lease);
    } finally {
      await lease.end();
    }
  }

  /**
   * Say which work the requests of a function belong to, and of all that it starts: its calls, reads, leases and tools.
   *
   *     await kh.context({ workflow: "billing", run: "4711", step: "charge" }, () => kh.call("POST", …));
   *
   * Within another one it adds to what that says. Outside of any it is what `KEYHOLE_WORKFLOW`, `KEYHOLE_RUN`,
   * `KEYHOLE_STEP`, `KEYHOLE_TOOL` and `TRACEPARENT` say. Throws `InvalidRequest` for what no record could hold.
   */
  context<T>(work: Work, action: () => T): T {
    return within(work, action);
  }

  /**
   * A function for agents that is given credentials and shows none: they are read for each call, which takes `read` and
   * is recorded, and dropped at its end; what it gives back or throws is scrubbed of them.
   *
   *     const send = kh.tool("slack.send", { token: "slack/bot-token" }, async ({ channel }, { credentials }) => …);
   *
   * `send(input, options)` is what frameworks take: `execute` of the AI SDK, the callback of `registerTool` of MCP. An
   * `async function*` gives its pieces one by one. Throws `InvalidRequest` for a name or reference that is none.
   */
  tool<Input, Output, Options = Record<string, any>>(
    name: string, needs: Needs, work: (input: Input, given: Given<Options>) => Output,
  ): ReturnType<typeof wrap<Input, Options, Output>> {
    return wrap({ read: (path) => this.read(path), lease: (source) => this.lease(source) }, name, needs, work);
  }

  /** Let connections go. The client can be used again. */
  close(): void {
    this.#transport.close();
    this.#agent?.destroy();
    [this.#agent, this.#road] = [null, null];
  }

  toJSON(): object {
    return { servers: this.#servers };
  }

  [inspect.custom](): string {
    return `Client(${JSON.stringify(this.#servers.join(","))})`;
  }

  /** The way to the broker; found once. */
  #way(): Promise<Road> {
    if (this.#road === null) {
      const road = this.#transport.road();
      this.#road = road;
      road.catch(() => (this.#road = null));
    }
    return this.#road;
  }

  #tunnels(): TunnelAgent {
    this.#agent ??= new TunnelAgent(() => this.#way());
    return this.#agent;
  }
}
