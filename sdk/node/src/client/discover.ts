/**
 * Which server is meant, and with which token: what is named, else `KEYHOLE_VAULT`, else `KEYHOLE_ADDR`; the token from
 * `KEYHOLE_TOKEN`, else from the file of `keyhole login`, where it is kept for each address and goes nowhere else.
 */

import { join } from "node:path";

import { home, type Environment } from "../environment.js";
import { InvalidRequest, NotFound } from "../errors.js";
import { readPlain } from "../files.js";

const WEB = /^https?:\/\//;
const STORES = /^(?:sqlite|postgres|postgresql|memory):/;
const MOST = 16;
const MAX_FILE = 1024 * 1024; // bytes

/** A server, or several of one vault, found. */
export interface Where {
  readonly servers: readonly string[];
  /** Empty where none is known. */
  readonly token: string;
}

/** Find the server and the token. Throws `InvalidRequest`. */
export function discover(vault: string, token: string | undefined, environ: Environment): Where {
  const location = (vault || environ["KEYHOLE_VAULT"] || environ["KEYHOLE_ADDR"] || "").trim();
  if (location === "" || STORES.test(location)) {
    throw new InvalidRequest(
      location === "" ? "no server is named" : "this SDK asks servers, and opens no vault of this machine",
      "start one with keyhole server, and name it: KEYHOLE_ADDR=https://HOST:PORT",
    );
  }
  if (!WEB.test(location)) {
    throw new InvalidRequest(
      "the vault's location is of no known kind",
      "write https://HOST:PORT of a server, or http:// on this machine, in KEYHOLE_ADDR",
    );
  }
  const servers = serversIn(location);
  const found = token ?? (environ["KEYHOLE_TOKEN"]?.trim() || storedToken(servers.join(","), environ));
  if (!/^[\x21-\x7e]*$/.test(found)) {
    throw new InvalidRequest("the token has characters that no token has", "check KEYHOLE_TOKEN");
  }
  return { servers, token: found };
}

function serversIn(location: string): string[] {
  const found = location.split(",").map((each) => each.trim().replace(/\/+$/, ""));
  if (!found.every((each) => WEB.test(each)) || found.length > MOST) {
    throw new InvalidRequest(
      `one of the servers' addresses is not https://HOST:PORT, or they are more than ${MOST}`,
      "write them with commas between them, such as https://a:8200,https://b:8200",
    );
  }
  return [...new Set(found)];
}

/** The token that was stored for this very address; empty when there is none. */
function storedToken(address: string, environ: Environment): string {
  const path = join(home(environ), "tokens.json");
  let tokens: unknown;
  try {
    tokens = JSON.parse(readTokens(path).toString());
  } catch (error) {
    if (error instanceof NotFound) {
      return "";
    }
    if (error instanceof InvalidRequest) {
      throw error;
    }
  }
  if (typeof tokens !== "object" || tokens === null || Array.isArray(tokens)) {
    throw new InvalidRequest(`the token file ${path} is damaged`, `remove it and log in again: rm ${path}`);
  }
  const found = Object.entries(tokens).find(([name]) => name === address)?.[1];
  return typeof found === "string" ? found : "";
}

function readTokens(path: string): Buffer {
  const failed = (code: string): Error =>
    code === "ENOENT"
      ? new NotFound(`there is no ${path}`)
      : new InvalidRequest(`the token file ${path} cannot be read: ${code || "it is no file"}`, `ls -l ${path}`);
  return readPlain(path, MAX_FILE, failed, {
    follow: true,
    check: (found) => {
      const others = (found.mode & 0o077) !== 0 || found.uid !== process.geteuid?.();
      if (process.platform !== "win32" && others) {
        throw new InvalidRequest(
          `the token file ${path} can be used by others than you`, `remove it and log in again: rm ${path}`,
        );
      }
    },
  });
}
