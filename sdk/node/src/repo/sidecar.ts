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
import type { Signed } from "./signed.js";

export const KIND = "secret";

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
}

/** What a document says of a secret, without a look at who signed it. Throws `IntegrityError`. */
export function readSidecar(document: Signed, secret: string): Sidecar {
  const content = document.content;
  let found: Sidecar;
  try {
    const expires = textOf(content, "expires");
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

function moment(text: string): Date {
  const when = /(?:[Zz]|[+-]\d\d:?\d\d)$/.test(text) ? instant(text) : null;
  if (when === null) {
    throw new SyntaxError("an instant has its zone");
  }
  return when;
}
