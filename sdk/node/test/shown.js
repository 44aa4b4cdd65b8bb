/** Shows a repo vault in every way in which a program could, and the digest of a secret. */

import { createHash } from "node:crypto";
import { format, inspect } from "node:util";

import { RepoVault } from "@keyhole/sdk";

const vault = await RepoVault.open();
const value = await vault.get(process.argv[2]);
const every = { depth: Infinity, showHidden: true, getters: true };
const refused = await vault.get("no/such").catch((error) => error);
const shown = [
  JSON.stringify({ vault, refused }), inspect(vault, every), inspect({ vault }, every), format("%s %o %O %j", vault, vault, vault, vault),
  String(vault), inspect(Object.getOwnPropertyDescriptors(vault), every), inspect(refused, every), refused.stack,
  inspect(vault, { ...every, customInspect: false }),
];
process.stdout.write(JSON.stringify({ digest: createHash("sha256").update(value).digest("hex"), shown: shown.join("\n") }));
