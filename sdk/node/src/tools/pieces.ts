/** What a tool gives piece by piece, without the values. */

import { StringDecoder } from "node:string_decoder";

import { cleaned } from "./cleaned.js";
import type { Scrubber } from "./scrubber.js";

const PAST = 96; // bytes
const HALF = /[\ud800-\udbff]$/;

/** A text, or bytes, are held back as far as a value may begin in them; anything else goes through by itself. */
export class Pieces {
  readonly #scrubber: Scrubber;
  #held = ""; // as Latin-1, behind the last of what was passed on
  #past = 0; // how much that is
  #half = ""; // of a character
  #kind: "text" | "bytes" | "other" = "other";
  #decoder = new StringDecoder("utf8");

  constructor(scrubber: Scrubber) {
    this.#scrubber = scrubber;
  }

  /** What can be passed on now. */
  *feed(item: unknown): Generator<unknown> {
    const kind = typeof item === "string" ? "text" : item instanceof Uint8Array ? "bytes" : "other";
    if (kind !== this.#kind) {
      yield* this.finish();
      this.#kind = kind;
    }
    if (kind === "other") {
      yield cleaned(this.#scrubber, item);
      return;
    }
    let raw: Buffer;
    if (typeof item === "string") {
      const text = this.#half + item;
      this.#half = HALF.exec(text)?.[0] ?? "";
      raw = Buffer.from(text.slice(0, text.length - this.#half.length));
    } else {
      const { buffer, byteOffset, byteLength } = item as Uint8Array;
      raw = Buffer.from(buffer, byteOffset, byteLength);
    }
    const whole = this.#held + raw.toString("latin1");
    const [clean, end] = this.#scrubber.settled(whole, this.#past);
    this.#past = Math.min(end, PAST);
    this.#held = whole.slice(end - this.#past);
    yield* this.#given(Buffer.from(clean, "latin1"));
  }

  /** The rest of what was held back. */
  *finish(): Generator<unknown> {
    const rest = Buffer.concat([Buffer.from(this.#held, "latin1"), Buffer.from(this.#half)]);
    const clean = this.#scrubber.bytes(rest).subarray(this.#past);
    [this.#held, this.#half, this.#past] = ["", "", 0];
    yield* this.#given(clean, true);
  }

  *#given(bytes: Uint8Array, final = false): Generator<unknown> {
    if (this.#kind === "text") {
      const text = this.#decoder.write(Buffer.from(bytes)) + (final ? this.#decoder.end() : "");
      yield* text === "" ? [] : [text];
    } else if (this.#kind === "bytes" && bytes.length > 0) {
      yield bytes;
    }
  }
}
