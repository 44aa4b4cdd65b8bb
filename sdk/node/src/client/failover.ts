/** Several servers of one vault: the next is asked where one does not answer, and a write is never sent twice. */

import { AuditUnavailable, KeyholeError, Sealed, StoreUnavailable, Unreachable } from "../errors.js";
import { trimmed, type Fields, type Operation, type Result } from "./core.js";
import { NotConnected, type Transport } from "./http.js";
import type { Road } from "./road.js";

const REPEATABLE: ReadonlySet<string> = new Set([ // changes that are the same when they are made twice
  "sys/leases/lookup", "sys/leases/renew", "sys/leases/revoke", "auth/token/renew-self", "auth/token/lookup-self",
]);

/** Asks one of several servers, and stays with the one that answered last. */
export class Failover implements Transport {
  #servers: readonly Transport[];

  constructor(servers: readonly Transport[]) {
    this.#servers = servers;
  }

  /**
   * A request that changes something goes to the next server only when the last was not reached, or says itself that
   * nothing was done, or when it makes no difference whether it is done twice.
   */
  async ask(operation: Operation, path: string, data: Fields): Promise<Result> {
    const mayRepeat = operation === "read" || operation === "list" || REPEATABLE.has(trimmed(path));
    return this.#first((server) => server.ask(operation, path, data), mayRepeat);
  }

  async road(): Promise<Road> {
    return this.#first((server) => server.road(), true);
  }

  another(): Failover {
    return new Failover(this.#servers.map((server) => server.another()));
  }

  close(): void {
    this.#servers.forEach((server) => server.close());
  }

  async #first<T>(ask: (server: Transport) => Promise<T>, mayRepeat: boolean): Promise<T> {
    let last: KeyholeError | undefined;
    for (const server of this.#servers) {
      try {
        const result = await ask(server);
        this.#servers = [server, ...this.#servers.filter((each) => each !== server)];
        return result;
      } catch (error) {
        const away = error instanceof Unreachable && (mayRepeat || error instanceof NotConnected);
        if (!away && !saysNothingWasDone(error)) {
          throw error;
        }
        last = error;
      }
    }
    if (last !== undefined && !(last instanceof Unreachable)) {
      throw last;
    }
    const why = last === undefined ? "" : `; the last says: ${last.reason}`;
    throw new Unreachable(`none of ${this.#servers.length} servers answers${why}`, last?.hint ?? "");
  }
}

function saysNothingWasDone(error: unknown): error is KeyholeError {
  return error instanceof Sealed || error instanceof StoreUnavailable || error instanceof AuditUnavailable;
}
