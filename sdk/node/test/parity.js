/**
 * Opens the repo vaults of a list and says what comes of it, so that another reader of them can say the same.
 *
 * Stdin: a JSON list of {root, env, key, names}. Stdout: a JSON list of what each has, or of its error.
 */

import { text } from "node:stream/consumers";

import { KeyholeError, RepoVault } from "@keyhole/sdk";

function said(error) {
  if (!(error instanceof KeyholeError)) {
    throw error;
  }
  return { error: error.name, code: error.code, reason: error.reason, hint: error.hint };
}

async function found({ root, env, key, names }) {
  try {
    const vault = await RepoVault.open(root, { environ: env, ...(key === null ? {} : { key }) });
    const values = {};
    for (const name of names) {
      values[name] = await vault.get(name).catch(said);
    }
    const agents = Object.fromEntries(await vault.listAgents());
    return { signed: vault.signed, values, agents, secrets: await vault.listSecrets() };
  } catch (error) {
    return said(error);
  }
}

const all = [];
for (const each of JSON.parse(await text(process.stdin))) {
  all.push(await found(each));
}
process.stdout.write(JSON.stringify(all));
