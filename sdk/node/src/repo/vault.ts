import { realpathSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { inspect } from "node:util";

import { expanded, home, type Environment } from "../environment.js";
import { Conflict, IntegrityError, InvalidRequest, NotFound, PolicyDenied } from "../errors.js";
import { Identity } from "./age.js";
import { findKey } from "./keys.js";
import { Opened } from "./opened.js";
import { record } from "./reads.js";
import { recording } from "./refusals.js";
import { Seen } from "./seen.js";
import { Tree, VAULT } from "./tree.js";

/** What is known of a secret without opening it. */
export interface RepoSecret {
  /** `group/name`. */
  readonly name: string;
  /** To which it belongs. */
  readonly group: string;
  /** When it was first stored. */
  readonly created: Date;
  /** When its value was last changed. */
  readonly rotated: Date;
  /** When it is not to be used any more; `null` for never. */
  readonly expires: Date | null;
  /** Who can open it besides the owners. */
  readonly agents: readonly string[];
  /** Why its value has to be changed at its source; empty while it need not be. */
  readonly due: string;
}

/** How to open a repo vault. */
export interface RepoVaultOptions {
  /** With the key that opens it; else `KEYHOLE_REPO_KEY`, `AGENT_VAULT_KEY`, or the owner's. */
  readonly keyFile?: string;
  /** The key itself, instead of its file; it is written nowhere. */
  readonly key?: string;
  /** Instead of `process.env`. */
  readonly environ?: Environment;
}

/**
 * The repo vault around a folder, verified, with a key of one's own.
 *
 *     const vault = await RepoVault.open("~/team");
 *     await vault.get("stripe/api-key");
 */
export class RepoVault {
  /** The folder that has `.agent-vault`. */
  readonly root: string;
  readonly #identity: Identity;
  readonly #environ: Environment;
  #opened: Opened;

  private constructor(root: string, identity: Identity, environ: Environment, opened: Opened) {
    this.root = root;
    this.#identity = identity;
    this.#environ = environ;
    this.#opened = opened;
  }

  /**
   * Open the vault of a folder, or of one above it, verify all that is signed, and remember it.
   *
   * Throws `NotFound` when there is no vault or no key, `IntegrityError` when something in it is not genuine or older
   * than what this machine has seen, and `InvalidRequest` when the key is none or others can read its file,
   * and `PolicyDenied` when the vault is above the folder and of another user.
   */
  static async open(path = ".", options: RepoVaultOptions = {}): Promise<RepoVault> {
    const environ = options.environ ?? process.env;
    if (/:\/\/|::|[\u0000-\u001f\u007f]/.test(path)) {
      throw new InvalidRequest("an address is not the folder of a vault", "git clone it, and name the folder");
    }
    const root = rootOf(expanded(path, environ), environ);
    const file = options.keyFile === undefined ? undefined : expanded(options.keyFile, environ);
    const identity = options.key === undefined ? findKey(environ, file) : Identity.find(options.key);
    return new RepoVault(root, identity, environ, await open(root, identity, environ));
  }

  /** Whether members and files are signed; whoever can write to an unsigned vault can change it unnoticed. */
  get signed(): boolean {
    return this.#opened.members !== null;
  }

  /**
   * The value of a secret, read fresh from its file, once it is on record who reads it: `keyhole repo reads`.
   *
   * Throws `AuditUnavailable` when that cannot be recorded, `NotFound` when there is none or it is not for this key, `Expired` when it is not to be used any more, and
   * `IntegrityError` when its file is not the one that a member wrote.
   */
  async get(name: string): Promise<string> {
    const [opened, identity] = [this.#opened, this.#identity];
    const stem = opened.where(name);
    const place = realpathSync(this.root, { encoding: "buffer" });
    const refused = Seen.path(home(this.#environ), place, ".refused");
    const value = await recording(refused, () => opened.get(stem, identity, new Date()));
    const version = opened.sidecar(stem)?.version ?? 0;
    const log = Seen.path(home(this.#environ), place, ".reads.jsonl");
    await record(log, { members: opened.members, identity, stem, version }, this.#environ);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
    } catch {
      throw new IntegrityError("this secret is no text", "see its history");
    }
  }

  /** All secrets, or those of a group. Opens none. */
  async listSecrets(group?: string): Promise<RepoSecret[]> {
    const opened = this.#opened;
    const shown = (text: string): string => opened.shown(text);
    const found = opened.stems().flatMap((stem) => {
      const meta = opened.meta(stem);
      const due = shown(opened.sidecar(stem)?.due ?? "");
      const names = { name: shown(meta?.name ?? ""), group: shown(meta?.group ?? "") };
      return meta === null ? [] : [{ ...meta, ...names, agents: meta.agents.map(shown), due }];
    });
    return found.filter((each) => group === undefined || each.group === group);
  }

  /** Who is granted what besides the owners: name to groups. */
  async listAgents(): Promise<Map<string, readonly string[]>> {
    const members = this.#opened.members;
    if (members === null) {
      return new Map(this.#opened.manifest.agents);
    }
    const others = [...members.byName.values()].filter((each) => each.role !== "owner");
    const shown = (text: string): string => this.#opened.shown(text);
    return new Map(others.map((each) => [shown(each.name), each.groups.map(shown)]));
  }

  /** Read the folder again, such as after a pull. Throws what opening throws. */
  async reload(): Promise<void> {
    this.#opened = await open(this.root, this.#identity, this.#environ);
  }

  toJSON(): object {
    return { root: this.root };
  }

  [inspect.custom](): string {
    return `RepoVault(${JSON.stringify(this.root)})`;
  }
}

/** Open the vault of a folder; what is refused there is recorded. */
async function open(root: string, identity: Identity, environ: Environment): Promise<Opened> {
  const place = realpathSync(root, { encoding: "buffer" });
  const opened = await recording(Seen.path(home(environ), place, ".refused"), async () => {
    const tree = new Tree(root);
    try {
      return verified(tree, environ, place);
    } catch (error) {
      if (!(error instanceof IntegrityError) || !waited(tree)) {
        throw error;
      }
      return verified(tree, environ, place); // another command was changing it just now
    }
  });
  await opened.unlock(identity);
  return opened;
}

function verified(tree: Tree, environ: Environment, place: Buffer): Opened {
  const opened = new Opened(tree, Seen.load(home(environ), place));
  opened.remember();
  return opened;
}

function waited(tree: Tree): boolean {
  try {
    return tree.wait();
  } catch (error) {
    if (error instanceof Conflict) {
      throw error;
    }
    return false; // where it cannot be waited for, what was found counts
  }
}

/** See that a vault above the folder that was named is of this user: anybody can put one into `/tmp`. */
function requireOwn(start: string, found: string, environ: Environment): void {
  const user = process.geteuid?.();
  if (found === start || user === undefined) {
    return;
  }
  const own = [user, 0, ...(user === 0 && /^[0-9]+$/.test(environ["SUDO_UID"] ?? "") ? [Number(environ["SUDO_UID"])] : [])];
  if (!own.includes(statSync(join(found, VAULT)).uid)) {
    throw new PolicyDenied(
      `the vault in ${found}, above ${start}, belongs to another user`, "if it is meant, name its folder",
    );
  }
}

function rootOf(start: string, environ: Environment): string {
  let folder: string;
  try {
    folder = realpathSync(start);
  } catch {
    folder = start;
  }
  for (let at = folder; ; at = dirname(at)) {
    if (new Tree(at).exists()) {
      requireOwn(folder, at, environ);
      return at;
    }
    if (at === dirname(at)) {
      throw new NotFound(`there is no ${VAULT} in ${folder} or above it`, "keyhole repo init");
    }
  }
}
