/** What the requests of a piece of work say of it: which tool asks. */

import { AsyncLocalStorage } from "node:async_hooks";

const HEADER = "X-Keyhole-Context";
const acting = new AsyncLocalStorage<string>();

/** Do some work whose requests to a server name a tool. The record marks it as said by the caller. */
export function asTool<T>(name: string, work: () => T): T {
  return acting.run(name, work);
}

/** The header that says so; none outside of any tool. */
export function stated(): Record<string, string> {
  const tool = acting.getStore();
  return tool === undefined ? {} : { [HEADER]: `tool=${encodeURIComponent(tool)}` };
}
