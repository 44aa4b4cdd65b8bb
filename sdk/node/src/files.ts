/** Plain files of bounded size. */

import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";

/** How to read a plain file: whether its last part may be a link, and what is looked at before its bytes. */
interface Reading {
  readonly follow: boolean;
  readonly check: (found: Stats) => void;
}

/** The bytes of a plain file of bounded size; `failed` makes the error, from a code of the system or `""`. */
export function readPlain(path: string, most: number, failed: (code: string) => Error, how?: Reading): Buffer {
  const follow = how?.follow ?? false;
  let descriptor: number;
  try {
    // Not every system has these two, whatever the types say.
    const flags = (follow ? 0 : (constants.O_NOFOLLOW ?? 0)) | (constants.O_NONBLOCK ?? 0);
    descriptor = openSync(path, constants.O_RDONLY | flags);
  } catch (error) {
    throw failed((error as NodeJS.ErrnoException).code ?? "unknown");
  }
  try {
    const found = fstatSync(descriptor);
    if (!found.isFile() || found.size > most) {
      throw failed("");
    }
    how?.check(found);
    const buffer = Buffer.alloc(found.size + 1);
    let length = 0;
    for (let got = -1; got !== 0 && length < buffer.length; length += got) {
      got = readSync(descriptor, buffer, length, buffer.length - length, null);
    }
    if (length > found.size) {
      throw failed(""); // it grows while it is read
    }
    return buffer.subarray(0, length);
  } finally {
    closeSync(descriptor);
  }
}
