/** What the types promise to a program; it is compiled and not run. */

import { inspect } from "node:util";

import { IntegrityError, KeyholeError, RepoVault, type RepoSecret } from "@keyhole/sdk";

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

export function told(error: unknown): string {
  if (error instanceof IntegrityError) {
    return "somebody changed it";
  }
  return error instanceof KeyholeError ? `${error.code} ${error.reason} ${error.hint} ${error.requestId}` : "";
}
