/** The private key to be used: explicit, from a variable, or the owner's file, which only its owner may read. */

import { existsSync, type Stats } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

import type { Environment } from "../environment.js";
import { InvalidRequest, NotFound } from "../errors.js";
import { readPlain } from "../files.js";
import { elsewhere, Identity, PLUGIN, PRIVATE } from "./age.js";

const VARIABLES = ["KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY"] as const;
const PASSPHRASE = "age-encryption.org/v1";
const MAX = 64 * 1024; // bytes

/**
 * The key in a file, in `KEYHOLE_REPO_KEY` or `AGENT_VAULT_KEY`, or the owner's.
 *
 * A variable holds the path of a file or the key itself, which is never written anywhere.
 */
export function findKey(environ: Environment, path: string | undefined): Identity {
  if (path !== undefined) {
    return loadKey(path);
  }
  for (const name of VARIABLES) {
    const text = environ[name]?.trim() ?? "";
    if (text !== "") {
      if (isKey(text)) {
        return Identity.find(text);
      }
      if (!/^(?:keychain|pkcs11):/.test(text) && !existsSync(text)) {
        // it may be a key all the same, so it is not repeated
        throw new NotFound(
          `${name} holds no key, and no file of that name is there`,
          `a key begins with ${PRIVATE}, without quotes; else give the path of its file`,
        );
      }
      return loadKey(text);
    }
  }
  const owner = join(environ["HOME"] || homedir(), ".agent-vault", "owner.key");
  if (!existsSync(owner)) {
    throw new NotFound(
      "no identity key found", `use --key FILE, or set ${VARIABLES[0]}; an owner's key lies in ${owner}`,
    );
  }
  return loadKey(owner);
}

/** Whether a text is a key itself and no path, so that it is never in a message. */
function isKey(text: string): boolean {
  return [PRIVATE, PLUGIN, "-----BEGIN"].some((start) => text.startsWith(start)) || text.includes("\n");
}

/** The key in a file. Throws `NotFound`, or `InvalidRequest` when others may read it or it has no key. */
export function loadKey(path: string): Identity {
  if (isKey(path) || path.toUpperCase().includes(PRIVATE)) {
    throw new InvalidRequest("this is a key itself, and the place of one is meant", `put it into ${VARIABLES[0]}`);
  }
  requireFile(path);
  const data = readKey(path);
  if (data.subarray(0, PASSPHRASE.length).toString() === PASSPHRASE) {
    throw elsewhere("a key under a passphrase");
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch {
    throw new InvalidRequest(`${path} is no key file`, "it is a text that begins with AGE-SECRET-KEY-1");
  }
  requireFile(text);
  if (text.trimStart().startsWith("{")) {
    throw elsewhere("a key that a token seals");
  }
  return Identity.find(text);
}

/** Throws `InvalidRequest` for a place that is no file. */
function requireFile(place: string): void {
  if (place.startsWith("keychain:")) {
    throw elsewhere("a key in the keychain");
  }
  if (place.startsWith("pkcs11:")) {
    throw elsewhere("a key that a token seals");
  }
}

function readKey(path: string): Buffer {
  return readPlain(
    path,
    MAX,
    (code) => {
      if (code === "ENOENT" || code === "ENOTDIR") {
        return new NotFound(`there is no key file ${path}`, "keyhole repo restore-agent writes an agent's again");
      }
      if (code === "") {
        return new InvalidRequest(`${path} is no key file`, "name the file that keyhole repo init made");
      }
      return new InvalidRequest(`the key file ${path} cannot be read: ${code}`, "see its rights");
    },
    { follow: true, check: (found) => requirePrivate(path, found) },
  );
}

function requirePrivate(path: string, found: Stats): void {
  if (process.platform !== "win32" && (found.mode & 0o077) !== 0) {
    throw new InvalidRequest(`the key file ${path} can be read by others`, `chmod 600 ${path}`);
  }
}
