/** What was refused because it was not genuine, in the record that the `keyhole` program keeps of this machine. */

import { closeSync, constants, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, statSync, unlinkSync, writeSync } from "node:fs";
import { dirname } from "node:path";

import { IntegrityError } from "../errors.js";

const WHERE = "the folder";
const MAX_FILE = 256 * 1024; // bytes; older refusals are let go
const MAX_REASON = 2000; // characters

/** Do something, and record an `IntegrityError` that it throws. */
export async function recording<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof IntegrityError) {
      try {
        append(path, error.reason.slice(0, MAX_REASON));
      } catch {
        // what is refused stays refused, also where nothing can be written
      }
    }
    throw error;
  }
}

/** A refusal that repeats itself is one line. */
function append(path: string, reason: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  if (existsSync(path)) {
    const last: unknown = JSON.parse(readFileSync(path, "utf8").trimEnd().split("\n").at(-1) || "{}");
    const { where, reason: before } = last as Record<string, unknown>;
    if (where === WHERE && before === reason) {
      return;
    }
    if (statSync(path).size > MAX_FILE) {
      unlinkSync(path);
    }
  }
  const time = new Date().toISOString().replace(/Z$/, "000Z");
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0);
  const file = openSync(path, flags, 0o600);
  try {
    writeSync(file, `${JSON.stringify({ time, where: WHERE, reason })}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
