/**
 * How long a leased credential may be used, and what is to be done when. Pure: times are handed in, in seconds.
 *
 * 1. A lease counts from before it was asked for, so that no delay makes it seem longer than it is.
 * 2. It is renewed at about two thirds of its time, more or less by chance, so that many clients do not come at once.
 * 3. What cannot be renewed, or not for longer, is read anew, which makes another credential.
 * 4. It is served for nine tenths of its time. While nobody can be asked, for a grace beyond, and never past its end.
 */

import { Expired, NotFound, type KeyholeError } from "../errors.js";
import type { Result } from "./core.js";

const RENEW_AT = 2 / 3;
const SPREAD = 0.1;
const SERVED = 0.9;
const MARGIN = 0.02; // part of the time before the end that is left for what is on its way
const FIRST_RETRY = 0.5;
const LAST_RETRY = 15;
const GROWN = 1; // seconds by which a renewal has to move the end to be one

export type Step = "renew" | "read";

/** A credential that was given out. */
export interface Held {
  readonly fields: ReadonlyMap<string, string>;
  /** Empty for what is not leased. */
  readonly leaseId: string;
  readonly renewable: boolean;
  /** When it, or its last renewal, was asked for. */
  readonly began: number;
  /** That it lives from then. */
  readonly seconds: number;
}

/** One credential after another, from one source. */
export class Tenure {
  readonly path: string;
  /** Grows with every new credential. */
  version = 0;
  held: Held | null = null;
  /** Why the last try failed; `null` after one that did not. */
  failure: KeyholeError | null = null;
  /** Ids of leases that may still be alive. */
  past: string[] = [];
  readonly #grace: number;
  readonly #unleased: number;
  readonly #random: () => number;
  #next = 0;
  #step: Step = "read";
  #tries = 0;
  #away: number | null = null;
  #asking: number | null = null;

  /**
   * `grace`: seconds beyond nine tenths for which it is served while nobody can be asked. `unleased`: seconds for which
   * to rely on what has no lease of its own. `random`: a number from 0 to 1.
   */
  constructor(path: string, grace: number, unleased: number, random: () => number) {
    this.path = path;
    this.#grace = grace;
    this.#unleased = unleased;
    this.#random = random;
  }

  /** When the next step is to be made, and which. */
  due(): [number, Step] {
    return [this.#next, this.#step];
  }

  /** A step begins. A server that does not answer yet is as good as away. */
  asking(now: number): void {
    this.#asking = now;
  }

  /** A new credential is there. Throws `NotFound` for an answer without any field. */
  read(result: Result, began: number): void {
    const fields = fieldsOf(result);
    if (fields.size === 0) {
      throw new NotFound(`nothing is at ${this.path}`, "look at it: keyhole leases list");
    }
    const { leaseId, renewable } = result;
    if (leaseId !== "") {
      this.past.push(leaseId);
    }
    if (this.held === null || leaseId !== "" || !same(this.held.fields, fields)) {
      this.version += 1;
    }
    this.held = { fields, leaseId, renewable, began, seconds: leaseId === "" ? this.#unleased : result.leaseDuration };
    this.#well();
  }

  /** The lease lives on; one that was not made longer is replaced when it is due again. */
  renewed(result: Result, began: number): void {
    const held = this.held;
    if (held === null) {
      return;
    }
    const longer = began + result.leaseDuration > held.began + held.seconds + GROWN;
    if (longer) {
      this.held = { ...held, renewable: result.renewable, began, seconds: result.leaseDuration };
    }
    this.#well();
    if (!longer) {
      [this.#next, this.#step] = [began, "read"];
    }
  }

  /** Nobody could be asked; it is tried again, later each time. */
  unreachable(error: KeyholeError, now: number): void {
    this.failure = error;
    this.#away ??= this.#asking ?? now;
    this.#asking = null;
    this.#tries += 1;
    const wait = Math.min(FIRST_RETRY * 2 ** Math.min(this.#tries - 1, 16), LAST_RETRY);
    this.#next = now + wait * (0.5 + this.#random());
  }

  /**
   * The vault said no: to a renewal, after which it is read anew at once, or to a reading, which is tried later. `gone`:
   * the credential is dead, and is not served any more.
   */
  refused(error: KeyholeError, now: number, gone: boolean): void {
    if (gone) {
      this.held = null;
    }
    if (this.#step === "renew") {
      [this.failure, this.#away, this.#asking] = [error, null, null];
      [this.#next, this.#step, this.#tries] = [now, "read", 0];
    } else {
      this.unreachable(error, now);
      this.#away = null;
    }
  }

  /** The credential, if it may be used now. Throws `Expired`, which says why none could be had. */
  current(now: number): Held {
    if (this.held !== null && now < this.servedUntil()) {
      return this.held;
    }
    const why = this.failure === null ? "" : `: ${this.failure.reason}`;
    throw new Expired(`the credential of ${this.path} has ended, and there is no other yet${why}`, "try again");
  }

  /** When the current one is not served any more. */
  servedUntil(): number {
    const held = this.held;
    if (held === null) {
      return 0;
    }
    const alone = this.#away ?? this.#asking;
    const usual = held.began + held.seconds * SERVED;
    const until = alone === null ? usual : Math.max(usual, alone + this.#grace);
    return held.leaseId === "" ? until : Math.min(until, held.began + held.seconds * (1 - MARGIN));
  }

  #well(): void {
    const held = this.held;
    [this.failure, this.#away, this.#asking, this.#tries] = [null, null, null, 0];
    if (held !== null) {
      this.#next = held.began + held.seconds * (RENEW_AT + (this.#random() - 0.5) * SPREAD);
      this.#step = held.leaseId !== "" && held.renewable ? "renew" : "read";
    }
  }
}

/** The fields of an answer as texts; of a secret of KV those of the secret. */
function fieldsOf(result: Result): Map<string, string> {
  let data = result.data;
  const inner: unknown = data["data"];
  const ofKv = Object.keys(data).every((name) => name === "data" || name === "metadata");
  if (typeof inner === "object" && inner !== null && ofKv) {
    data = inner;
  }
  const given = Object.entries(data).filter(([, value]) => value !== null && value !== undefined);
  return new Map(given.map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)]));
}

function same(one: ReadonlyMap<string, string>, other: ReadonlyMap<string, string>): boolean {
  return one.size === other.size && [...one].every(([name, value]) => other.get(name) === value);
}
