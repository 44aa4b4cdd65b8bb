/**
 * Seals and opens files of age with the package age-encryption as it is, line by line.
 *
 * Stdin: lines of JSON, {"seal": BASE64, "recipients": [...]} or {"open": BASE64, "identity": ...}. Stdout: a line of
 * base64 for each, or one that begins with "error".
 */

import { createInterface } from "node:readline";

import { Decrypter, Encrypter } from "age-encryption";

async function done({ seal, recipients, open, identity }) {
  if (seal !== undefined) {
    const encrypter = new Encrypter();
    recipients.forEach((each) => encrypter.addRecipient(each));
    return encrypter.encrypt(Buffer.from(seal, "base64"));
  }
  const decrypter = new Decrypter();
  decrypter.addIdentity(identity);
  return decrypter.decrypt(Buffer.from(open, "base64"));
}

for await (const line of createInterface({ input: process.stdin })) {
  const said = await done(JSON.parse(line)).then(
    (data) => Buffer.from(data).toString("base64"),
    (error) => `error: ${error.message}`,
  );
  process.stdout.write(`${said}\n`);
}
