/**
 * Who may open and change a repo vault: numbered documents, each signed by somebody whom the one before lets sign it.
 *
 * Whoever has once seen one of them follows the chain from there, so nobody else can add a recipient.
 */

import { IntegrityError, InvalidRequest } from "../errors.js";
import { byCodePoint, type Json } from "../strict_json.js";
import { integerOf, listOf, objectOf, textOf, textsOf } from "./fields.js";
import { parsePart } from "./names.js";
import type { Signed } from "./signed.js";

export const KIND = "members";
const MOST = 10_000;
const ROLES: ReadonlySet<string> = new Set(["owner", "admin", "member", "reader", "agent"]);
const RULERS: ReadonlySet<string> = new Set(["owner", "admin"]);
const WRITERS: ReadonlySet<string> = new Set(["owner", "admin", "member"]);
const HEX = /^(?:[0-9a-fA-F]{2})*$/;
// Of a key that this SDK does not open files with only the form is looked at: a ruler signed it.
const RECIPIENT = /^age1[02-9ac-hj-np-z]+$|^ssh-(?:ed25519|rsa) [A-Za-z0-9+/]+={0,2}$/;

export type Role = "owner" | "admin" | "member" | "reader" | "agent";

/** One who may open something. */
export interface Member {
  readonly name: string;
  readonly role: Role;
  /** For whom secrets are sealed. */
  readonly recipient: string;
  /** The public key of signatures; empty for one who signs nothing. */
  readonly sign: Uint8Array;
  /** That are granted; an owner has all without it. */
  readonly groups: readonly string[];
}

/** All members at one version of the document. */
export class Members {
  readonly vault: string;
  readonly version: number;
  readonly previous: string;
  readonly byName: ReadonlyMap<string, Member>;

  constructor(vault: string, version: number, previous: string, byName: ReadonlyMap<string, Member>) {
    this.vault = vault;
    this.version = version;
    this.previous = previous;
    this.byName = byName;
  }

  get owners(): Member[] {
    return [...this.byName.values()].filter((each) => each.role === "owner");
  }

  /** For whom a secret of these groups is sealed, and for these members besides: the owners first. */
  readers(groups: readonly string[], also: readonly string[]): Member[] {
    const found = [...this.byName.values()].filter((each) => reads(each, groups) || also.includes(each.name));
    const rank = (each: Member): number => (each.role === "owner" ? 0 : 1);
    return found.sort((one, other) => rank(one) - rank(other) || byCodePoint(one.name, other.name));
  }
}

/** Whether a member may sign a new version of a secret that belongs to these groups. */
export function writes(member: Member, groups: readonly string[]): boolean {
  return WRITERS.has(member.role) && reads(member, groups);
}

function reads(member: Member, groups: readonly string[]): boolean {
  return member.role === "owner" || member.groups.some((group) => groups.includes(group));
}

/** What a document says, without a look at who signed it. Throws `IntegrityError`. */
export function readMembers(document: Signed): Members {
  let people: Member[];
  let found: Members;
  try {
    const content = document.content;
    people = listOf(content, "members").map(member);
    const byName = new Map(people.map((each) => [each.name, each]));
    [...objectOf(content.get("hosts")).keys()].forEach((group) => parsePart(group));
    found = new Members(textOf(content, "vault"), integerOf(content, "version"), textOf(content, "previous"), byName);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof InvalidRequest) {
      throw new IntegrityError(`${document.where} is not a list of members`, "restore it from its history");
    }
    throw error;
  }
  const keys = new Set(people.map((each) => each.recipient));
  if (
    found.owners.length === 0 || people.length > MOST || found.byName.size < people.length || keys.size < people.length
  ) {
    throw new IntegrityError(`${document.where} names no owner, or somebody twice`, "restore it from its history");
  }
  return found;
}

/** The members of a document that comes after `before`, whose digest is `digest`. Throws `IntegrityError`. */
export function requireFollows(before: Members, digest: string, document: Signed): Members {
  const after = readMembers(document);
  const where = document.where;
  if (after.vault !== before.vault || after.version !== before.version + 1 || after.previous !== digest) {
    throw new IntegrityError(`${where} does not follow the version before it`, "its history was changed: ask an owner");
  }
  const signers = rulers(before).filter((each) => document.isBy(each.name, each.sign));
  if (signers.some((each) => each.role === "owner")) {
    return after;
  }
  if (signers.length === 0 || !sameRulers(before, after)) {
    throw new IntegrityError(
      `${where} is not signed by anybody who may change the members like this`,
      "somebody else wrote it: ask an owner, and do not use the vault before",
    );
  }
  return after;
}

/** Whether one of the owners whom a document names has signed it. */
export function isByAnOwner(document: Signed, found: Members): boolean {
  return found.owners.some((owner) => document.isBy(owner.name, owner.sign));
}

function rulers(members: Members): Member[] {
  return [...members.byName.values()].filter((each) => RULERS.has(each.role));
}

function sameRulers(before: Members, after: Members): boolean {
  const was = rulers(before);
  return was.length === rulers(after).length && was.every((each) => same(each, after.byName.get(each.name)));
}

function same(one: Member, other: Member | undefined): boolean {
  return (
    other !== undefined && one.role === other.role && one.recipient === other.recipient &&
    Buffer.compare(one.sign, other.sign) === 0 && one.groups.length === other.groups.length &&
    one.groups.every((group, at) => group === other.groups[at])
  );
}

function member(data: Json): Member {
  const content = objectOf(data);
  const role = textOf(content, "role");
  const sign = textOf(content, "sign");
  const recipient = textOf(content, "recipient");
  if (!ROLES.has(role) || !HEX.test(sign) || !RECIPIENT.test(recipient) || /\s$/.test(recipient)) {
    throw new SyntaxError("a role or a key of another kind");
  }
  return {
    name: parsePart(textOf(content, "name")),
    role: role as Role,
    recipient,
    sign: Buffer.from(sign, "hex"),
    groups: textsOf(content, "groups").map((group) => parsePart(group, "group")),
  };
}
