/**
 * What is signed of each secret: which ciphertext it is, for whom, and which version came before.
 *
 * A ciphertext in another's place, of another time or by somebody who may not write it does not fit it.
 */

import { createHash } from "node:crypto";

import { IntegrityError, InvalidRequest } from "../errors.js";
import { instant, type Meta } from "./documents.js";
import { integerOf, textOf, textsOf } from "./fields.js";
import { type Members, writes } from "./members.js";
import { groupOf, parseLine, parsePart, parseSecret } from "./names.js";
import { Signed } from "./signed.js";

export const KIND = "secret";
const EVENT = /^[1-9][0-9]{0,8}:[0-9a-f]{64}$/;
const MOST_JOINED = 256;

/** One version of one secret. */
export interface Sidecar {
  readonly secret: string;
  readonly version: number;
  readonly groups: readonly string[];
  readonly also: readonly string[];
  /** SHA-256 of the age file, in hexadecimal; empty for a secret that was removed. */
  readonly digest: string;
  readonly recipients: readonly string[];
  readonly created: Date;
  readonly rotated: Date;
  readonly expires: Date | null;
  /** Why its value has to be changed at the source; empty while it need not be. */
  readonly due: string;
  readonly signer: string;
  readonly removed: boolean;
  /** Whether it only brings lines together, and is no event of its own. */
  readonly joins: boolean;
}

/** What a document says of a secret, without a look at who signed it. Throws `IntegrityError`. */
export function readSidecar(document: Signed, secret: string): Sidecar {
  const content = document.content;
  let found: Sidecar;
  try {
    const expires = textOf(content, "expires");
    const chosen = content.get("chosen") ?? 0;
    if (typeof chosen !== "number" || chosen < 0) {
      throw new SyntaxError("chosen is no number");
    }
    events(document, "after");
    found = {
      secret: parseSecret(textOf(content, "secret")),
      version: integerOf(content, "version"),
      groups: textsOf(content, "groups").map((group) => parsePart(group, "group")),
      also: textsOf(content, "also").map((name) => parsePart(name, "member")),
      digest: textOf(content, "digest"),
      recipients: textsOf(content, "recipients"),
      created: moment(textOf(content, "created")),
      rotated: moment(textOf(content, "rotated")),
      expires: expires === "" ? null : moment(expires),
      due: parseLine(textOf(content, "due")),
      signer: textOf(content, "signer"),
      removed: content.get("removed") === true,
      joins: events(document, "joins") > 0,
    };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof InvalidRequest) {
      throw new IntegrityError(`${document.where} does not describe a secret`, "restore it from its history");
    }
    throw error;
  }
  if (found.secret !== secret) {
    throw new IntegrityError(`${document.where} is of ${found.secret}`, "somebody put it there: restore it");
  }
  return found;
}

/**
 * What two documents have in common that bring the same lines together with the same result; empty for a version that is
 * an event. They differ in who did that, in the file, which is sealed with other random bytes, and in the side before.
 */
export function alike(document: Signed, sidecar: Sidecar): string {
  if (!sidecar.joins) {
    return "";
  }
  const own = [...document.content].filter(([name]) => !["signer", "digest", "previous"].includes(name));
  return new Signed(KIND, new Map(own), new Map(), document.where).digest;
}

/** See that a member who may write it made this version, and that it is this ciphertext. Throws `IntegrityError`. */
export function requireGenuine(
  document: Signed, sidecar: Sidecar, members: Members, ciphertext: Uint8Array | null,
): void {
  const signer = members.byName.get(sidecar.signer);
  if (signer === undefined || !writes(signer, sidecar.groups) || !document.isBy(signer.name, signer.sign)) {
    throw new IntegrityError(
      `${sidecar.secret} was written by nobody who may write it`,
      "see its history, then: keyhole repo adopt, or ask an owner",
    );
  }
  if (ciphertext !== null && createHash("sha256").update(ciphertext).digest("hex") !== sidecar.digest) {
    throw new IntegrityError(
      `${sidecar.secret} is not the file that ${sidecar.signer} wrote`,
      "it was changed without Keyhole: see its history, then keyhole repo adopt",
    );
  }
}

/** What the format's own `.meta` says of a secret. */
export function metaOf(sidecar: Sidecar, members: Members): Meta {
  const readers = members.readers(sidecar.groups, sidecar.also);
  const listed = readers.filter((each) => each.role !== "owner" && sidecar.recipients.includes(each.recipient));
  return {
    name: sidecar.secret,
    group: sidecar.groups[0] ?? groupOf(sidecar.secret),
    created: sidecar.created,
    rotated: sidecar.rotated,
    expires: sidecar.expires,
    agents: listed.map((each) => each.name),
  };
}

/** How many events a list of a document names. */
function events(document: Signed, name: string): number {
  if (!document.content.has(name)) {
    return 0;
  }
  const found = textsOf(document.content, name);
  if (found.length > MOST_JOINED || !found.every((each) => EVENT.test(each))) {
    throw new SyntaxError("no event, or too many");
  }
  return found.length;
}

function moment(text: string): Date {
  const when = /(?:[Zz]|[+-]\d\d:?\d\d)$/.test(text) ? instant(text) : null;
  if (when === null) {
    throw new SyntaxError("an instant has its zone");
  }
  return when;
}
