// For each pair of a value and a text on stdin: how many ways of cutting the text give something else than all at once.
import { json } from "node:stream/consumers";

import { Pieces } from "../dist/tools/pieces.js";
import { Scrubber } from "../dist/tools/scrubber.js";

function cut(scrubber, whole, size) {
  const pieces = new Pieces(scrubber);
  const given = [];
  for (let at = 0; at < whole.length; at += size) {
    given.push(...pieces.feed(whole.slice(at, at + size)));
  }
  return [...given, ...pieces.finish()];
}

const pairs = await json(process.stdin);
console.log(JSON.stringify(pairs.map(([value, text]) => {
  const scrubber = new Scrubber([Buffer.from(value)]);
  const bytes = Buffer.from(text);
  return [1, 9].filter((size) => (
    cut(scrubber, text, size).join("") !== scrubber.text(text) ||
    !Buffer.concat(cut(scrubber, bytes, size)).equals(scrubber.bytes(bytes))
  )).length;
})));
