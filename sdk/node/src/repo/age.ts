/** Files of age (age-encryption.org/v1): opened in memory, and not before their header was looked at. */

import { createPrivateKey, createPublicKey, hkdfSync, sign, type KeyObject } from "node:crypto";

import { Decrypter, identityToRecipient } from "age-encryption";

import { IntegrityError, InvalidRequest, NotFound } from "../errors.js";

export const PRIVATE = "AGE-SECRET-KEY-1";
export const PLUGIN = "AGE-PLUGIN-";
const IDENTITY = /^AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}$/;
const SIGNING = "keyhole repo signing v1";
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex"); // before a raw private key (RFC 8410)
const HEAD = Buffer.from("age-encryption.org/v1\n");
const MARK = Buffer.from("\n--- ");
const MAX_FILE = 16 * 1024 * 1024; // bytes in clear
const MAX_HEADER = 512 * 1024; // bytes
const MAX_STANZAS = 256;
const FULL_LINE = 64; // characters of a body, but of its last line
const STANZA = /^->(?: [\x21-\x7e]+)+$/;
const BASE64 = /^[A-Za-z0-9+/]*$/;
const SEALED_KEY = 32; // bytes: a file's key of 16, and a tag

/** A private key that opens files, and the signing key that derives from it. It is never shown, and not serialised. */
export class Identity {
  readonly #text: string;
  readonly #signing: KeyObject;

  /** Throws `InvalidRequest` for what is no key of this kind. */
  constructor(text: string) {
    const key = text.trim();
    try {
      new Decrypter().addIdentity(IDENTITY.test(key) ? key : "");
    } catch {
      throw new InvalidRequest(
        "this is no private key of age", "it begins with AGE-SECRET-KEY-1, and has 74 characters",
      );
    }
    this.#text = key;
    const seed = Buffer.from(hkdfSync("sha256", key, "", SIGNING, 32));
    this.#signing = createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: "der", type: "pkcs8" });
  }

  /** Who is meant by it. */
  async recipient(): Promise<string> {
    return identityToRecipient(this.#text);
  }

  /** The public key of its signatures, 32 bytes. */
  get signs(): Buffer {
    return createPublicKey(this.#signing).export({ format: "der", type: "spki" }).subarray(-32);
  }

  /** A signature of these bytes. */
  sign(data: Uint8Array): Buffer {
    return sign(null, data, this.#signing);
  }

  /** The first key in the text of a key file, whose other lines are comments. Throws `InvalidRequest`. */
  static find(text: string): Identity {
    const lines = text.split(/\r\n|[\r\n]/);
    const line = lines.find((each) => each.startsWith(PRIVATE) || each.startsWith(PLUGIN)) ?? text;
    const start = text.trimStart();
    if (start.startsWith("-----BEGIN AGE")) {
      throw elsewhere("a key under a passphrase");
    }
    if (start.startsWith("-----BEGIN")) {
      throw elsewhere("an SSH key");
    }
    if (line.startsWith(PLUGIN)) {
      throw elsewhere("the key of a plugin");
    }
    return new Identity(line);
  }

  /**
   * What a binary age file has.
   *
   * Throws `NotFound` when it is not for this key, `IntegrityError` when it is no such file or was changed.
   */
  async decrypt(ciphertext: Buffer): Promise<Uint8Array> {
    requireFile(ciphertext);
    const decrypter = new Decrypter();
    decrypter.addIdentity(this.#text);
    try {
      return await decrypter.decrypt(ciphertext);
    } catch (error) {
      if (error instanceof Error && error.message.includes("no identity matched")) {
        throw new NotFound("the file is not for this key", "ask an owner to grant it, or use another key");
      }
      throw damaged();
    }
  }
}

/** What is said of keys that only the `keyhole` program opens. */
export function elsewhere(what: string): InvalidRequest {
  return new InvalidRequest(
    `${what} does not open files in this SDK`, "use an age key, which begins with AGE-SECRET-KEY-1, or: keyhole repo get",
  );
}

/** See that this is a binary age file of version 1 with a bounded, well-formed header. Throws `IntegrityError`. */
export function requireFile(ciphertext: Buffer): void {
  if (ciphertext.length > MAX_FILE + 64 * 1024 || !ciphertext.subarray(0, HEAD.length).equals(HEAD)) {
    throw damaged();
  }
  const header = ciphertext.subarray(HEAD.length, MAX_HEADER);
  const end = header.indexOf(MARK);
  const lines = end < 0 ? [] : header.subarray(0, end).toString("latin1").split("\n");
  let count = 0;
  let position = 0;
  const lineOf = (at: number): string => lines[at] ?? "-";
  while (position < lines.length) {
    count += 1;
    const first = lineOf(position);
    if (!STANZA.test(first)) {
      throw damaged();
    }
    position += 1;
    const start = position;
    while (lineOf(position).length === FULL_LINE && BASE64.test(lineOf(position))) {
      position += 1;
    }
    if (lineOf(position).length >= FULL_LINE || !BASE64.test(lineOf(position))) {
      throw damaged(); // the last line of a body is a short one, or empty
    }
    position += 1;
    if (!isSound(first.split(" ").slice(1), sizeOf(lines.slice(start, position).join("")))) {
      throw damaged();
    }
  }
  if (count === 0 || count > MAX_STANZAS) {
    throw damaged();
  }
}

/** Whether a stanza of a known kind has the shape that its kind has; a passphrase opens no secret. */
function isSound([kind, ...args]: string[], body: number): boolean {
  const sizes = args.map(sizeOf).join();
  switch (kind) {
    case "X25519":
      return sizes === "32" && body === SEALED_KEY;
    case "ssh-ed25519":
      return sizes === "4,32" && body === SEALED_KEY;
    case "ssh-rsa":
      return sizes === "4" && body >= 256 && body < 2049;
    case "scrypt":
      return false;
    default:
      return body >= 0;
  }
}

/** Bytes in base64 without padding, in its only form (RFC 4648, section 3.5); -1 for what is none. */
function sizeOf(text: string): number {
  const data = Buffer.from(text, "base64");
  return BASE64.test(text) && data.toString("base64").replace(/=+$/, "") === text ? data.length : -1;
}

function damaged(): IntegrityError {
  return new IntegrityError(
    "this is no file of age, or it was changed", "look at its history, and restore it from there",
  );
}
