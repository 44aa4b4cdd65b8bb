/**
 * Signed documents: JSON that people can review, with Ed25519 signatures over one canonical form of its content.
 *
 * The signed bytes are a line with domain, kind and `v1`, and the content as JSON with sorted keys, without spaces.
 */

import { createHash, createPublicKey, verify } from "node:crypto";

import { IntegrityError } from "../errors.js";
import { canonical, parseObject, type JsonObject } from "../strict_json.js";
import { nextStep } from "./unmerged.js";

const MAX_SIGNATURES = 64;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const SPKI = Buffer.from("302a300506032b6570032100", "hex"); // before a raw public key (RFC 8410)

/** A document as it was read, and not verified yet. */
export class Signed {
  readonly content: JsonObject;
  /** Its file, for messages. */
  readonly where: string;
  /** SHA-256 of the signed bytes, in hexadecimal. */
  readonly digest: string;
  /** What is signed. */
  readonly bytes: Buffer;
  readonly #signatures: ReadonlyMap<string, Buffer>;

  constructor(kind: string, content: JsonObject, signatures: ReadonlyMap<string, Buffer>, where: string) {
    this.content = content;
    this.where = where;
    this.bytes = Buffer.from(`keyhole repo ${kind} v1\n${canonical(content)}`);
    this.#signatures = signatures;
    this.digest = createHash("sha256").update(this.bytes).digest("hex");
  }

  /** Whether it has a signature, of whatever name, that verifies with this Ed25519 key. */
  isByKey(key: Uint8Array): boolean {
    return [...this.#signatures.keys()].some((name) => this.isBy(name, key));
  }

  /** Whether it has a signature of this name that verifies with this Ed25519 key. */
  isBy(name: string, key: Uint8Array): boolean {
    const signature = this.#signatures.get(name);
    if (signature === undefined || key.length !== 32) {
      return false;
    }
    try {
      const held = createPublicKey({ key: Buffer.concat([SPKI, key]), format: "der", type: "spki" });
      return verify(null, this.bytes, held, signature);
    } catch {
      return false; // no point of the curve
    }
  }
}

/** The document of these bytes. Throws `IntegrityError` that names the file. */
export function readSigned(kind: string, data: Uint8Array, where: string): Signed {
  try {
    const document = parseObject(data);
    const content = document.get("content");
    const signatures = document.get("signatures");
    if (content instanceof Map && signatures instanceof Map && signatures.size <= MAX_SIGNATURES) {
      return new Signed(kind, content, new Map([...signatures].map(([name, text]) => [name, decoded(text)])), where);
    }
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) {
      throw error;
    }
  }
  throw new IntegrityError(`${where} is not a signed document`, nextStep(data));
}

function decoded(text: unknown): Buffer {
  if (typeof text !== "string" || !BASE64.test(text)) {
    throw new SyntaxError("a signature is not base64");
  }
  return Buffer.from(text, "base64");
}
