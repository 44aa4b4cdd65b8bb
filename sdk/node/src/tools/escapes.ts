/** Percent, JSON, JavaScript and HTML escapes undone, with the way back to the source. Texts are bytes as Latin-1. */

/** Layers of escaping that are undone. */
export const PASSES = 4;

/** Half-open, in the text that was given. */
export type Span = readonly [number, number];

/** A text and where each of its bytes came from; `null` for the source itself. */
export interface View {
  readonly text: string;
  readonly from: readonly Span[] | null;
}

const SIMPLE: Readonly<Record<string, string>> = {
  n: "\n", r: "\r", t: "\t", b: "\b", f: "\f", '"': '"', "'": "'", "/": "/", "\\": "\\",
};
const NAMED: Readonly<Record<string, string>> = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", Tab: "\t", NewLine: "\n", excl: "!", num: "#", dollar: "$", percnt: "%",
  lpar: "(", rpar: ")", ast: "*", plus: "+", comma: ",", period: ".", sol: "/", colon: ":", semi: ";", equals: "=", quest: "?",
  commat: "@", lsqb: "[", lbrack: "[", bsol: "\\", rsqb: "]", rbrack: "]", Hat: "^", lowbar: "_", UnderBar: "_", grave: "`",
  lcub: "{", lbrace: "{", verbar: "|", vert: "|", VerticalLine: "|", rcub: "}", rbrace: "}", AMP: "&", LT: "<", GT: ">", QUOT: '"',
};
const KINDS = [
  String.raw`%(?:[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})`,
  String.raw`\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,6}\}` +
    String.raw`|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|["'/nrtbf\\])`,
  String.raw`&(?:#(?:[0-9]{1,10}|[xX][0-9a-fA-F]{1,8});?|[A-Za-z][A-Za-z0-9]{1,31};)`,
];
const SEAM = String.raw`\]\]><!\[CDATA\[`;
const ALL = new RegExp([...KINDS, SEAM].join("|"), "g");
const EACH = KINDS.map((kind) => new RegExp(kind, "g"));
const LEADS = ["%", "\\", "&"];
const LINE_BREAK = new RegExp(
  String.raw`(?<=[A-Za-z0-9+/_-]{56})(?:\r?\n|\r|\\{1,4}(?:r\\{1,4})?n)[ \t]{0,8}(?=[A-Za-z0-9+/=_-]|$)`, "g",
);

/** The views of a text with one layer undone: of all kinds first, then of each kind by itself. None for nothing to undo. */
export function decoded(view: View): View[] {
  const every = replaced(view, ALL, unescaped);
  if (every === null) {
    return [];
  }
  const single = EACH.filter((_, at) => view.text.includes(LEADS[at] ?? "")).map((each) => replaced(view, each, unescaped));
  const found = single.filter((each) => each !== null);
  return found.length > 1 ? [every, ...found] : [every];
}

/** The view without the line breaks of base64 (RFC 2045 section 6.8, PEM); `null` where there are none. */
export function joined(text: string): View | null {
  return replaced({ text, from: null }, LINE_BREAK, () => "");
}

/** A value as the last view would show it, for values that themselves look escaped. */
export function unescapedFully(value: string): string {
  let text = value;
  for (let pass = 0; pass < PASSES; pass += 1) {
    const next = text.replace(ALL, unescaped);
    if (next === text) {
      break;
    }
    text = next;
  }
  return text;
}

function replaced(view: View, pattern: RegExp, plain: (token: string) => string): View | null {
  const pieces: string[] = [];
  const from: Span[] = [];
  const source = (begin: number, end: number): Span =>
    view.from === null ? [begin, end] : [view.from[begin]?.[0] ?? 0, view.from[end - 1]?.[1] ?? 0];
  let done = 0;
  for (const match of view.text.matchAll(pattern)) {
    for (let at = done; at < match.index; at += 1) {
      from.push(source(at, at + 1));
    }
    const made = plain(match[0]);
    const place = source(match.index, match.index + match[0].length);
    for (let at = 0; at < made.length; at += 1) {
      from.push(place);
    }
    pieces.push(view.text.slice(done, match.index), made);
    done = match.index + match[0].length;
  }
  if (done === 0) {
    return null;
  }
  for (let at = done; at < view.text.length; at += 1) {
    from.push(source(at, at + 1));
  }
  return { text: pieces.join("") + view.text.slice(done), from };
}

function unescaped(token: string): string {
  const kind = token[1] ?? "";
  if (token.startsWith("%")) {
    return kind === "u" ? unit(token.slice(2)) : String.fromCharCode(parseInt(token.slice(1), 16));
  }
  if (token.startsWith("\\")) {
    if (kind === "u" && token.length === 12) { // a surrogate pair
      return bytes(String.fromCharCode(parseInt(token.slice(2, 6), 16), parseInt(token.slice(8), 16)));
    }
    if (kind === "u") {
      return unit(token.slice(2).replace(/[{}]/g, ""));
    }
    return kind === "x" ? String.fromCharCode(parseInt(token.slice(2), 16))
      : SIMPLE[kind] ?? String.fromCharCode(parseInt(token.slice(1), 8));
  }
  if (!token.startsWith("&")) {
    return ""; // the seam between two CDATA sections
  }
  const name = token.slice(1).replace(/;$/, "");
  if (!name.startsWith("#")) {
    return Object.hasOwn(NAMED, name) ? NAMED[name] ?? token : token;
  }
  return /^#x/i.test(name) ? unit(name.slice(2)) : unit(Number(name.slice(1)).toString(16));
}

function unit(digits: string): string {
  const code = parseInt(digits, 16);
  return code > 0x10ffff ? "\xef\xbf\xbd" : bytes(String.fromCodePoint(code));
}

function bytes(text: string): string {
  return Buffer.from(text).toString("latin1");
}
