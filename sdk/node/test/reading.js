/** Reads a secret of a repo vault as often as is said, all at once. Prints how often its value came. */

import { RepoVault } from "@keyhole/sdk";

const [root, name, times] = process.argv.slice(2);
const vault = await RepoVault.open(root);
const values = await Promise.all(Array.from({ length: Number(times) }, () => vault.get(name)));
process.stdout.write(JSON.stringify(values.length));
