/** The files of a repo vault in a folder, read without following a link that somebody committed. */

import { closeSync, constants, lstatSync, openSync, readdirSync, type Stats } from "node:fs";
import { join } from "node:path";

import { Conflict, IntegrityError, InvalidRequest } from "../errors.js";
import { readPlain } from "../files.js";
import { lock, LOCKING } from "./lock.js";

export const VAULT = ".agent-vault";
const LOCAL = ".local"; // of this machine alone
const MARKS = ["config.yaml", "manifest.yaml", ".x"];
const MAX_FILE = 32 * 1024 * 1024; // bytes
const MAX_FILES = 200_000;
const MISSING = new Set(["ENOENT", "ENOTDIR"]);

/** The folder of one vault; `root` is the one that has `.agent-vault`. */
export class Tree {
  readonly #vault: string;

  constructor(root: string) {
    this.#vault = join(root, VAULT);
  }

  /** Whether there is a vault. A folder of that name in a person's home keeps keys, and is none. */
  exists(): boolean {
    const found = stat(this.#vault)?.isDirectory() ?? false;
    return found && MARKS.some((name) => stat(join(this.#vault, name)) !== null);
  }

  /**
   * Let a command end that is changing the vault on this machine; whether there was or is any.
   *
   * Throws `Conflict` for what a command has left that was ended: it takes one that writes to carry that out.
   */
  wait(): boolean {
    const held = this.read(`${LOCAL}/lock`) !== null;
    if (held) {
      const file = openSync(join(this.#vault, LOCAL, "lock"), constants.O_RDWR | (constants.O_NOFOLLOW ?? 0) | LOCKING);
      try {
        lock(file);
      } finally {
        closeSync(file);
      }
    }
    if (this.read(`${LOCAL}/plan.json`) !== null) {
      throw new Conflict(
        "a command was ended before it had changed everything in this vault", "keyhole repo status carries it out",
      );
    }
    return held;
  }

  /** The bytes of a file; `null` when it is not there. Throws `IntegrityError` for what is no plain file. */
  read(path: string): Buffer | null {
    if (!this.#leadsTo(path)) {
      return null;
    }
    const full = join(this.#vault, path);
    const found = stat(full);
    if (found === null) {
      return null;
    }
    if (!found.isFile()) {
      throw noFile(path);
    }
    return readPlain(full, MAX_FILE, (code) => {
      if (code === "ELOOP" || code === "EMLINK" || code === "") {
        return noFile(path);
      }
      return new InvalidRequest(`${path} cannot be read: ${code}`, "see the rights of the folder");
    });
  }

  /** The bytes of a file. Throws `IntegrityError` when it is not there. */
  require(path: string): Buffer {
    const data = this.read(path);
    if (data === null) {
      throw new IntegrityError(`${VAULT}/${path} is missing`, "restore it from its history");
    }
    return data;
  }

  /** Names in a folder, sorted; empty when it is not there. Throws `IntegrityError` for a link. */
  names(folder: string): string[] {
    const full = join(this.#vault, folder);
    const found = this.#leadsTo(folder) ? stat(full) : null;
    if (found === null) {
      return [];
    }
    if (!found.isDirectory()) {
      throw noFile(folder);
    }
    const names = readdirSync(full);
    if (names.length > MAX_FILES) {
      throw new IntegrityError(`${VAULT}/${folder} has more than ${MAX_FILES} files`, "this is no vault of ours");
    }
    return names.sort();
  }

  /** `group/name` of the files two levels below a folder that end in a suffix. */
  files(folder: string, suffix: string): string[] {
    const visible = (name: string): boolean => !name.startsWith(".");
    return this.names(folder).filter(visible).flatMap((group) =>
      this.names(`${folder}/${group}`)
        .filter((name) => visible(name) && name.endsWith(suffix))
        .map((name) => `${group}/${name.slice(0, -suffix.length)}`),
    );
  }

  /** Whether all folders on the way are folders. Git makes links, and is not at work in the middle of a look. */
  #leadsTo(path: string): boolean {
    let folder = this.#vault;
    for (const part of path.split("/").slice(0, -1)) {
      folder = join(folder, part);
      if (!(stat(folder)?.isDirectory() ?? false)) {
        return false;
      }
    }
    return true;
  }
}

function stat(path: string): Stats | null {
  try {
    return lstatSync(path);
  } catch (error) {
    if (MISSING.has((error as NodeJS.ErrnoException).code ?? "")) {
      return null;
    }
    throw new InvalidRequest(`${path} cannot be looked at`, "see the rights of the folder");
  }
}

function noFile(path: string): IntegrityError {
  return new IntegrityError(`${VAULT}/${path} is not a plain file or folder`, "somebody put something there: remove it");
}
