/** Where Keyhole keeps what is of this machine and user. */

import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";

/** Variables, such as `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** `KEYHOLE_HOME`, else the directory of the platform for data of programs. */
export function home(environ: Environment): string {
  const named = environ["KEYHOLE_HOME"];
  if (named) {
    return named;
  }
  const user = environ["HOME"] || homedir();
  if (process.platform === "darwin") {
    return join(user, "Library", "Application Support", "keyhole");
  }
  if (process.platform === "win32") {
    return join(environ["LOCALAPPDATA"] || join(homedir(), "AppData", "Local"), "keyhole");
  }
  const data = environ["XDG_DATA_HOME"] ?? "";
  return join(isAbsolute(data) ? data : join(user, ".local", "share"), "keyhole");
}

/** A path as a person writes it, absolute. */
export function expanded(path: string, environ: Environment): string {
  const user = environ["HOME"] || homedir();
  return resolve(path === "~" ? user : path.startsWith("~/") ? join(user, path.slice(2)) : path);
}
