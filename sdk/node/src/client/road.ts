/** How a client gets to the broker: the proxy's address, the CA that it signs with, and the credential for it. */

import * as http from "node:http";
import * as https from "node:https";
import { connect, isIP, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import * as tls from "node:tls";
import { inspect } from "node:util";

import { Unreachable, type KeyholeError } from "../errors.js";
import { refusal } from "./core.js";
import { collected, unreachable } from "./http.js";

const UNSPECIFIED = new Set(["0.0.0.0", "[::]"]); // what a listener on every address calls itself
const MAX_REFUSAL = 1024 * 1024; // bytes
const HANDSHAKE = 20_000; // milliseconds

/** The broker as a client sees it. */
export class Road {
  /** PEM of the CA whose certificates the proxy shows inside a tunnel. */
  readonly ca: string;
  readonly #proxy: URL;
  readonly #token: string;
  readonly #trust: tls.SecureContextOptions;

  /** `reachedAs` is the server's host, where the proxy listens on every address. */
  constructor(proxy: string, ca: string, token: string, reachedAs: string, trust: tls.SecureContextOptions) {
    this.ca = ca;
    this.#proxy = new URL(proxy);
    if (UNSPECIFIED.has(this.#proxy.hostname)) {
      this.#proxy.hostname = reachedAs;
    }
    this.#token = token;
    this.#trust = trust;
  }

  /** For messages. */
  get name(): string {
    return `the proxy at ${this.#host}:${this.#port}`;
  }

  /** A request for an `http:` URL, which goes to the proxy in absolute form. */
  plain(options: http.RequestOptions & { headers: http.OutgoingHttpHeaders }): http.ClientRequest {
    const { request } = this.#proxy.protocol === "https:" ? https : http;
    const headers = { ...options.headers, "Proxy-Authorization": this.#authorization };
    return request({ ...options, ...this.#trust, host: this.#host, port: this.#port, headers, agent: false });
  }

  /**
   * CONNECT, then TLS with whatever the broker's CA vouches for.
   *
   * Throws what the broker refuses with, or `Unreachable`.
   */
  async tunnel(host: string, port: number): Promise<tls.TLSSocket> {
    const authority = `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
    const inner = await this.#connect(authority);
    const servername = isIP(host) === 0 ? host : "";
    return this.#secured(tls.connect({ socket: inner, host, servername, ca: this.ca, minVersion: "TLSv1.2" }));
  }

  [inspect.custom](): string {
    return `Road(${this.#proxy.protocol}//${this.#host}:${this.#port})`;
  }

  get #host(): string {
    return this.#proxy.hostname.replace(/^\[|\]$/g, "");
  }

  get #port(): number {
    return Number(this.#proxy.port || 8210);
  }

  get #authorization(): string {
    return `Basic ${Buffer.from(`agent:${this.#token}`).toString("base64")}`;
  }

  #connect(authority: string): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => reject(unreachable(this.name, error.code ?? ""));
      const headers = { Host: authority, "Proxy-Authorization": this.#authorization };
      const asked = http.request({
        method: "CONNECT", path: authority, headers, createConnection: () => this.#toProxy(),
      });
      asked.setTimeout(HANDSHAKE, () => asked.destroy(Object.assign(new Error("late"), { code: "ETIMEDOUT" })));
      asked.on("error", failed);
      asked.on("connect", (answer, socket, head) => {
        socket.setTimeout(0);
        if (answer.statusCode === 200) {
          resolve(socket as Socket);
          return;
        }
        this.#refused(answer, socket, head).then(reject, failed);
      });
      asked.end();
    });
  }

  #toProxy(): Socket {
    const where = { host: this.#host, port: this.#port };
    const named = isIP(where.host) === 0 ? { servername: where.host } : {};
    return this.#proxy.protocol === "https:" ? tls.connect({ ...where, ...named, ...this.#trust }) : connect(where);
  }

  async #refused(answer: http.IncomingMessage, socket: Duplex, head: Buffer): Promise<KeyholeError> {
    const length = Math.min(Number(answer.headers["content-length"] ?? 0), MAX_REFUSAL);
    socket.unshift(head);
    const body = await collected(firstOf(socket, length), MAX_REFUSAL);
    socket.destroy();
    return refusalIn(answer, body ?? Buffer.alloc(0)) ?? new Unreachable(
      `the proxy answers ${answer.statusCode} to CONNECT`, "is it Keyhole's?",
    );
  }

  #secured(socket: tls.TLSSocket): Promise<tls.TLSSocket> {
    return new Promise((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => {
        socket.destroy();
        reject(unreachable(this.name, error.code ?? ""));
      };
      const timer = setTimeout(() => failed(Object.assign(new Error("late"), { code: "ETIMEDOUT" })), HANDSHAKE);
      socket.once("error", failed);
      socket.once("secureConnect", () => {
        clearTimeout(timer);
        socket.off("error", failed);
        resolve(socket);
      });
      socket.once("close", () => clearTimeout(timer));
    });
  }
}

/** An agent for `https:` requests of other programs: each connection is a tunnel through the broker. */
export class TunnelAgent extends https.Agent {
  readonly #road: () => Promise<Road>;

  constructor(road: () => Promise<Road>) {
    super({ keepAlive: true, timeout: 60_000 });
    this.#road = road;
  }

  /** What `http.Agent` calls for a new connection. */
  override createConnection(
    options: { host?: string | null; port?: string | number | null },
    done: (error: Error | null, socket?: Duplex) => void,
  ): undefined {
    const port = Number(options.port ?? 443);
    this.#road()
      .then((road) => road.tunnel(options.host ?? "", port))
      .then((socket) => done(null, socket), done);
  }
}

/** What the broker refused, if it did; an upstream's own refusal is an answer. */
export function refusalIn(answer: http.IncomingMessage, body: Buffer): KeyholeError | null {
  if (!("x-keyhole-error" in answer.headers)) {
    return null;
  }
  let data: unknown = {};
  try {
    data = JSON.parse(body.toString());
  } catch {
    // the headers say it too
  }
  return refusal(answer.statusCode ?? 0, answer.headers, typeof data === "object" && data !== null ? { ...data } : {});
}

async function* firstOf(stream: Duplex, length: number): AsyncIterable<Buffer> {
  let left = length;
  if (left > 0) {
    for await (const part of stream) {
      yield (part as Buffer).subarray(0, left);
      left -= (part as Buffer).length;
      if (left <= 0) {
        return;
      }
    }
  }
}
