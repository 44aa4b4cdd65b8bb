/**
 * Who has read what: a record that is durable before a value is let go, in the file that `keyhole repo reads` shows.
 *
 * Each line is a document that the reader's key signs, and names the one before by its digest. There is no field for a
 * value.
 */

import { randomBytes } from "node:crypto";
import {
  closeSync, constants, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync,
} from "node:fs";
import { dirname } from "node:path";

import type { Environment } from "../environment.js";
import { AuditUnavailable, IntegrityError, KeyholeError } from "../errors.js";
import { canonical, type Json, type JsonObject } from "../strict_json.js";
import type { Identity } from "./age.js";
import { integerOf, textOf } from "./fields.js";
import { lock, LOCKING } from "./lock.js";
import type { Members } from "./members.js";
import { readSigned, Signed } from "./signed.js";

const KIND = "read";
const CONTEXT = ["workflow", "run", "step"]; // what KEYHOLE_WORKFLOW and so on say of the work that reads
const MAX_LINE = 8 * 1024; // bytes
const MAX_CONTEXT = 200; // characters of each
const NEWLINE = 0x0a;

/** What is read. */
export interface Reading {
  /** Of the vault; `null` for one that is not signed. */
  readonly members: Members | null;
  readonly identity: Identity;
  /** Where the secret lies in the vault. */
  readonly stem: string;
  /** 0 where nothing is signed. */
  readonly version: number;
}

/** Write down that a secret is read; durable when this is done. Throws `AuditUnavailable`. */
export async function record(path: string, reading: Reading, environ: Environment): Promise<void> {
  const { members, identity } = reading;
  const recipient = await identity.recipient();
  const member = [...(members?.byName.values() ?? [])].find((each) => each.recipient === recipient);
  const who = member?.name ?? recipient;
  const signs = member !== undefined && Buffer.compare(member.sign, identity.signs) === 0;
  try {
    append(path, (last) => {
      const content: JsonObject = new Map<string, Json>([
        ["log", last === null ? randomBytes(8).toString("hex") : textOf(last.content, "log")],
        ["number", last === null ? 1 : integerOf(last.content, "number") + 1],
        ["previous", last?.digest ?? ""],
        ["time", new Date().toISOString().replace(/Z$/, "000Z")],
        ["vault", members?.vault ?? ""],
        ["who", who],
        ["secret", reading.stem],
        ["version", reading.version],
        ["how", "RepoVault.get"],
        ["context", contextOf(environ)],
      ]);
      const signature = identity.sign(new Signed(KIND, content, new Map(), path).bytes).toString("base64");
      const signatures: JsonObject = new Map(signs ? [[who, signature]] : []);
      return canonical(new Map<string, Json>([["content", content], ["signatures", signatures]]));
    });
  } catch (error) {
    if (error instanceof KeyholeError) {
      throw error;
    }
    const { code, message } = error as NodeJS.ErrnoException;
    throw new AuditUnavailable(
      `the read cannot be recorded in ${path}: ${code ?? message}; so the value is not given`,
      "let KEYHOLE_HOME name a folder that can be written, in a CI job such as one below $RUNNER_TEMP",
    );
  }
}

/** Add the line that comes after the last one. Nothing else of this process runs meanwhile. */
function append(path: string, next: (last: Signed | null) => string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const flags = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0) | LOCKING;
  const file = openSync(path, flags, 0o600);
  try {
    lock(file);
    const last = lastOf(file, path);
    const line = Buffer.from(`${next(last)}\n`);
    if (line.length > MAX_LINE) {
      throw new AuditUnavailable(`a record of a read has at most ${MAX_LINE} bytes`);
    }
    writeSync(file, line);
    fsyncSync(file);
    if (last === null) {
      syncFolder(dirname(path));
    }
  } finally {
    closeSync(file);
  }
}

/** The last record; what a crash has left after it is taken off. */
function lastOf(file: number, path: string): Signed | null {
  const size = fstatSync(file).size;
  const start = Math.max(0, size - 2 * MAX_LINE);
  const tail = Buffer.alloc(size - start);
  const length = readSync(file, tail, 0, tail.length, start);
  const whole = tail.lastIndexOf(NEWLINE) + 1;
  if (whole !== length) {
    if (whole === 0 && start > 0) {
      throw new AuditUnavailable(`${path} has a line that is none of ours`, "move it away, and keep it");
    }
    ftruncateSync(file, start + whole);
  }
  if (whole === 0) {
    return null;
  }
  const line = tail.subarray(whole < 2 ? 0 : tail.lastIndexOf(NEWLINE, whole - 2) + 1, whole);
  try {
    const last = readSigned(KIND, line, path);
    textOf(last.content, "log");
    integerOf(last.content, "number");
    return last;
  } catch (error) {
    if (error instanceof IntegrityError || error instanceof SyntaxError) {
      throw new AuditUnavailable(
        `the last line of ${path} is no record of a read, so none can follow it`, "move it away, and keep it",
      );
    }
    throw error;
  }
}

function contextOf(environ: Environment): JsonObject {
  const found = CONTEXT.map((name): [string, string] => [name, environ[`KEYHOLE_${name.toUpperCase()}`]?.trim() ?? ""]);
  return new Map(found.filter(([, text]) => text !== "").map(([name, text]) => [name, [...text].slice(0, MAX_CONTEXT).join("")]));
}

function syncFolder(path: string): void {
  const folder = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
