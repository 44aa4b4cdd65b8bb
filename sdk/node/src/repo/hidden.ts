/**
 * Names that only members can read: in a vault with opaque names, an id stands wherever a name would.
 *
 * An id is the name under a key that all members have (AES-SIV, RFC 5297), filled up to one of a few lengths, and bound
 * to the vault, its kind, and for a secret its group. The keys lie sealed for all members in `.x/names.age`.
 */

import { createHash } from "node:crypto";

import { aessiv } from "@noble/ciphers/aes.js";

import { IntegrityError } from "../errors.js";
import type { Identity } from "./age.js";
import { HIDDEN, hiddenKind } from "./names.js";

export const NAMES = ".x/names.age";
const MOST_KEYS = 10_000;
const KEY = /^[0-9a-fA-F]{128}$/;
const TAG = 16; // bytes
const ID = new RegExp(`(?<![A-Za-z0-9_-])(?:(${HIDDEN})/)?(${HIDDEN})(?![A-Za-z0-9_-])`, "g");

interface Key {
  /** Four characters, which every id under it has after its kind. */
  readonly mark: string;
  readonly raw: Uint8Array;
}

/** The names of one vault, of which the ids have been learnt. */
export class Book {
  readonly #vault: string;
  readonly #keys: readonly Key[];
  readonly #stems = new Map<string, string>();

  private constructor(vault: string, keys: readonly Key[]) {
    this.#vault = vault;
    this.#keys = keys;
  }

  /** From `.x/names.age`. Throws `NotFound` when it is not for this key, `IntegrityError` when it has something else. */
  static async open(vault: string, sealed: Buffer, identity: Identity): Promise<Book> {
    const data = Buffer.from(await identity.decrypt(sealed));
    try {
      const { keys } = JSON.parse(data.toString()) as { keys?: unknown };
      if (Array.isArray(keys) && keys.length > 0 && keys.length <= MOST_KEYS && keys.every(isKey)) {
        return new Book(vault, keys.map(keyOf));
      }
    } catch {
      // told below
    }
    throw new IntegrityError(`${NAMES} has no keys of names`, "restore it from its history");
  }

  /** Take these stems for what their names already have. Those that cannot be read are passed over. */
  learn(stems: readonly string[]): void {
    const age = new Map(this.#keys.map((key, number) => [key.mark, number]));
    const rank = (stem: string): number => age.get((stem.split("/")[1] ?? "").slice(2, 6)) ?? 0;
    for (const stem of [...stems].sort((one, other) => rank(one) - rank(other))) {
      const name = this.#nameOf(stem);
      if (name !== null && !this.#stems.has(name)) {
        this.#stems.set(name, stem);
      }
    }
  }

  /** The stem of `group/name`; `null` for a name that has none here. */
  stem(name: string): string | null {
    return this.#stems.get(name) ?? null;
  }

  /** A text in which every id that can be read is the name it stands for. */
  shown(text: string): string {
    return text.replace(ID, (_, group: string | undefined, part: string) => {
      const said = this.#read(part, group ?? "") ?? part;
      return group === undefined ? said : `${this.#read(group, "") ?? group}/${said}`;
    });
  }

  #nameOf(stem: string): string | null {
    const [group = "", part = ""] = stem.split("/");
    const names = [this.#read(group, ""), this.#read(part, group)];
    return names.every((each) => each !== null) ? names.join("/") : null;
  }

  /** The name that an id stands for; `null` for what is no id under these keys. */
  #read(id: string, group: string): string | null {
    const kind = hiddenKind(id);
    const parent = `keyhole-repo-name-v1/${this.#vault}/${kind}/${kind === "s" ? group : ""}`;
    const sealed = Buffer.from(id.slice(6), "base64url");
    // Only one spelling may stand for a name.
    if (kind === "" || sealed.length <= TAG || sealed.toString("base64url") !== id.slice(6)) {
      return null;
    }
    for (const key of this.#keys.filter((each) => each.mark === id.slice(2, 6))) {
      try {
        const clear = aessiv(key.raw, Buffer.from(parent)).decrypt(sealed);
        return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(clear).replace(/\0+$/, "");
      } catch {
        continue; // another key with this mark, or no id of this vault
      }
    }
    return null;
  }
}

function isKey(text: unknown): boolean {
  return typeof text === "string" && KEY.test(text);
}

function keyOf(text: string): Key {
  const raw = Buffer.from(text, "hex");
  const mark = createHash("sha256").update("keyhole-repo-names-id-v1").update(raw).digest().subarray(0, 3);
  return { mark: mark.toString("base64url"), raw };
}
