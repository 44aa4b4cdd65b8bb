/**
 * JSON that every reader reads alike: each key once, whole numbers only, bounded (RFC 8259, RFC 7493); and the one
 * form of it that signatures are over. `JSON.parse` takes a key twice and rounds large numbers, so it is not used here.
 */

export type Json = string | number | boolean | null | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

const SPACE = /[ \t\n\r]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"/y;
const INTEGER = /-?(?:0|[1-9][0-9]*)/y;
const WORD = /true|false|null/y;
const UNSAFE = /[\u0000\p{Surrogate}]/u;
const MAX_DEPTH = 8;
const MAX_STRING = 64 * 1024;
const MAX_ITEMS = 100_000;

/** The object of a document. Throws a `SyntaxError` for anything else. */
export function parseObject(data: Uint8Array): JsonObject {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  const reader = new Reader(text);
  const value = reader.value(1);
  reader.end();
  if (!(value instanceof Map)) {
    throw new SyntaxError("it is no object");
  }
  return value;
}

/** Sorted keys, no spaces, nothing escaped but what has to be: as Python's `json` writes it. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) {
    return `[${value.map(canonical).join(",")}]`;
  }
  if (value instanceof Map) {
    const keys = [...value.keys()].sort(byCodePoint);
    return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value.get(key) ?? null)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

/** The order of UTF-8, which is that of code points; that of JavaScript's strings is not. */
export function byCodePoint(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}

class Reader {
  readonly #text: string;
  #at = 0;
  #items = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(depth: number): Json {
    this.#take(SPACE);
    const first = this.#text[this.#at];
    if (first === "{" || first === "[") {
      if (depth > MAX_DEPTH) {
        throw new SyntaxError("it is nested too deeply");
      }
      return first === "{" ? this.#object(depth) : this.#array(depth);
    }
    if (first === '"') {
      return this.#string();
    }
    const word = this.#take(WORD);
    return word === undefined ? this.#integer() : (JSON.parse(word) as boolean | null);
  }

  end(): void {
    this.#take(SPACE);
    if (this.#at !== this.#text.length) {
      throw new SyntaxError("something follows");
    }
  }

  #object(depth: number): JsonObject {
    const found: JsonObject = new Map();
    this.#members("}", () => {
      this.#take(SPACE);
      const key = this.#string();
      this.#take(SPACE);
      this.#expect(":");
      if (found.has(key)) {
        throw new SyntaxError("a key stands twice");
      }
      found.set(key, this.value(depth + 1));
    });
    return found;
  }

  #array(depth: number): Json[] {
    const found: Json[] = [];
    this.#members("]", () => found.push(this.value(depth + 1)));
    return found;
  }

  #members(close: string, read: () => void): void {
    this.#at += 1;
    this.#take(SPACE);
    if (this.#text[this.#at] === close) {
      this.#at += 1;
      return;
    }
    for (;;) {
      this.#items += 1;
      if (this.#items > MAX_ITEMS) {
        throw new SyntaxError("it has too many members");
      }
      read();
      this.#take(SPACE);
      if (this.#text[this.#at] === close) {
        this.#at += 1;
        return;
      }
      this.#expect(",");
    }
  }

  #string(): string {
    const found = this.#take(STRING);
    if (found === undefined) {
      throw new SyntaxError("a string is expected");
    }
    const text = JSON.parse(found) as string;
    if (text.length > MAX_STRING || UNSAFE.test(text)) {
      throw new SyntaxError("a string is too long, or has a NUL or half of a surrogate pair");
    }
    return text;
  }

  #integer(): number {
    const number = Number(this.#take(INTEGER) ?? Number.NaN);
    const next = this.#text[this.#at] ?? "";
    if (!Number.isSafeInteger(number) || ".eE".includes(next || " ")) {
      throw new SyntaxError("only whole numbers below 2^53 are read");
    }
    return number;
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #expect(text: string): void {
    if (this.#text[this.#at] !== text) {
      throw new SyntaxError(`${text} is expected`);
    }
    this.#at += 1;
  }
}
