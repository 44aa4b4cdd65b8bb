/** What a tool is given for one call: its secrets by the names that it has for them, until the call ends. */

import { inspect } from "node:util";

import { InvalidRequest } from "../errors.js";

/**
 * The secrets of one call: `credentials.token` is the value of the secret that the tool calls `token`; of a secret with
 * several fields, or something leased, an object of the same kind. When the call has ended, reading one throws.
 */
export class Credentials {
  [name: string]: any;
  static readonly #values = new WeakMap<Credentials, Map<string, unknown>>();

  constructor(values: Readonly<Record<string, unknown>>) {
    const own = new Map(Object.entries(values).map(([name, value]) => [name, isFields(value) ? new Credentials(value) : value]));
    Credentials.#values.set(this, own);
    for (const name of own.keys()) {
      Object.defineProperty(this, name, { enumerable: false, get: () => Credentials.#get(this, name) });
    }
    Object.freeze(this);
  }

  /** Forget everything. */
  static drop(credentials: Credentials): void {
    for (const value of Credentials.#values.get(credentials)?.values() ?? []) {
      if (value instanceof Credentials) {
        Credentials.drop(value);
      }
    }
    Credentials.#values.delete(credentials);
  }

  static #get(credentials: Credentials, name: string): unknown {
    const values = Credentials.#values.get(credentials);
    if (values === undefined) {
      throw new InvalidRequest("the call that these credentials were for has ended", "fetch nothing beyond the call");
    }
    return values.get(name);
  }

  [inspect.custom](): string {
    return `Credentials(${Object.getOwnPropertyNames(this).join(", ")})`;
  }
}

/** All texts in values, and their numbers as they are written. */
export function* texts(value: unknown): Generator<Buffer> {
  if (typeof value === "string" || typeof value === "number" || typeof value === "bigint") {
    yield Buffer.from(String(value));
  } else if (typeof value === "object" && value !== null) {
    for (const each of Object.values(value)) {
      yield* texts(each);
    }
  }
}

function isFields(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
