/** Results and errors of tools without the values that the tool was given. */

import { KeyholeError } from "../errors.js";
import { Credentials } from "./credentials.js";
import type { Scrubber } from "./scrubber.js";

const DEEPEST = 100;
const MOST = 5_000; // objects that are looked at for one result or error

/** What a tool gave back or threw had a credential in it, and was held back; the reason says what may be said. */
export class ToolFailed extends KeyholeError {}

/**
 * A result with every text of it scrubbed; the very object where nothing was found.
 *
 * Scrubbed are texts, bytes, numbers, arrays, plain objects, maps and sets. Another object is given back as it is where
 * no value is in it. Throws `ToolFailed` where one is, and for what nobody can look through: streams, promises,
 * iterators, bodies that were not read, and what is too deep or too big.
 */
export function cleaned(scrubber: Scrubber, value: unknown, depth = 0): unknown {
  if (depth > DEEPEST) {
    throw new ToolFailed("the tool's result is nested too deeply to be looked through", "give back something flatter");
  }
  if (typeof value === "string") {
    return scrubber.text(value);
  }
  if (typeof value === "number" || typeof value === "bigint") {
    const text = String(value);
    const clean = scrubber.text(text);
    return clean === text ? value : clean;
  }
  if (typeof value === "function") {
    throw new ToolFailed("the tool's result cannot be looked through: nobody sees what a function brings with it", "give back its result");
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  const next = (each: unknown): unknown => cleaned(scrubber, each, depth + 1);
  if (value instanceof Uint8Array) {
    return scrubber.bytes(value);
  }
  if (Array.isArray(value)) {
    const made = value.map(next);
    return made.every((each, at) => Object.is(each, value[at])) ? value : made;
  }
  if (value instanceof Map && Object.getPrototypeOf(value) === Map.prototype) {
    const made = [...value].map(([key, each]) => [next(key), next(each)] as const);
    return [...value].every(([key, each], at) => made[at]?.[0] === key && Object.is(made[at]?.[1], each)) ? value : new Map(made);
  }
  if (value instanceof Set && Object.getPrototypeOf(value) === Set.prototype) {
    const made = [...value].map(next);
    return [...value].every((each, at) => Object.is(made[at], each)) ? value : new Set(made);
  }
  const kind: unknown = Object.getPrototypeOf(value);
  if (kind === Object.prototype || kind === null) {
    return fields(value as Record<PropertyKey, unknown>, scrubber, next);
  }
  return object(scrubber, value);
}

function fields(value: Record<PropertyKey, unknown>, scrubber: Scrubber, next: (each: unknown) => unknown): unknown {
  if (isPending(value)) {
    throw notThere(value);
  }
  const made: Record<PropertyKey, unknown> = {};
  let same = true;
  for (const name of Reflect.ownKeys(value)) {
    const key = typeof name === "string" ? scrubber.text(name) : name;
    const each = value[name];
    const clean = next(each);
    same &&= key === name && Object.is(clean, each);
    Object.defineProperty(made, key, { value: clean, enumerable: true, writable: true, configurable: true });
  }
  return same ? value : made;
}

function object(scrubber: Scrubber, value: object): unknown {
  const name = nameOf(value);
  const found = hasValue(scrubber, value, true);
  if (found === "pending") {
    throw notThere(value);
  }
  if (found) {
    throw new ToolFailed(`there is a credential in the ${name} that the tool gave back`, "give back texts, arrays and plain objects");
  }
  return value;
}

function notThere(value: object): ToolFailed {
  return new ToolFailed(
    `the tool's result cannot be looked through: a ${nameOf(value)} holds too much, or what is not there yet`,
    "read it, and give back texts, arrays and plain objects",
  );
}

/** The error where no value is in it, its properties, or what it came from; else one that says as much without. */
export function safeError(scrubber: Scrubber, error: unknown): unknown {
  if (typeof error !== "object" || error === null) {
    return cleaned(scrubber, error);
  }
  const found = hasValue(scrubber, error, false);
  if (found === false) {
    return error;
  }
  let said = "";
  try {
    said = scrubber.text(String((error as Error).message ?? "")).slice(0, 500);
  } catch {
    // an error that cannot say anything says nothing
  }
  const hint = found === "pending" ? "the tool's error holds too much to be looked through" : "the tool put a credential into its error";
  return new ToolFailed(`${nameOf(error)}: ${said}`, hint);
}

/** Whether a value is in an object, its properties, its items, or what an error came from; "pending" for cannot tell. */
function hasValue(scrubber: Scrubber, thing: unknown, strict: boolean): boolean | "pending" {
  const seen = new Set<object>();
  const waiting: unknown[] = [thing];
  while (waiting.length > 0) {
    const each = waiting.pop();
    if (typeof each === "string" || typeof each === "number" || typeof each === "bigint") {
      if (scrubber.text(String(each)) !== String(each)) {
        return true;
      }
      continue;
    }
    if (typeof each !== "object" || each === null || each instanceof Credentials || seen.has(each)) {
      continue;
    }
    seen.add(each);
    if (seen.size > MOST || (strict && isPending(each))) {
      return "pending";
    }
    const bytes = bytesOf(each);
    if (bytes !== null) {
      if (scrubber.bytes(bytes) !== bytes) {
        return true;
      }
      continue;
    }
    waiting.push(...shown(each), ...held(each));
  }
  return false;
}

/** The bytes of a buffer or of any view of one; `null` for another object. */
function bytesOf(each: object): Uint8Array | null {
  if (ArrayBuffer.isView(each)) {
    return new Uint8Array(each.buffer, each.byteOffset, each.byteLength);
  }
  return each instanceof ArrayBuffer || each instanceof SharedArrayBuffer ? new Uint8Array(each) : null;
}

/** What an object shows of itself. */
function* shown(each: object): Generator<unknown> {
  for (const method of ["toJSON", "toString"] as const) {
    const own = Reflect.get(each, method) as unknown;
    if (typeof own === "function" && own !== Object.prototype.toString && !Array.isArray(each)) {
      try {
        yield own.call(each);
      } catch {
        // an object that cannot show itself shows nothing
      }
    }
  }
}

function* held(each: object): Generator<unknown> {
  if (each instanceof Map || each instanceof Set || each instanceof Headers || each instanceof URLSearchParams) {
    for (const item of each) {
      yield item;
    }
  }
  for (const name of Reflect.ownKeys(each)) {
    yield typeof name === "string" ? name : undefined;
    try {
      yield Reflect.get(each, name);
    } catch {
      // what cannot be read by us cannot be read by others
    }
  }
  if (typeof Request === "function" && (each instanceof Request || each instanceof Response)) {
    yield each.url;
    yield each.headers;
  }
}

function isPending(value: object): boolean {
  if (value instanceof Map || value instanceof Set || Array.isArray(value) || value instanceof URLSearchParams) {
    return false;
  }
  const has = (name: PropertyKey): boolean => typeof Reflect.get(value, name) === "function";
  return has("then") || has("next") || has(Symbol.asyncIterator) || has("getReader") || has("arrayBuffer");
}

function nameOf(value: object): string {
  const name: unknown = (value as { name?: unknown }).name ?? value.constructor?.name;
  return value instanceof Error && typeof name === "string" ? name : String(value.constructor?.name ?? "object");
}
