/** Names in a repo vault: two parts that are files on every system, and lead nowhere else. */

import { InvalidRequest } from "../errors.js";

const DEFAULT_GROUP = "default";
const PART = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/;
const DEVICES = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?$/i;
const CHAR = "[A-Za-z0-9_-]";
/** An id that stands for a name in a vault with opaque names: of a group, secret, member or host. */
export const HIDDEN = `[gsmh]_${CHAR}{4}(?:${CHAR}{363}|${CHAR}{160}|${CHAR}{64})`;
const WHOLE = new RegExp(`^${HIDDEN}$`);
const LONGEST = 166; // of an id that is part of a path
const UNPRINTED = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/;
const NEXT = "letters, digits, '.', '_' and '-', without a '.' at either end, at most 100";

/** A group, an agent, an owner, or the last part of a secret's name. Throws `InvalidRequest`. */
export function parsePart(text: string, what = "name"): string {
  if (text.length <= LONGEST && hiddenKind(text) !== "") {
    return text;
  }
  if (!PART.test(text) || text.includes("\n") || text.endsWith(".") || DEVICES.test(text)) {
    const of = what === "name" ? "" : ` of ${"aeiou".includes(what[0] ?? "") ? "an" : "a"} ${what}`;
    throw new InvalidRequest(`${quoted(text)} is no name${of} that a repo vault takes`, `use ${NEXT}`);
  }
  return text;
}

/** A reason in a signed document, which is shown as it is. Throws `InvalidRequest` for more than a printed line. */
export function parseLine(text: string): string {
  if (UNPRINTED.test(text)) {
    throw new InvalidRequest("a text has line breaks or other characters that are not printed", "write one line");
  }
  return text;
}

/** `group/name`; a name without a group is in `default`. Throws `InvalidRequest`. */
export function parseSecret(text: string): string {
  const slash = text.indexOf("/");
  const [group, name] = slash < 0 ? [DEFAULT_GROUP, text] : [text.slice(0, slash), text.slice(slash + 1)];
  return `${parsePart(group, "group")}/${parsePart(name)}`;
}

/** The first part of a secret's name. */
export function groupOf(secret: string): string {
  return secret.split("/", 1)[0] ?? "";
}

/** Whether a text is a secret's name with its group. */
export function isSecret(text: string): boolean {
  try {
    return parseSecret(text) === text;
  } catch {
    return false;
  }
}

/** What something that looks like an id is of: `g`, `s`, `m` or `h`, its first letter; empty for a name. */
export function hiddenKind(text: string): string {
  return WHOLE.test(text) && !text.includes("\n") ? (text[0] ?? "") : "";
}

/** The beginning of a text as it can stand in a message. */
export function quoted(text: string): string {
  const shown = [...text].slice(0, 40).join("").replace(/\\/g, "\\\\").replace(/[\u0000-\u001f\u007f]/g, escaped);
  return shown.includes("'") && !shown.includes('"') ? `"${shown}"` : `'${shown.replace(/'/g, "\\'")}'`;
}

function escaped(char: string): string {
  const short: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  return short[char] ?? `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`;
}
