/**
 * What was last seen of each vault on this machine, so that an older state is not taken for the present one.
 *
 * The file is the one that the `keyhole` program and the Python SDK keep, so that all of them know what one has seen.
 */

import { createHash, randomBytes } from "node:crypto";
import { closeSync, constants, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";

import { IntegrityError, StoreUnavailable } from "../errors.js";

const FOLDER = "repos";

/** Version and digest of a document; of a secret also what others of that version have in common with it, or empty. */
export type State = readonly [number, string, ...string[]];

/** The last state of one vault that was found genuine here. */
export class Seen {
  readonly vault: string;
  readonly members: State;
  readonly secrets: ReadonlyMap<string, State>;
  readonly #path: string;
  /** The file as it is: what another program keeps in it is kept. */
  readonly #data: Readonly<Record<string, unknown>>;

  private constructor(path: string, data: Readonly<Record<string, unknown>>) {
    this.#path = path;
    this.#data = data;
    this.vault = text(data["vault"] ?? "");
    this.members = state(data["members"] ?? [0, ""]);
    const secrets = Object.entries((data["secrets"] ?? {}) as object);
    this.secrets = new Map(secrets.map(([name, pair]) => [name, state(pair)]));
  }

  /** The file of a vault among those of this machine. */
  static path(home: string, root: Buffer, suffix: string): string {
    return join(home, FOLDER, `${createHash("sha256").update(root).digest("hex").slice(0, 32)}${suffix}`);
  }

  /** What is remembered of the vault in a folder. Throws `IntegrityError` when that cannot be read. */
  static load(home: string, root: Buffer): Seen {
    return Seen.#read(Seen.path(home, root, ".json"));
  }

  static #read(path: string): Seen {
    try {
      const data: unknown = JSON.parse(readFileSync(path, "utf8"));
      if (typeof data !== "object" || data === null || !["vault", "members", "secrets"].every((key) => key in data)) {
        throw new SyntaxError("it is no such file");
      }
      return new Seen(path, data as Record<string, unknown>);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") {
        return new Seen(path, {});
      }
      throw new IntegrityError(
        `${path} cannot be read, so an old state of the vault could not be told from the present one`,
        "if you trust what lies there now, remove that file",
      );
    }
  }

  /** Throws `IntegrityError` when another vault lies in the place of the one that was seen. */
  requireVault(vault: string): void {
    if (this.vault !== "" && this.vault !== vault) {
      throw new IntegrityError(
        "another vault lies where one was that this machine knows",
        `if that is meant, remove ${this.#path}`,
      );
    }
  }

  /**
   * Judge a secret. Of two documents that say the same of one version the one with the lower digest is later.
   *
   * Throws `IntegrityError`: see `judge`.
   */
  judgeSecret(name: string, found: State): void {
    const seen = this.secrets.get(name);
    if (seen === undefined || !isLater(found, seen)) {
      this.judge(`the secret ${name}`, seen, found[0], found[1]);
    }
  }

  /** Throws `IntegrityError` for what is older than what was seen, or another document of the same version. */
  judge(what: string, seen: State | undefined, version: number, digest: string): void {
    if (seen === undefined) {
      return;
    }
    if (version < seen[0]) {
      throw new IntegrityError(
        `${what} is at version ${version}, and this machine has seen version ${seen[0]}`,
        "an old state is being served: fetch again, or ask who can write to the remote",
      );
    }
    if (version === seen[0] && digest !== seen[1]) {
      throw new IntegrityError(
        `${what} has two different versions ${version}`,
        "two people changed it at once, or somebody rewrote history: choose one in its history",
      );
    }
  }

  /**
   * Store what was found genuine now, durably, before anything of it is used.
   *
   * What another program has stored meanwhile is looked at again, and never replaced by something older.
   */
  remember(vault: string, members: State, secrets: ReadonlyMap<string, State>): void {
    const now = Seen.#read(this.#path);
    now.requireVault(vault);
    const merged = new Map(now.secrets);
    // What goes on from the list that was loaded takes its place, whichever number it has.
    const later = now.members[1] === this.members[1] ? now.members[1] !== members[1] : now.members[0] < members[0];
    let changed = now.vault !== vault || later;
    for (const [name, each] of secrets) {
      const known = merged.get(name);
      if (known === undefined || known[0] < each[0] || isLater(each, known)) {
        merged.set(name, each);
        changed = true;
      }
    }
    if (!changed) {
      return;
    }
    const newest = later ? members : now.members;
    const data = { ...now.#data, vault, members: newest, secrets: Object.fromEntries(merged) };
    keep(this.#path, JSON.stringify(data));
  }
}

/** Whether one document takes the place of another that says the same of that version. */
function isLater([version, digest, alike]: State, than: State): boolean {
  return version === than[0] && !!alike && alike === than[2] && digest < than[1];
}

/** Keep what is known of a vault. Throws `StoreUnavailable`. */
function keep(path: string, content: string): void {
  try {
    replace(path, content);
  } catch (error) {
    throw new StoreUnavailable(
      `what this machine knows of the vault cannot be kept in ${dirname(path)}: ${(error as NodeJS.ErrnoException).code}`,
      "let KEYHOLE_HOME name a folder that can be written, in a CI job such as one below $RUNNER_TEMP",
    );
  }
}

/** Put a file in the place of another, so that it is there whole or not at all. */
function replace(path: string, content: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const fresh = `${path.slice(0, -".json".length)}.${process.pid}-${randomBytes(4).toString("hex")}`;
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | (constants.O_NOFOLLOW ?? 0);
  const descriptor = openSync(fresh, flags, 0o600);
  try {
    writeSync(descriptor, content);
    fsyncSync(descriptor);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error;
  } finally {
    closeSync(descriptor);
  }
  renameSync(fresh, path);
}

function state(value: unknown): State {
  if (!Array.isArray(value) || value.length < 2 || value.length > 3 || !Number.isSafeInteger(value[0])) {
    throw new SyntaxError("a state is a version and a digest");
  }
  return [value[0] as number, ...value.slice(1).map(text)] as unknown as State;
}

function text(value: unknown): string {
  if (typeof value !== "string") {
    throw new SyntaxError("a text is expected");
  }
  return value;
}
