/**
 * A repo vault as it was found: verified from the members down to each secret before anything of it is used.
 *
 * A vault of the format that has no signed documents is opened all the same, and says so. Once this machine has seen it
 * signed, it is refused unsigned.
 */

import { Expired, IntegrityError, NotFound } from "../errors.js";
import type { Identity } from "./age.js";
import { checkConfig, readManifest, readMeta, type Manifest, type Meta } from "./documents.js";
import { isByAnOwner, KIND as MEMBERS, readMembers, requireFollows, type Members } from "./members.js";
import { isSecret, parseSecret } from "./names.js";
import type { Seen, State } from "./seen.js";
import { KIND as SECRET, metaOf, readSidecar, requireGenuine, type Sidecar } from "./sidecar.js";
import { readSigned, type Signed } from "./signed.js";
import { VAULT, type Tree } from "./tree.js";

const SIGNED_MEMBERS = ".x/members";
const SIGNED_SECRETS = ".x/secrets";

/** One vault, verified. */
export class Opened {
  /** Who may open and change it; `null` for a vault without signed documents. */
  readonly members: Members | null;
  /** The format's own list, which counts only where nothing is signed. */
  readonly manifest: Manifest;
  /** Keep what was found, so that nothing older is believed later. */
  readonly remember: () => void;
  readonly #tree: Tree;
  readonly #secrets: ReadonlyMap<string, readonly [Signed, Sidecar]>;

  /** Verify all that is signed. Throws `IntegrityError`. Nothing is remembered. */
  constructor(tree: Tree, seen: Seen) {
    this.#tree = tree;
    checkConfig(tree.require("config.yaml"));
    const manifest = tree.read("manifest.yaml");
    this.manifest = manifest === null ? { agents: new Map(), groups: new Map() } : readManifest(manifest);
    const numbered = tree.names(SIGNED_MEMBERS).filter((name) => name.endsWith(".json"));
    if (numbered.length === 0) {
      if (seen.vault !== "") {
        throw new IntegrityError(
          "this vault was signed when this machine saw it last, and is not any more",
          "somebody took the signatures away: restore .agent-vault/.x from its history",
        );
      }
      this.members = null;
      this.#secrets = new Map();
      this.remember = (): void => undefined;
      return;
    }
    const [members, digest] = verifiedMembers(tree, seen, numbered);
    this.members = members;
    this.#secrets = verifiedSecrets(tree, seen, members);
    const states = [...this.#secrets].map(([name, [document, each]]): [string, State] => [
      name, [each.version, document.digest],
    ]);
    this.remember = (): void => seen.remember(members.vault, [members.version, digest], new Map(states));
  }

  /** Of all secrets. */
  names(): string[] {
    if (this.members === null) {
      return this.#tree.files("secrets", ".enc").filter(isSecret).sort();
    }
    return [...this.#secrets].filter(([, [, each]]) => !each.removed).map(([name]) => name).sort();
  }

  /** What is signed of a secret; `null` in a vault that is not signed. Throws `NotFound`. */
  sidecar(name: string): Sidecar | null {
    return this.members === null ? null : this.#found(name)[1];
  }

  /** The value of a secret. Throws `NotFound`, `Expired` and `IntegrityError`. */
  async get(text: string, identity: Identity, now: Date): Promise<Uint8Array> {
    const name = parseSecret(text);
    const data = this.#ciphertext(name);
    const expires = this.meta(name)?.expires ?? null;
    if (expires !== null && expires <= now) {
      throw new Expired(`the secret '${name}' has expired`, "store a new value: keyhole repo set NAME");
    }
    return identity.decrypt(data);
  }

  /** What is known of a secret; `null` where the format's own file is missing or cannot be read. */
  meta(name: string): Meta | null {
    if (this.members !== null) {
      return metaOf(this.#found(name)[1], this.members);
    }
    const data = this.#tree.read(`secrets/${name}.meta`);
    try {
      return data === null ? null : readMeta(data, `${name}.meta`);
    } catch (error) {
      if (error instanceof IntegrityError) {
        return null;
      }
      throw error;
    }
  }

  /** The age file of a secret, genuine where that is signed. */
  #ciphertext(name: string): Buffer {
    if (this.members === null) {
      const data = this.#tree.read(`secrets/${name}.enc`);
      return data ?? missing(name);
    }
    const [document, found] = this.#found(name);
    const data = this.#tree.require(`secrets/${name}.enc`);
    requireGenuine(document, found, this.members, data);
    return data;
  }

  #found(name: string): readonly [Signed, Sidecar] {
    const found = this.#secrets.get(name);
    return found === undefined || found[1].removed ? missing(name) : found;
  }
}

/** The members now, followed from the first version, and at least as new as what was seen. */
function verifiedMembers(tree: Tree, seen: Seen, numbered: readonly string[]): [Members, string] {
  if (numbered.some((name, at) => name !== `${String(at + 1).padStart(6, "0")}.json`)) {
    throw new IntegrityError(`${VAULT}/${SIGNED_MEMBERS} has a gap`, "restore it from its history");
  }
  const what = "the list of members";
  let current: Members | null = null;
  let digest = "";
  for (const name of numbered) {
    const path = `${SIGNED_MEMBERS}/${name}`;
    const document = readSigned(MEMBERS, tree.require(path), path);
    if (current === null) {
      current = readMembers(document);
      if (current.version !== 1 || current.previous !== "" || !isByAnOwner(document, current)) {
        throw new IntegrityError(`${path} is not signed by an owner whom it names`, "restore it from its history");
      }
      seen.requireVault(current.vault);
    } else {
      current = requireFollows(current, digest, document);
    }
    digest = document.digest;
    if (current.version === seen.members[0]) {
      seen.judge(what, seen.members, current.version, digest);
    }
  }
  if (current === null) {
    throw new IntegrityError("there are no members");
  }
  seen.judge(what, seen.members[0] > 0 ? seen.members : undefined, current.version, digest);
  return [current, digest];
}

/** Read and judge the document of each secret; each ciphertext is judged when it is wanted. */
function verifiedSecrets(tree: Tree, seen: Seen, members: Members): Map<string, readonly [Signed, Sidecar]> {
  const secrets = new Map<string, readonly [Signed, Sidecar]>();
  for (const name of tree.files(SIGNED_SECRETS, ".json")) {
    const path = `${SIGNED_SECRETS}/${name}.json`;
    const document = readSigned(SECRET, tree.require(path), path);
    const each = readSidecar(document, parseSecret(name));
    requireGenuine(document, each, members, null);
    seen.judge(`the secret ${name}`, seen.secrets.get(name), each.version, document.digest);
    secrets.set(name, [document, each]);
  }
  for (const name of seen.secrets.keys()) {
    if (!secrets.has(name)) {
      throw new IntegrityError(
        `the secret ${name} was here when this machine looked last, and is gone without a signed removal`,
        "fetch again, or restore it from its history",
      );
    }
  }
  return secrets;
}

function missing(name: string): never {
  throw new NotFound(`there is no secret '${name}' in this vault`, "keyhole repo list");
}
