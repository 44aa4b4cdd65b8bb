/**
 * Who may open and change a repo vault: numbered documents, each signed by somebody whom the one before lets sign it.
 *
 * Whoever has once seen one of them follows the chain from there, so nobody else can add a recipient.
 */

import { IntegrityError, InvalidRequest } from "../errors.js";
import { byCodePoint, type Json, type JsonObject } from "../strict_json.js";
import { integerOf, listOf, objectOf, textOf, textsOf } from "./fields.js";
import { parseLine, parsePart } from "./names.js";
import type { Signed } from "./signed.js";

export const KIND = "members";
const MOST = 10_000;
const ROLES: ReadonlySet<string> = new Set(["owner", "admin", "member", "reader", "agent"]);
const RULERS: ReadonlySet<string> = new Set(["owner", "admin"]);
const WRITERS: ReadonlySet<string> = new Set(["owner", "admin", "member"]);
const HEX = /^(?:[0-9a-fA-F]{2})*$/;
// Of a key that this SDK does not open files with only the form is looked at: a ruler signed it.
const RECIPIENT = /^age1(?:[a-z0-9+_.-]{1,64}1)?[02-9ac-hj-np-z]{6,}$|^ssh-(?:ed25519|rsa) [A-Za-z0-9+/]+={0,2}$/;

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
  /** Why the key of an agent has to be replaced; empty while it need not be. */
  readonly due: string;
}

/** All members at one version of the document. */
export class Members {
  readonly vault: string;
  readonly version: number;
  readonly previous: string;
  readonly byName: ReadonlyMap<string, Member>;
  /** Group to the hosts to which its secrets may go. */
  readonly hosts: ReadonlyMap<string, readonly string[]>;
  /** Digest of what opens the names, where ids stand for them; `null` where names are in clear. */
  readonly names: string | null;
  /** Digests of the last documents of other lists, in whose place this one is (see `joining`). */
  readonly over: readonly string[];

  /** What a document says; throws a `SyntaxError`, or `InvalidRequest` for a name that is none. */
  constructor(content: JsonObject) {
    this.vault = textOf(content, "vault");
    this.version = integerOf(content, "version");
    this.previous = textOf(content, "previous");
    this.byName = new Map(listOf(content, "members").map(member).map((each) => [each.name, each]));
    const hosts = objectOf(content.get("hosts"));
    this.hosts = new Map([...hosts.keys()].map((group) => [parsePart(group), textsOf(hosts, group)]));
    this.names = content.get("opaque") === true ? textOf(content, "names") : null;
    this.over = content.has("over") ? textsOf(content, "over") : [];
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
  let found: Members;
  try {
    found = new Members(document.content);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof InvalidRequest) {
      throw new IntegrityError(`${document.where} is not a list of members`, "restore it from its history");
    }
    throw error;
  }
  const count = listOf(document.content, "members").length;
  const keys = new Set([...found.byName.values()].map((each) => each.recipient));
  if (
    found.owners.length === 0 || count > MOST || found.byName.size < count || keys.size < count
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
  if ((after.names === null) !== (before.names === null)) {
    throw new IntegrityError(`${where} changes whether names are hidden`, "somebody else wrote it: ask an owner");
  }
  const signers = rulers(before).filter((each) => document.isBy(each.name, each.sign));
  if (signers.some((each) => each.role === "owner")) {
    return after;
  }
  const held = new Set(signers.flatMap((each) => each.groups));
  if (signers.length === 0 || !sameRulers(before, after) || moved(before, after).some((group) => !held.has(group))) {
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

/** The groups that somebody was given or lost, whose readers have another key or role, or whose hosts are others. */
function moved(before: Members, after: Members): string[] {
  const [was, is] = [pairsOf(before), pairsOf(after)];
  const changed = [...was.keys(), ...is.keys()].filter((pair) => was.has(pair) !== is.has(pair));
  return changed.map((pair) => was.get(pair) ?? is.get(pair) ?? "");
}

/** Everything that is of a group, as a text of its own, to the group. */
function pairsOf(members: Members): Map<string, string> {
  const people = [...members.byName.values()];
  const grants = people.flatMap((each) => {
    const who = `m ${each.name} ${each.role} ${Buffer.from(each.sign).toString("hex")} ${each.recipient}`;
    return each.groups.map((group): [string, string] => [group, who]);
  });
  const hosts = [...members.hosts].flatMap(([group, found]): [string, string][] => [
    [group, "h"], ...found.map((host): [string, string] => [group, `h ${host}`]),
  ]);
  return new Map([...grants, ...hosts].map(([group, what]) => [`${group} ${what}`, group]));
}

function sameRulers(before: Members, after: Members): boolean {
  const was = rulers(before);
  return was.length === rulers(after).length && was.every((each) => same(each, after.byName.get(each.name)));
}

function same(one: Member, other: Member | undefined): boolean {
  return (
    other !== undefined && one.role === other.role && one.recipient === other.recipient &&
    Buffer.compare(one.sign, other.sign) === 0 && one.due === other.due && one.groups.length === other.groups.length &&
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
    due: content.has("due") ? parseLine(textOf(content, "due")) : "",
  };
}
