/** What the types promise to a program; it is compiled and not run. */

import { inspect } from "node:util";

import {
  Client, IntegrityError, KeyholeError, RepoVault, type Answered, type CallOptions, type RepoSecret, type Result,
} from "@keyhole/sdk";

export async function reading(): Promise<string> {
  const vault = await RepoVault.open("~/team", { keyFile: "~/agent.key" });
  const secrets: RepoSecret[] = await vault.listSecrets("stripe");
  const expires: Date | null | undefined = secrets[0]?.expires;
  const agents: ReadonlyMap<string, readonly string[]> = await vault.listAgents();
  await vault.reload();
  // @ts-expect-error: a vault is opened, not made
  new RepoVault("~/team");
  return [inspect(vault), String(expires), agents.size, await vault.get("stripe/key")].join();
}

export async function calling(options: CallOptions): Promise<Answered> {
  const kh = new Client("https://keyhole.internal:8200", { org: "team" });
  const result: Result = await kh.read("secret/data/x", { version: 2 });
  await using creds = await kh.lease("/database/creds/readonly", { grace: 5, onChange: (lease) => void lease.version });
  const fetched: Response = await kh.fetch("https://api.example.com", { headers: { a: creds.get("username") ?? "" } });
  // @ts-expect-error: a secret is named, not given as bytes
  void kh.call("GET", "https://api.example.com", { bearer: Buffer.from("x") });
  return fetched.ok && result.found ? kh.call("GET", "https://api.example.com", options) : kh.withLease("/x", () => never());
}

export function told(error: unknown): string {
  if (error instanceof IntegrityError) {
    return "somebody changed it";
  }
  return error instanceof KeyholeError ? `${error.code} ${error.reason} ${error.hint} ${error.requestId}` : "";
}

function never(): never {
  throw new Error("never");
}
