/** Leases a credential until the process is asked to end, and prints each one that there is. */

import { Client } from "@keyhole/sdk";

const say = (lease) => process.stdout.write(`${JSON.stringify({ version: lease.version, ...lease.fields() })}\n`);

say(await new Client().lease(process.argv[2], { onChange: say }));
setInterval(() => undefined, 1000);
