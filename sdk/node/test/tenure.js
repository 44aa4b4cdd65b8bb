/**
 * Plays what happens to leased credentials, and says after each step what is due and until when they are served.
 *
 * Stdin: a JSON list of plays, each a list of [what, ...arguments]. Stdout: a JSON list of lists.
 */

import { text } from "node:stream/consumers";

import { InvalidRequest, Unreachable } from "@keyhole/sdk";

import { Tenure } from "../dist/client/tenure.js";

const result = (given) => ({ data: {}, leaseId: "", leaseDuration: 0, renewable: false, ...given });

function played(play) {
  const tenure = new Tenure("database/creds/x", 60, 300, () => 0.25);
  return play.map(([what, now, more]) => {
    const steps = {
      asking: () => tenure.asking(now),
      read: () => tenure.read(result(more), now),
      renewed: () => tenure.renewed(result(more), now),
      unreachable: () => tenure.unreachable(new Unreachable("away"), now),
      refused: () => tenure.refused(new InvalidRequest("no"), now, more),
    };
    steps[what]();
    const served = tenure.held === null ? null : Object.fromEntries(tenure.held.fields);
    return [...tenure.due(), tenure.servedUntil(), tenure.version, served, [...tenure.past], tenure.failure?.reason ?? null];
  });
}

process.stdout.write(JSON.stringify(JSON.parse(await text(process.stdin)).map(played)));
