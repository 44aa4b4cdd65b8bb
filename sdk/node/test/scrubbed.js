// For each pair of a value and a text on stdin: the text without the value.
import { json } from "node:stream/consumers";

import { Scrubber } from "../dist/tools/scrubber.js";

const pairs = await json(process.stdin);
console.log(JSON.stringify(pairs.map(([value, text]) => new Scrubber([Buffer.from(value)]).text(text))));
