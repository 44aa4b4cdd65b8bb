/**
 * The transport to a server: HTTP/1.1 on kept connections, verified TLS, no redirects, no proxies.
 *
 * Proxy variables of the environment are not read: a program inside `keyhole run` would otherwise send its token
 * through the broker, and a token is nothing for a proxy in any case.
 */

import { readFileSync } from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import { isIP } from "node:net";
import * as tls from "node:tls";

import type { Environment } from "../environment.js";
import { InvalidRequest, Unreachable } from "../errors.js";
import { build, parse, type Fields, type Operation, type Result } from "./core.js";
import { stated } from "./context.js";
import { Road } from "./road.js";

/** Seconds without a byte before a server counts as unreachable. */
export const TIMEOUT = 60;
/** The same where another server can be asked, or something has to go on. */
export const PATIENCE = 10;
const LIMIT = 64 * 1024 * 1024;
const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** How a client asks a vault. */
export interface Transport {
  /** Ask, and wait for the result. */
  ask(operation: Operation, path: string, data: Fields): Promise<Result>;
  /** The way to the broker. */
  road(): Promise<Road>;
  /** The same vault on connections of its own, with a bound on whole answers. */
  another(): Transport;
  /** Let connections go. */
  close(): void;
}

/** No connection came about, so nothing was sent. */
export class NotConnected extends Unreachable {}

/** Settings of a transport. */
export interface Reaching {
  readonly token: string;
  readonly org: string;
  readonly environ: Environment;
  /** Seconds without a byte. */
  readonly timeout: number;
  /** Seconds for a whole answer; 0 for no bound but `timeout`. */
  readonly deadline: number;
}

/** Asks one server. */
export class HttpTransport implements Transport {
  readonly address: string;
  readonly #url: URL;
  readonly #how: Reaching;
  readonly #agent: http.Agent;
  readonly #trust: tls.SecureContextOptions;

  constructor(address: string, how: Reaching) {
    this.address = address;
    this.#url = parseAddress(address, how.environ);
    this.#how = how;
    this.#trust = trust(how.environ["KEYHOLE_CACERT"] ?? "");
    const kept = { keepAlive: true, maxSockets: 16 };
    this.#agent = this.#url.protocol === "https:" ? new https.Agent({ ...kept, ...this.#trust }) : new http.Agent(kept);
  }

  async ask(operation: Operation, path: string, data: Fields): Promise<Result> {
    const mayRepeat = operation === "read" || operation === "list";
    const got = (await this.#send(operation, path, data)) ?? (mayRepeat ? await this.#send(operation, path, data) : null);
    if (got === null) {
      throw unreachable(this.address, "ECONNRESET");
    }
    const [answer, body] = got;
    return parse(answer.statusCode ?? 0, answer.headers, body, this.address);
  }

  async road(): Promise<Road> {
    const { data } = await this.ask("read", "sys/keyhole", {});
    const { proxy, ca } = data;
    if (typeof proxy !== "string" || proxy === "" || typeof ca !== "string") {
      throw new Unreachable(`the server at ${this.address} has no proxy`, "start it with --proxy-listen");
    }
    return new Road(proxy, ca, this.#how.token, this.#url.hostname, this.#trust);
  }

  another(): HttpTransport {
    const timeout = Math.min(this.#how.timeout, PATIENCE);
    return new HttpTransport(this.address, { ...this.#how, timeout, deadline: 3 * PATIENCE });
  }

  close(): void {
    this.#agent.destroy();
  }

  /** The answer with its body; `null` where a kept connection had ended meanwhile. */
  #send(operation: Operation, path: string, data: Fields): Promise<[http.IncomingMessage, Buffer] | null> {
    const wire = build(operation, path, data, this.#how.token, this.#how.org);
    const { request } = this.#url.protocol === "https:" ? https : http;
    return new Promise((resolve, reject) => {
      const asked = request({
        agent: this.#agent,
        host: this.#url.hostname.replace(/^\[|\]$/g, ""),
        port: this.#url.port || (this.#url.protocol === "https:" ? 443 : 80),
        method: wire.method,
        path: wire.target,
        headers: {
          ...stated(this.#how.environ), ...wire.headers, ...(wire.body === null ? {} : { "Content-Length": Buffer.byteLength(wire.body) }),
        },
        timeout: this.#how.timeout * 1000,
      });
      let connected = false;
      const fail = (code: string): void => reject(unreachable(this.address, code, connected));
      const watchdog = this.#how.deadline > 0 ? setTimeout(late, this.#how.deadline * 1000) : undefined;
      function late(): void {
        fail("ETIMEDOUT");
        asked.destroy();
      }
      asked.on("socket", (socket) => {
        connected = !socket.connecting;
        socket.once(this.#url.protocol === "https:" ? "secureConnect" : "connect", () => (connected = true));
      });
      asked.on("timeout", late);
      asked.on("close", () => clearTimeout(watchdog));
      asked.on("error", (error: NodeJS.ErrnoException) => {
        if (asked.reusedSocket && error.code === "ECONNRESET") {
          resolve(null);
        } else {
          fail(error.code ?? "");
        }
      });
      asked.on("response", (answer) => {
        collected(answer, LIMIT).then(
          (body) => {
            if (body === null) {
              asked.destroy();
              reject(new Unreachable(
                `the answer of ${this.address} is larger than ${LIMIT} bytes`,
                "is it a Keyhole server? check KEYHOLE_ADDR",
              ));
            } else {
              resolve([answer, body]);
            }
          },
          (error: NodeJS.ErrnoException) => fail(error.code ?? ""),
        );
      });
      asked.end(wire.body ?? undefined);
    });
  }
}

/** All bytes of a stream; `null` when they are too many. */
export async function collected(stream: AsyncIterable<unknown>, most: number): Promise<Buffer | null> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of stream) {
    parts.push(part as Buffer);
    length += (part as Buffer).length;
    if (length > most) {
      return null;
    }
  }
  return Buffer.concat(parts);
}

/** The error for a server that could not be talked to, from the code of what the connection raised. */
export function unreachable(address: string, code: string, connected = true): Unreachable {
  const kind = connected ? Unreachable : NotConnected;
  if (/CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(code)) {
    return new kind(`the certificate of ${address} is not trusted: ${code}`, "name its CA: KEYHOLE_CACERT=FILE");
  }
  if (/SSL|TLS|EPROTO/.test(code)) {
    return new kind(`no TLS with ${address}: ${code}`, "check the address");
  }
  if (code === "ETIMEDOUT") {
    return new kind(`${address} did not answer in time`, "is the server running and reachable?");
  }
  if (code.startsWith("HPE_")) {
    return new kind(`${address} does not speak HTTP as Keyhole does`, "check the address");
  }
  return new kind(`cannot reach ${address}: ${code || "the connection ended"}`, "is the server running? check KEYHOLE_ADDR");
}

/** Whom to trust: the system's CAs, and those of a file besides. */
export function trust(file: string): tls.SecureContextOptions {
  if (file === "") {
    return { minVersion: "TLSv1.2" };
  }
  try {
    const pem = readFileSync(file, "utf8");
    tls.createSecureContext({ ca: pem });
    // Node 22.15 and later know what is trusted by default, NODE_EXTRA_CA_CERTS included.
    const known = tls as { getCACertificates?: (type: "default") => string[] };
    return { minVersion: "TLSv1.2", ca: [...(known.getCACertificates?.("default") ?? tls.rootCertificates), pem] };
  } catch {
    throw new InvalidRequest(`the CA file ${file} cannot be read`, "check KEYHOLE_CACERT");
  }
}

function parseAddress(address: string, environ: Environment): URL {
  let url: URL | null = null;
  try {
    url = new URL(address);
  } catch {
    // told below
  }
  const bare = url !== null && url.username === "" && url.password === "" && `${url.pathname}${url.search}${url.hash}` === "/";
  if (url === null || !bare || !/^https?:$/.test(url.protocol)) {
    throw new InvalidRequest("the server's address is not https://HOST[:PORT]", "for example https://keyhole.internal");
  }
  if (url.protocol === "http:" && !isLoopback(url.hostname) && environ["KEYHOLE_INSECURE_HTTP"] !== "1") {
    throw new InvalidRequest(
      `${address} would carry your token in clear`, "use https, or say so with KEYHOLE_INSECURE_HTTP=1",
    );
  }
  return url;
}

function isLoopback(host: string): boolean {
  return LOOPBACK.has(host) || (isIP(host) === 4 && host.startsWith("127."));
}
