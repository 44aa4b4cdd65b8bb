/** `Client.lease`: a credential that is kept alive while it is used, and taken back when it is not. */

import { uptime } from "node:os";
import { setTimeout as wait } from "node:timers/promises";
import { inspect } from "node:util";

import {
  AuditUnavailable, Expired, InvalidRequest, KeyholeError, NotFound, RateLimited, Sealed, StoreUnavailable,
  Unauthenticated, Unreachable, UpstreamTimeout, UpstreamUnreachable,
} from "../errors.js";
import { trimmed } from "./core.js";
import type { Transport } from "./http.js";
import { Tenure } from "./tenure.js";

const GRACE = 60; // seconds
const UNLEASED = 300;
const TRIES = 3;
const LEAVING = 10; // seconds for taking back when nobody wants it any more
const LONGEST = 2 ** 31 - 1; // milliseconds of a timer
const RENEW = "sys/leases/renew";
const LOOKUP = "sys/leases/lookup";
const REVOKE = "sys/leases/revoke";
const AWAY = [
  Unreachable, Sealed, StoreUnavailable, AuditUnavailable, RateLimited, UpstreamUnreachable, UpstreamTimeout,
] as const;

/** How a credential is leased. */
export interface LeaseOptions {
  /** Seconds beyond nine tenths of its time for which it is served while no server can be asked, never past its end. */
  readonly grace?: number;
  /** Called when another credential took its place. */
  readonly onChange?: (lease: Lease) => void;
  /** Whether it is taken back at the end; it is unless said. */
  readonly revoke?: boolean;
}

/**
 * A credential as of now: renewed while it is used, read anew when it cannot be, taken back at the end.
 *
 * What is read of it throws `Expired` once there is none that is good. Fields of one credential belong together: take
 * `fields()` where two of them are needed.
 */
export class Lease implements AsyncDisposable {
  readonly #transport: Transport;
  readonly #tenure: Tenure;
  readonly #options: LeaseOptions;
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> = Promise.resolve();
  #ended: Promise<void> | null = null;

  private constructor(transport: Transport, path: string, options: LeaseOptions) {
    this.#transport = transport;
    this.#tenure = new Tenure(path, options.grace ?? GRACE, UNLEASED, Math.random);
    this.#options = options;
  }

  /** Get a credential, and keep it alive from now on. The transport is closed at the end. */
  static async start(transport: Transport, source: string, options: LeaseOptions): Promise<Lease> {
    try {
      const grace = options.grace ?? GRACE;
      if (!(grace >= 0 && grace <= 86_400)) {
        throw new InvalidRequest("the grace of a lease is from 0 to 86,400 seconds", "leave it out for a minute");
      }
      const path = trimmed(source);
      if (path === "") {
        throw new InvalidRequest("a lease names its source", "such as /database/creds/readonly");
      }
      const lease = new Lease(transport, path, options);
      await lease.#first();
      HELD.add(lease);
      mindSignals();
      lease.#plan();
      return lease;
    } catch (error) {
      transport.close();
      throw error;
    }
  }

  /** All fields, of one and the same credential. Throws `Expired`. */
  fields(): Record<string, string> {
    return Object.fromEntries(this.#tenure.current(uptime()).fields);
  }

  /** One field; `undefined` when the credential has none of that name. Throws `Expired`. */
  get(name: string): string | undefined {
    return this.#tenure.current(uptime()).fields.get(name);
  }

  /** Grows when there is another credential. */
  get version(): number {
    return this.#tenure.version;
  }

  /** Of the current credential; empty for one without a lease. Throws `Expired`. */
  get leaseId(): string {
    return this.#tenure.current(uptime()).leaseId;
  }

  /** Seconds for which the current credential is served, unless it is renewed; 0 when there is none. */
  get remaining(): number {
    return Math.max(this.#tenure.servedUntil() - uptime(), 0);
  }

  /** Why the last renewal or reading failed; `null` after one that did not. */
  get failure(): KeyholeError | null {
    return this.#tenure.failure;
  }

  /** Let it go: nothing is renewed any more, and what was leased is taken back. Never throws, never hangs. */
  async end(): Promise<void> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }

  toJSON(): object {
    return { source: this.#tenure.path };
  }

  [inspect.custom](): string {
    return `Lease(${JSON.stringify(this.#tenure.path)})`;
  }

  async #first(): Promise<void> {
    for (let tries = TRIES; ; tries -= 1) {
      try {
        return await this.#read();
      } catch (error) {
        if (tries === 1 || !isAway(error)) {
          throw error;
        }
        await wait(Math.min(error.retryAfter || 0.3, 5) * 1000);
      }
    }
  }

  #plan(): void {
    const [due] = this.#tenure.due();
    const delay = Math.min(Math.max((due - uptime()) * 1000, 50), LONGEST);
    this.#timer = setTimeout(() => (this.#working = this.#step()), delay);
    this.#timer.unref(); // a program ends when its own work does
  }

  async #step(): Promise<void> {
    const [due, step] = this.#tenure.due();
    if (due > uptime()) {
      return this.#plan(); // a timer has its longest time
    }
    const before = this.#tenure.version;
    await (step === "renew" ? this.#renew() : this.#readAgain());
    if (this.#ended !== null) {
      return;
    }
    this.#plan();
    if (this.#tenure.version !== before) {
      try {
        this.#options.onChange?.(this);
      } catch (error) {
        // A fault of the caller's must not end the renewals; his text might quote the credential.
        warn(`what was to be done with a new credential has failed (${error instanceof Error ? error.name : "thrown"})`);
      }
    }
  }

  async #renew(): Promise<void> {
    const began = uptime();
    const held = this.#tenure.held;
    this.#tenure.asking(began);
    if (held === null) {
      return;
    }
    try {
      // The first time of the lease, as the server knows it: what it was capped to must not shrink it further.
      this.#tenure.renewed(await this.#transport.ask("update", RENEW, { lease_id: held.leaseId }), began);
    } catch (error) {
      if (isAway(error)) {
        this.#tenure.unreachable(error, uptime());
      } else {
        const gone = error instanceof Unauthenticated || (await this.#isGone(held.leaseId));
        this.#tenure.refused(asKeyhole(error), uptime(), gone);
      }
    }
  }

  /** Whether the vault knows nothing of a lease any more; not where it does not tell. */
  async #isGone(leaseId: string): Promise<boolean> {
    try {
      await this.#transport.ask("update", LOOKUP, { lease_id: leaseId });
      return false;
    } catch (error) {
      return error instanceof InvalidRequest || error instanceof NotFound || error instanceof Unauthenticated;
    }
  }

  async #read(): Promise<void> {
    const began = uptime();
    this.#tenure.asking(began);
    this.#tenure.read(await this.#transport.ask("read", this.#tenure.path, {}), began);
  }

  async #readAgain(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      if (isAway(error)) {
        this.#tenure.unreachable(error, uptime());
      } else {
        const gone = error instanceof Unauthenticated || error instanceof Expired;
        this.#tenure.refused(asKeyhole(error), uptime(), gone);
      }
    }
  }

  async #end(): Promise<void> {
    clearTimeout(this.#timer);
    HELD.delete(this);
    mindSignals();
    const giving = this.#working.then(() => this.#giveBack());
    const given = await Promise.race([giving.then(() => true), wait(LEAVING * 1000, false, { ref: false })]);
    if (!given) {
      warn(`leases of ${this.#tenure.path} are left to end by themselves: no server answers`);
    }
    this.#tenure.held = null;
    this.#transport.close();
  }

  /** Take back what was leased. What cannot be taken back ends by itself, and is only said. */
  async #giveBack(): Promise<void> {
    const leases = this.#tenure.past.splice(0);
    for (const leaseId of this.#options.revoke === false ? [] : leases) {
      try {
        await this.#transport.ask("update", REVOKE, { lease_id: leaseId });
      } catch (error) {
        if (!(error instanceof InvalidRequest)) { // it has ended
          warn(`a lease of ${this.#tenure.path} is left to end by itself: ${asKeyhole(error).message}`);
        }
      }
    }
  }
}

const HELD = new Set<Lease>();
const SIGNALS = ["SIGTERM", "SIGINT"] as const;
const minded = new Set<NodeJS.Signals>();

/** Take leases back also when the process is asked to end, unless somebody else minds that signal. */
function mindSignals(): void {
  for (const signal of SIGNALS) {
    if (HELD.size > 0 && !minded.has(signal) && process.listenerCount(signal) === 0) {
      minded.add(signal);
      process.on(signal, leave);
    } else if (HELD.size === 0 && minded.delete(signal)) {
      process.off(signal, leave);
    }
  }
}

function leave(signal: NodeJS.Signals): void {
  void Promise.allSettled([...HELD].map((lease) => lease.end())).then(() => process.kill(process.pid, signal));
}

function isAway(error: unknown): error is KeyholeError {
  return AWAY.some((kind) => error instanceof kind);
}

function asKeyhole(error: unknown): KeyholeError {
  if (error instanceof KeyholeError) {
    return error;
  }
  throw error;
}

function warn(text: string): void {
  process.emitWarning(text, { type: "KeyholeWarning" });
}
