/** Removes known values from texts, in the forms in which software commonly shows them. A net, and no guarantee. */

import { decoded, joined, PASSES, unescapedFully, type Span, type View } from "./escapes.js";

const SHORTEST = 8; // bytes; a shorter value would be found by chance
const PREFIX = 12; // bytes that a beginning must show before it is masked
const EXOTIC = 512; // bytes; nobody prints longer values as lists of bytes

// An escape that is not at its end yet.
const CUT_OFF = /(?:%u?[0-9a-fA-F]{0,3}|\\{1,4}(?:u\{?[0-9a-fA-F]{0,6}|x[0-9a-fA-F]?|[0-7]{0,2})|&#?[xX]?[0-9A-Za-z]{0,10}|\]\]?|\]\]>(?:<(?:!(?:\[C?D?A?T?A?)?)?)?)$/;
const LONGEST_ESCAPE = 16;

/** What to find, as bytes in Latin-1; `need` of its beginning must be there. */
interface Form {
  readonly data: string;
  readonly need: number;
  readonly wraps: boolean;
}

/** Of the values of one call. */
export class Scrubber {
  readonly #forms: readonly Form[];

  constructor(values: Iterable<Buffer>) {
    const unique = new Map<string, Form>();
    for (const value of values) {
      for (const form of derive(value.toString("latin1").replace(/^[ \t\n\r\v\f]+|[ \t\n\r\v\f]+$/g, ""))) {
        const known = unique.get(form.data);
        if (known === undefined || form.need < known.need) {
          unique.set(form.data, form);
        }
      }
    }
    this.#forms = [...unique.values()];
  }

  /** A text with every occurrence as `*`; the very text where there is none. */
  text(text: string): string {
    if (this.#forms.length === 0) {
      return text;
    }
    const raw = Buffer.from(text).toString("latin1");
    const clean = this.#masked(raw);
    return clean === raw ? text : Buffer.from(clean, "latin1").toString();
  }

  /** The same for bytes. */
  bytes(bytes: Uint8Array): Uint8Array {
    const raw = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
    const clean = this.#masked(raw);
    return clean === raw ? bytes : Buffer.from(clean, "latin1");
  }

  /**
   * What of a text can be passed on, scrubbed, and how much that is; in the rest a value may go on. Bytes as Latin-1, of
   * which the first `past` were passed on before: lines of base64 are known by what stands before their end.
   */
  settled(raw: string, past: number): [string, number] {
    if (this.#forms.length === 0) {
      return [raw.slice(past), raw.length];
    }
    const whole = raw.slice(0, raw.length - (CUT_OFF.exec(raw.slice(-LONGEST_ESCAPE))?.[0].length ?? 0));
    let cut = whole.length;
    const lines = joined(whole);
    for (const view of [{ text: whole, from: null }, ...(lines === null ? [] : [lines])]) {
      cut = Math.min(cut, this.#begins(view, PASSES));
    }
    const clean = this.#masked(raw);
    cut = Math.max(cut, past);
    while (cut > past && clean[cut] !== raw[cut] && clean[cut - 1] !== raw[cut - 1]) {
      cut -= 1; // one that was found lies across
    }
    return [clean.slice(past, cut), cut];
  }

  /** Where in the source a value may begin that is not at its end yet; its length where none may. */
  #begins(view: View, passes: number): number {
    const { text, from } = view;
    let longest = 0;
    for (const { data } of this.#forms) {
      for (let size = Math.min(data.length - 1, text.length); size > longest; size -= 1) {
        if (text.endsWith(data.slice(0, size))) {
          longest = size;
        }
      }
    }
    const at = text.length - longest;
    const inner = passes > 0 ? decoded(view).map((each) => this.#begins(each, passes - 1)) : [];
    return Math.min(from === null || longest === 0 ? (from === null ? at : Infinity) : (from[at]?.[0] ?? 0), ...inner);
  }

  #masked(text: string): string {
    const spans: Span[] = [];
    const source: View = { text, from: null };
    this.#find(source, spans);
    this.#layers(source, spans, PASSES);
    const lines = joined(text);
    if (lines !== null) {
      this.#find(lines, spans);
      this.#layers(lines, spans, PASSES);
    }
    if (spans.length === 0) {
      return text;
    }
    const bytes = Buffer.from(text, "latin1");
    for (const [begin, end] of spans) {
      bytes.fill("*", begin, end);
    }
    return bytes.toString("latin1");
  }

  #layers(view: View, spans: Span[], passes: number): void {
    const views = decoded(view);
    views.forEach((each) => this.#find(each, spans));
    if (views[0] !== undefined && passes > 1) {
      this.#layers(views[0], spans, passes - 1);
    }
  }

  #find({ text, from }: View, spans: Span[]): void {
    const found: [number, number][] = [];
    for (const { data, need } of this.#forms) {
      const needed = data.slice(0, need);
      for (let at = text.indexOf(needed); at >= 0; at = text.indexOf(needed, at + 1)) {
        let end = at + need;
        while (end - at < data.length && text[end] === data[end - at]) {
          end += 1;
        }
        while (end - at > need && end - at < data.length && (data.charCodeAt(end - at) & 0xc0) === 0x80) {
          end -= 1; // a cut within a UTF-8 sequence would leave an invalid text behind
        }
        found.push([at, end]);
      }
    }
    for (const [begin, end] of merged(found)) {
      spans.push(from === null ? [begin, end] : [from[begin]?.[0] ?? 0, from[end - 1]?.[1] ?? 0]);
    }
  }
}

/** Those that touch as one, so that what a view left out between them is masked too. */
function merged(spans: [number, number][]): [number, number][] {
  const made: [number, number][] = [];
  for (const [begin, end] of spans.sort((a, b) => a[0] - b[0])) {
    const last = made.at(-1);
    if (last !== undefined && begin <= last[1]) {
      last[1] = Math.max(last[1], end);
    } else {
      made.push([begin, end]);
    }
  }
  return made;
}

function derive(value: string): Form[] {
  if (value.length < SHORTEST) {
    return [];
  }
  const need = Math.min(value.length, Math.max(PREFIX, Math.floor((value.length * 3) / 4)));
  const forms = new Map<string, Form>();
  for (const [data, wraps] of encodings(value)) {
    if (data.length >= SHORTEST && !forms.has(data)) {
      forms.set(data, { data, need: Math.floor((data.length * need) / value.length) - (wraps ? 1 : 0), wraps });
    }
  }
  return [...forms.values()];
}

function* encodings(value: string): Generator<[string, boolean]> {
  yield* plain(value);
  yield* spelled(value);
  const bytes = Buffer.from(value, "latin1");
  const hex = bytes.toString("hex");
  yield [hex, false];
  yield [hex.toUpperCase(), false];
  yield* wide(bytes);
  if (value.length <= EXOTIC) {
    yield [value.replace(/[a-z]+/g, (part) => part.toUpperCase()), false];
    yield [value.replace(/[A-Z]+/g, (part) => part.toLowerCase()), false];
    yield* lists(bytes);
    for (const inner of base64(value)) {
      for (const outer of base64(inner)) {
        yield [outer, true];
      }
    }
  }
}

function* plain(value: string): Generator<[string, boolean]> {
  yield [value, false];
  yield [unescapedFully(value), false];
  yield [value.replaceAll(" ", "+"), false];
  const unix = value.replaceAll("\r\n", "\n");
  yield [unix, false];
  yield [unix.replaceAll("\n", "\r\n"), false];
}

/** Base64 with the spellings of its two special characters that are met often. */
function* spelled(value: string): Generator<[string, boolean]> {
  for (const data of base64(value)) {
    yield [data, true];
    yield [data.replaceAll("+", "-").replaceAll("/", "_"), true];
    yield [data.replaceAll("/", "\\/"), true];
    yield [data.replaceAll("/", "%2F").replaceAll("+", "%2B"), false];
    yield [data.replaceAll("/", "%2f").replaceAll("+", "%2b"), false];
  }
}

/** The characters of base64 that depend on the value alone, for each of its three places in a group of 3 bytes. */
function* base64(value: string): Generator<string> {
  for (const [shift, first] of [[0, 0], [1, 2], [2, 3]] as const) {
    const encoded = Buffer.from("\0".repeat(shift) + value, "latin1").toString("base64");
    yield encoded.slice(first, Math.floor(((shift + value.length) * 8) / 6));
  }
}

function* wide(bytes: Buffer): Generator<[string, boolean]> {
  const little = Buffer.from(bytes.toString("utf8"), "utf16le");
  const codes = [...bytes.toString("utf8")].map((char) => char.codePointAt(0) ?? 0);
  const wider = Buffer.alloc(codes.length * 4);
  codes.forEach((code, at) => wider.writeUInt32LE(code, at * 4));
  yield [little.toString("latin1"), false];
  yield [Buffer.from(little).swap16().toString("latin1"), false];
  yield [wider.toString("latin1"), false];
  yield [Buffer.from(wider).swap32().toString("latin1"), false];
}

function* lists(bytes: Buffer): Generator<[string, boolean]> {
  const pairs = [...bytes].map((byte) => byte.toString(16).padStart(2, "0"));
  for (const separator of [":", " ", "-"]) {
    const lower = pairs.join(separator);
    yield [lower, false];
    yield [lower.toUpperCase(), false];
  }
  for (const joint of [", ", ","]) {
    yield [pairs.map((pair) => `0x${pair}`).join(joint), false];
    yield [[...bytes].join(joint), false];
  }
}
