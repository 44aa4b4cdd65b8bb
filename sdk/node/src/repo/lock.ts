/**
 * The lock that the `keyhole` program takes on files of this machine (flock), which Node itself has not.
 *
 * It belongs to the open file and not to a process: so another program can take it for us, and it ends with the file.
 */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const O_EXLOCK = 0x20; // of macOS and the BSDs: opening takes the lock
const PROGRAMS = ["/usr/bin/flock", "/bin/flock"];
const WAIT = "30"; // seconds for another program to end

/** Flags with which opening a file takes the lock, where the system has them. */
export const LOCKING = process.platform === "darwin" || process.platform.endsWith("bsd") ? O_EXLOCK : 0;

/** Take the lock of an open file. Throws an `Error` whose text says why that cannot be. */
export function lock(descriptor: number): void {
  if (LOCKING !== 0) {
    return;
  }
  const program = PROGRAMS.find((each) => existsSync(each));
  if (program === undefined) {
    throw new Error("there is no program flock, which util-linux and busybox have");
  }
  const done = spawnSync(program, ["-x", "-w", WAIT, "3"], { stdio: ["ignore", "ignore", "ignore", descriptor], env: {} });
  if (done.status !== 0) {
    throw new Error("another program holds its lock");
  }
}
