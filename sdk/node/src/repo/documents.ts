/**
 * The three YAML documents of the agent-vault format, read strictly: plain data, no key twice, no alias, no tag.
 *
 * Every scalar is read as the text that stands there, so that no name turns into a number, a date or a truth value.
 */

import { parseDocument, visit, isScalar } from "yaml";

import { IntegrityError, InvalidRequest } from "../errors.js";
import { parsePart, parseSecret } from "./names.js";
import { nextStep } from "./unmerged.js";

const MAX_DOCUMENT = 4 * 1024 * 1024; // bytes
const NULLS = new Set(["", "~", "null", "Null", "NULL"]);
const INSTANT = /^(\d{4}-\d\d-\d\d)(?:(?:[Tt]|\s+)(\d\d?:\d\d(?::\d\d(?:\.\d+)?)?)\s*(Z|z|[+-]\d\d(?::?\d\d)?)?)?$/;

/** `manifest.yaml`: which agent is in which group, and which secret belongs to it. */
export interface Manifest {
  readonly agents: ReadonlyMap<string, readonly string[]>;
  readonly groups: ReadonlyMap<string, readonly string[]>;
}

/** `NAME.meta`: what is known of a secret without opening it. */
export interface Meta {
  readonly name: string;
  readonly group: string;
  readonly created: Date;
  readonly rotated: Date;
  readonly expires: Date | null;
  readonly agents: readonly string[];
}

type Fields = ReadonlyMap<unknown, unknown>;

/** Throws `IntegrityError` for a `config.yaml` of a format that is not this one. */
export function checkConfig(data: Uint8Array): void {
  const document = load(data, "config.yaml");
  const encryption = document.get("encryption");
  if (document.get("version") !== "1" || !(encryption instanceof Map) || encryption.get("format") !== "age") {
    throw new IntegrityError("config.yaml is not of version 1 with the encryption age", "use the tool that made it");
  }
}

/** The manifest of these bytes. Throws `IntegrityError` that says what is wrong with it. */
export function readManifest(data: Uint8Array): Manifest {
  return withNames(data, "manifest.yaml", () => manifestIn(data));
}

function manifestIn(data: Uint8Array): Manifest {
  const document = load(data, "manifest.yaml");
  for (const owner of listed(document.get("owners"), "manifest.yaml")) {
    parsePart(text(owner.get("name"), "manifest.yaml"));
  }
  const named = (section: string, inner: string, parse: (each: string) => string): Map<string, readonly string[]> =>
    new Map(
      listed(document.get(section), "manifest.yaml").map((each) => [
        parsePart(text(each.get("name"), "manifest.yaml")),
        texts(each.get(inner), "manifest.yaml").map(parse),
      ]),
    );
  return {
    agents: named("agents", "groups", (each) => parsePart(each)),
    groups: named("groups", "secrets", parseSecret),
  };
}

/** What a `.meta` says. Throws `IntegrityError` that names the file. */
export function readMeta(data: Uint8Array, where: string): Meta {
  return withNames(data, where, () => metaIn(data, where));
}

function metaIn(data: Uint8Array, where: string): Meta {
  const document = load(data, where);
  const expires = document.get("expires");
  const at = (value: unknown): Date => instant(text(value, where)) ?? broken(where);
  return {
    name: parseSecret(text(document.get("name"), where)),
    group: parsePart(text(document.get("group"), where), "group"),
    created: at(document.get("created")),
    rotated: at(document.get("rotated")),
    expires: isNull(expires) ? null : at(expires),
    agents: texts(document.get("authorized_agents"), where),
  };
}

/** The moment that a text names, in UTC unless it says where; `null` for another text. */
export function instant(value: string): Date | null {
  const found = INSTANT.exec(value.trim());
  if (found === null) {
    return null;
  }
  const [, day = "", clock = "00:00", zone = "Z"] = found;
  const [hours = "", minutes = "", seconds = "00"] = clock.split(":");
  const offset = zone.length === 3 ? `${zone}:00` : zone.replace(/^([+-]\d\d)(\d\d)$/, "$1:$2").toUpperCase();
  // Date knows milliseconds, and not every engine takes more digits.
  const rounded = seconds.replace(/^(\d\d\.\d{3})\d+$/, "$1");
  const when = new Date(`${day}T${hours.padStart(2, "0")}:${minutes}:${rounded}${offset}`);
  return Number.isNaN(when.getTime()) ? null : when;
}

/** Read something; a name in it that is none makes it no document of this format. */
function withNames<T>(data: Uint8Array, where: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof InvalidRequest ? notThis(data, where) : error;
  }
}

function load(data: Uint8Array, where: string): Fields {
  if (data.length > MAX_DOCUMENT) {
    throw new IntegrityError(`${where} is longer than ${MAX_DOCUMENT} bytes`, "restore it from its history");
  }
  let found: unknown;
  try {
    const source = new TextDecoder("utf-8", { fatal: true }).decode(data);
    const document = parseDocument(source, { schema: "failsafe", uniqueKeys: true, logLevel: "silent" });
    let plain = document.errors.length === 0 && document.warnings.length === 0;
    const refuse = (): symbol => {
      plain = false;
      return visit.BREAK;
    };
    visit(document, {
      Alias: refuse,
      Node: (_, node) => (node.tag === undefined || node.tag.startsWith("tag:yaml.org,2002:") ? undefined : refuse()),
      Pair: (_, pair) => (isScalar(pair.key) && pair.key.value !== "<<" ? undefined : refuse()),
    });
    found = plain ? document.toJS({ mapAsMap: true, maxAliasCount: 0 }) : undefined;
  } catch {
    found = undefined; // not UTF-8, or nested beyond what the stack takes
  }
  if (!(found instanceof Map)) {
    throw notThis(data, where);
  }
  return found;
}

function broken(where: string): never {
  throw notThis(new Uint8Array(), where);
}

function notThis(data: Uint8Array, where: string): IntegrityError {
  return new IntegrityError(`${where} is not what a vault of this format has there`, nextStep(data));
}

function isNull(value: unknown): boolean {
  return value === undefined || value === null || (typeof value === "string" && NULLS.has(value));
}

function text(value: unknown, where: string): string {
  return typeof value === "string" && !isNull(value) ? value : broken(where);
}

function texts(value: unknown, where: string): string[] {
  if (isNull(value)) {
    return [];
  }
  return Array.isArray(value) ? value.map((each) => text(each, where)) : broken(where);
}

function listed(value: unknown, where: string): Fields[] {
  if (isNull(value)) {
    return [];
  }
  return Array.isArray(value) ? value.map((each) => (each instanceof Map ? each : broken(where))) : broken(where);
}
