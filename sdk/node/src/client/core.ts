/** What is asked and what is answered, without any I/O: requests are built and replies are parsed here, once. */

import * as errors from "../errors.js";
import { byCode, KeyholeError, Unreachable } from "../errors.js";

export type Operation = "read" | "list" | "update" | "patch" | "delete";
export type Fields = Readonly<Record<string, unknown>>;
/** Headers of an answer; names in lower case. */
export type Headers = Readonly<Record<string, string | string[] | undefined>>;

const METHODS: Readonly<Record<Operation, string>> = {
  read: "GET", list: "GET", update: "POST", patch: "PATCH", delete: "DELETE",
};
const BY_STATUS = new Map<number, typeof KeyholeError>([
  [400, errors.InvalidRequest], [401, errors.Unauthenticated], [403, errors.PolicyDenied], [404, errors.NotFound],
  [405, errors.InvalidRequest], [409, errors.Conflict], [412, errors.Conflict], [413, errors.BodyTooLarge],
  [415, errors.InvalidRequest], [429, errors.RateLimited], [501, errors.NotFound], [503, errors.Sealed],
]);

/** A request as HTTP: method, target below the server's address, headers and body. */
export interface Wire {
  readonly method: string;
  readonly target: string;
  readonly headers: Record<string, string>;
  readonly body: string | null;
}

/** What the vault answered. */
export interface Result {
  /** The fields; empty when there are none. */
  readonly data: Record<string, any>;
  /** A fresh token, in the field names of Vault's `auth` block. */
  readonly auth: Record<string, any> | null;
  /** For a person to read. */
  readonly warnings: readonly string[];
  /** `false` when `data` describes something that is not there any more (a deleted version). */
  readonly found: boolean;
  /** The id under which the journal has it. */
  readonly requestId: string;
  /** Under which what was made lives; empty for nothing. */
  readonly leaseId: string;
  /** Seconds that it lives, or for which to rely on what was read. */
  readonly leaseDuration: number;
  /** The lease can be renewed. */
  readonly renewable: boolean;
}

/** A request to the HTTP API; `data` is the body of `update` and `patch`, else the query. */
export function build(operation: Operation, path: string, data: Fields, token: string, org: string): Wire {
  const headers: Record<string, string> = { "X-Vault-Request": "true", Accept: "application/json" };
  if (token !== "") {
    headers["X-Vault-Token"] = token;
  }
  if (org !== "") {
    headers["X-Vault-Namespace"] = org;
  }
  const target = `/v1/${trimmed(path).split("/").map(encoded).join("/")}`;
  const method = METHODS[operation];
  if (operation === "update" || operation === "patch") {
    headers["Content-Type"] = operation === "patch" ? "application/merge-patch+json" : "application/json";
    return { method, target, headers, body: JSON.stringify(data) };
  }
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(data)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") {
        query.append(name, String(each));
      }
    }
  }
  if (operation === "list") {
    query.append("list", "true"); // a listing as a plain GET passes every HTTP intermediary; the method LIST does not
  }
  const asked = query.toString();
  return { method, target: asked === "" ? target : `${target}?${asked}`, headers, body: null };
}

/** The result in a response. Throws what the server refused with; `Unreachable` for what is not Keyhole's API. */
export function parse(status: number, headers: Headers, body: Buffer, address: string): Result {
  if (status >= 300 && status < 400) {
    throw new Unreachable(
      `${address} answers with a redirect, which is not followed`, "give the address where the API itself is",
    );
  }
  const data = objectIn(body, status, address);
  if ((status >= 200 && status < 300) || (status === 404 && isFields(data["data"]))) {
    return result(status, headers, data);
  }
  throw refusal(status, headers, data);
}

/** The error in a refused response: by Keyhole's own code, else by the status. */
export function refusal(status: number, headers: Headers, data: Fields): KeyholeError {
  const detail = data["error"];
  const header = (name: string): string => text(headers[name]);
  let requestId = header("x-keyhole-request-id");
  let code = header("x-keyhole-error");
  let hint = header("x-keyhole-hint");
  let reason: string;
  if (isFields(detail)) {
    [code, reason, hint] = [text(detail["code"]), text(detail["reason"]), text(detail["hint"])];
    requestId = text(detail["request_id"]) || requestId;
  } else {
    const said = header("x-keyhole-reason");
    reason = (hint !== "" && said.endsWith(`: ${hint}`) ? said.slice(0, -hint.length - 2) : said) || listed(data);
  }
  let kind = byCode(code);
  if (kind === KeyholeError) {
    kind = BY_STATUS.get(status) ?? kind;
  }
  const error = new kind(reason || `the server answered with status ${status}`, hint);
  error.requestId = requestId;
  const wait = Number(header("retry-after"));
  error.retryAfter = Number.isFinite(wait) && wait > 0 ? wait : 0;
  return error;
}

/** A path without slashes around it. */
export function trimmed(path: string): string {
  return path.replace(/^\/+|\/+$/g, "");
}

function encoded(segment: string): string {
  return encodeURIComponent(segment).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function objectIn(body: Buffer, status: number, address: string): Fields {
  if (body.length === 0) {
    return {};
  }
  try {
    const data: unknown = JSON.parse(body.toString());
    if (isFields(data)) {
      return data;
    }
  } catch {
    // told below
  }
  throw new Unreachable(
    `${address} is not Keyhole's API: it answers ${status} with something else than a JSON object`, "check the address",
  );
}

function result(status: number, headers: Headers, data: Fields): Result {
  // The few routes without an envelope (sys/seal-status) answer their fields alone.
  const enveloped = "request_id" in data && ("data" in data || "auth" in data);
  const inner = enveloped ? data : {};
  return {
    data: (enveloped ? (data["data"] ?? {}) : data) as Record<string, any>,
    auth: (inner["auth"] ?? null) as Record<string, any> | null,
    warnings: (inner["warnings"] ?? []) as string[],
    found: status !== 404,
    requestId: text(headers["x-keyhole-request-id"]),
    leaseId: text(inner["lease_id"]),
    leaseDuration: Number(inner["lease_duration"] ?? 0),
    renewable: inner["renewable"] === true,
  };
}

/** The texts of Vault's `errors`, without the layout of its lists. */
function listed(data: Fields): string {
  const texts = Array.isArray(data["errors"]) ? data["errors"].map(text) : [];
  const plain = (each: string): string => each.replace("1 error occurred:", "").replace(/\n/g, " ");
  return texts.map((each) => plain(each).replace(/^[ *\t]+|[ *\t]+$/g, "")).join("; ");
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
