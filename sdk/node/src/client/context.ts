/** What the requests of a piece of work say of it: workflow, run, step, tool, and where it is in a trace. */

import { AsyncLocalStorage } from "node:async_hooks";

import type { Environment } from "../environment.js";
import { InvalidRequest } from "../errors.js";

/** A piece of work. What the token says stands above it, and the records mark it as said by the caller. */
export interface Work {
  /** Name of the workflow. */
  readonly workflow?: string;
  /** Id of this run of it. */
  readonly run?: string;
  /** Id of the step within the run. */
  readonly step?: string;
  /** The consumer that acts. */
  readonly tool?: string;
  /** The person for whom it acts; refused where the token does not say so. */
  readonly onBehalfOf?: string;
  /** W3C trace context; one that is none does not count. */
  readonly traceparent?: string;
}

const HEADER = "X-Keyhole-Context";
const CLAIMS = {
  workflow: "workflow", run: "run", step: "step", tool: "tool", onBehalfOf: "on_behalf_of", traceparent: "traceparent",
} as const;
const VARIABLES = {
  KEYHOLE_WORKFLOW: "workflow", KEYHOLE_RUN: "run", KEYHOLE_STEP: "step", KEYHOLE_TOOL: "tool", TRACEPARENT: "traceparent",
} as const;
const MOST = 200;
const TRACE = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,400})?$/;
const UNPRINTABLE = /\p{C}|(?! )\p{Z}/u;
const acting = new AsyncLocalStorage<Work>();

/** Do some work whose requests say so. Within other work it adds to what that says. Throws `InvalidRequest`. */
export function within<T>(work: Work, action: () => T): T {
  return acting.run({ ...acting.getStore(), ...checked(work) }, action);
}

/** The header that says what is done now, within any work or by the environment; none for nothing. */
export function stated(environ: Environment): Record<string, string> {
  const outer = Object.entries(VARIABLES).map(([variable, name]) => [name, environ[variable]]);
  const said = { ...checked(Object.fromEntries(outer) as Work), ...acting.getStore() };
  const parts = Object.entries(CLAIMS).flatMap(([own, name]) => {
    const text = said[own as keyof Work];
    return text === undefined ? [] : [`${name}=${encodeURIComponent(text)}`];
  });
  return parts.length === 0 ? {} : { [HEADER]: parts.join(";") };
}

/** The claims that are set. Throws `InvalidRequest` for one that no record could hold. */
function checked(work: Work): Work {
  const found: Record<string, string> = {};
  for (const [name, text] of Object.entries(work) as [string, unknown][]) {
    if (!Object.hasOwn(CLAIMS, name)) {
      throw new InvalidRequest(`'${name.slice(0, 40)}' is nothing of a run`, `there are ${Object.keys(CLAIMS).join(", ")}`);
    }
    if (text === undefined || text === "") {
      continue;
    }
    if (typeof text !== "string" || (name !== "traceparent" && ([...text].length > MOST || UNPRINTABLE.test(text)))) {
      throw new InvalidRequest(`${name} must be printable text of at most ${MOST} characters`);
    }
    if (name !== "traceparent" || TRACE.test(text)) {
      found[name] = text;
    }
  }
  return found;
}
