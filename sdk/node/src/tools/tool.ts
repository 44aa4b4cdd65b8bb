/** `Client.tool`: a function that is given its credentials for each call and shows none of them. */

import { within } from "../client/context.js";
import { trimmed, type Result } from "../client/core.js";
import type { Lease } from "../client/lease.js";
import { InvalidRequest, NotFound } from "../errors.js";
import { cleaned, safeError } from "./cleaned.js";
import { Credentials, texts } from "./credentials.js";
import { Pieces } from "./pieces.js";
import { Scrubber } from "./scrubber.js";

/** What a tool needs: a name of its own to a secret, or, with a slash before it, to what is leased for the call. */
export type Needs = Readonly<Record<string, string>>;

/** What a tool's function is given besides its input: what the framework gives, and the credentials. */
export type Given<Options> = Options & { readonly credentials: Credentials };

/** A vault, as a tool asks it. */
export interface Source {
  read(path: string): Promise<Result>;
  lease(source: string): Promise<Lease>;
}

/** A function that awaits, or one that gives one thing after the other. */
type Work<Input, Options, Output> = (input: Input, given: Given<Options>) => Output;
type Shown<Output> = Output extends AsyncGenerator<infer Item> ? AsyncGenerator<Item> : Promise<Awaited<Output>>;

/** See `Client.tool`. */
export function wrap<Input, Options, Output>(
  source: Source, name: string, needs: Needs, work: Work<Input, Options, Output>,
): (input: Input, options?: Options) => Shown<Output> {
  check(name, needs);
  const fetched = (): Promise<Loan> => within({ tool: name }, () => Loan.fetch(source, needs));
  const asked = (loan: Loan, input: Input, options?: Options): Output =>
    within({ tool: name }, () => work(input, { ...(options as Options), credentials: loan.credentials }));
  if (isGenerator(work)) {
    const flow = async function* (input: Input, options?: Options): AsyncGenerator<unknown> {
      const loan = await fetched();
      try {
        const items = (asked(loan, input, options) as AsyncIterable<unknown>)[Symbol.asyncIterator]();
        try {
          yield* loan.through(() => within({ tool: name }, () => items.next()));
        } finally {
          await within({ tool: name }, () => items.return?.());
        }
      } catch (error) {
        throw loan.safe(error);
      } finally {
        await loan.end();
      }
    };
    return flow as unknown as (input: Input, options?: Options) => Shown<Output>;
  }
  const call = async (input: Input, options?: Options): Promise<unknown> => {
    const loan = await fetched();
    try {
      return loan.clean(await asked(loan, input, options));
    } catch (error) {
      throw loan.safe(error);
    } finally {
      await loan.end();
    }
  };
  return call as (input: Input, options?: Options) => Shown<Output>;
}

function isGenerator(work: (...args: never[]) => unknown): boolean {
  return Object.prototype.toString.call(work) === "[object AsyncGeneratorFunction]";
}

function check(name: string, needs: Needs): void {
  if (!/^[A-Za-z0-9._-]{1,200}$/.test(name)) {
    throw new InvalidRequest("the name of a tool is made of letters, digits, dots, hyphens and underscores", "such as slack.send");
  }
  for (const reference of Object.values(needs ?? { none: undefined })) {
    if (typeof reference !== "string" || !/^\/?[^/#]+(?:\/[^/#]+)*(?:#[^#]+)?$/.test(reference)) {
      throw new InvalidRequest("a tool needs a secret by its name", "such as slack/bot-token, or db/prod#password");
    }
  }
}

/** The credentials of one call. */
class Loan {
  readonly credentials: Credentials;
  readonly #scrubber: Scrubber;
  readonly #leases: readonly Lease[];

  private constructor(values: Record<string, unknown>, leases: readonly Lease[]) {
    this.credentials = new Credentials(values);
    this.#scrubber = new Scrubber(texts(values));
    this.#leases = leases;
  }

  static async fetch(source: Source, needs: Needs): Promise<Loan> {
    const values: Record<string, unknown> = {};
    const leases: Lease[] = [];
    try {
      for (const [own, reference] of Object.entries(needs)) {
        if (reference.startsWith("/")) {
          const lease = await source.lease(reference);
          leases.push(lease);
          values[own] = lease.fields();
        } else {
          values[own] = await secret(source, reference);
        }
      }
      return new Loan(values, leases);
    } catch (error) {
      await Promise.all(leases.map((lease) => lease.end()));
      throw error;
    }
  }

  clean(result: unknown): unknown {
    return cleaned(this.#scrubber, result);
  }

  /** What comes piece by piece; a value is found also where it goes over from one text to the next. */
  async *through(next: () => Promise<IteratorResult<unknown>>): AsyncGenerator<unknown> {
    const pieces = new Pieces(this.#scrubber);
    for (let item = await next(); item.done !== true; item = await next()) {
      yield* pieces.feed(item.value);
    }
    yield* pieces.finish();
  }

  safe(error: unknown): unknown {
    return safeError(this.#scrubber, error);
  }

  /** Drop the values, and take back what was leased. */
  async end(): Promise<void> {
    Credentials.drop(this.credentials);
    await Promise.all(this.#leases.map((lease) => lease.end()));
  }
}

/** The field that is named, the one that the secret has as `value`, or all of its fields. */
async function secret(source: Source, reference: string): Promise<unknown> {
  const [path = "", field = "value"] = trimmed(reference).split("#");
  const { data, found } = await source.read(`secret/data/${path}`);
  const fields: unknown = found ? data["data"] : null;
  if (typeof fields === "object" && fields !== null) {
    if (Object.hasOwn(fields, field)) {
      return (fields as Record<string, unknown>)[field];
    }
    if (!reference.includes("#") && Object.keys(fields).length > 0) {
      return fields;
    }
  }
  throw new NotFound(`the secret ${path} has no field '${field}'`, `keyhole show ${path}`);
}
