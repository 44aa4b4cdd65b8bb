/**
 * A repo vault as it was found: verified from the members down to each secret before anything of it is used.
 *
 * A vault of the format that has no signed documents is opened all the same, and says so. Once this machine has seen it
 * signed, it is refused unsigned.
 */

import { createHash } from "node:crypto";

import { Expired, IntegrityError, NotFound, PolicyDenied } from "../errors.js";
import type { Identity } from "./age.js";
import { checkConfig, readManifest, readMeta, type Manifest, type Meta } from "./documents.js";
import { Book, NAMES } from "./hidden.js";
import { chain, leads, SIGNED_MEMBERS } from "./joining.js";
import { isByAnOwner, KIND as MEMBERS, readMembers, requireFollows, type Members } from "./members.js";
import { groupOf, isSecret, parseSecret } from "./names.js";
import type { Seen, State } from "./seen.js";
import { alike, KIND as SECRET, metaOf, readSidecar, requireGenuine, type Sidecar } from "./sidecar.js";
import { readSigned, type Signed } from "./signed.js";
import { VAULT, type Tree } from "./tree.js";

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
  #book: Book | null = null;

  /** Verify all that is signed. Throws `IntegrityError`. Nothing is remembered. */
  constructor(tree: Tree, seen: Seen) {
    this.#tree = tree;
    checkConfig(tree.require("config.yaml"));
    const manifest = tree.read("manifest.yaml");
    this.manifest = manifest === null ? { agents: new Map(), groups: new Map() } : readManifest(manifest);
    const numbered = chain(tree);
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
      name, [each.version, document.digest, alike(document, each)],
    ]);
    this.remember = (): void => seen.remember(members.vault, [members.version, digest], new Map(states));
  }

  /**
   * Read the names, where they are hidden. A key of nobody here reads none.
   *
   * Throws `IntegrityError` when what opens them is not what the list of members says.
   */
  async unlock(identity: Identity): Promise<void> {
    const members = this.members;
    if (members === null || members.names === null) {
      return;
    }
    const sealed = this.#tree.require(NAMES);
    if (createHash("sha256").update(sealed).digest("hex") !== members.names) {
      throw new IntegrityError(
        `${VAULT}/${NAMES} is not the file that the list of members says`, "restore it from its history",
      );
    }
    try {
      const book = await Book.open(members.vault, sealed, identity);
      book.learn([...this.#secrets.keys()]);
      this.#book = book;
    } catch (error) {
      if (!(error instanceof NotFound)) {
        throw error;
      }
    }
  }

  /** A text for people, with the names that its ids stand for, as far as they can be read here. */
  shown(text: string): string {
    return this.#book?.shown(text) ?? text;
  }

  /** The stems of all secrets, by their names: two parts, a path below the folders of secrets without its suffix. */
  stems(): string[] {
    const all = [...this.#secrets].filter(([, [, each]]) => !each.removed).map(([stem]) => stem);
    const found = this.members === null ? this.#tree.files("secrets", ".enc").filter(isSecret) : all;
    return found.map((stem) => [this.shown(stem), stem] as const).sort(byFirst).map(([, stem]) => stem);
  }

  /** What is signed of a secret; `null` in a vault that is not signed. Throws `NotFound`. */
  sidecar(stem: string): Sidecar | null {
    return this.members === null ? null : this.#found(stem)[1];
  }

  /**
   * The stem of a secret's name, or of a stem itself.
   *
   * Throws `InvalidRequest` for no name, `NotFound` where names are hidden and none is this, and `PolicyDenied` where
   * this key reads none.
   */
  where(text: string): string {
    const name = parseSecret(text);
    if (this.members === null || this.members.names === null || this.#secrets.has(name)) {
      return name;
    }
    if (this.#book === null) {
      throw new PolicyDenied(
        "the names in this vault are hidden, and no key of a member is here", "--key FILE, or give the id",
      );
    }
    return this.#book.stem(name) ?? missing(name);
  }

  /** The value of what lies at a stem. Throws `NotFound`, `Expired` and `IntegrityError`. */
  async get(stem: string, identity: Identity, now: Date): Promise<Uint8Array> {
    const data = this.#ciphertext(stem);
    const expires = this.meta(stem)?.expires ?? null;
    if (expires !== null && expires <= now) {
      throw new Expired(`the secret '${stem}' has expired`, "store a new value: keyhole repo set NAME");
    }
    try {
      return await identity.decrypt(data);
    } catch (error) {
      if (error instanceof NotFound) {
        const hint = `use another key, or ask an owner: keyhole repo grant YOU ${groupOf(stem)}`;
        throw new NotFound(`the secret '${stem}' is not for this key`, hint);
      }
      throw error;
    }
  }

  /** What is known of a secret; `null` where the format's own file is missing or cannot be read. */
  meta(stem: string): Meta | null {
    if (this.members !== null) {
      return metaOf(this.#found(stem)[1], this.members);
    }
    const data = this.#tree.read(`secrets/${stem}.meta`);
    try {
      return data === null ? null : readMeta(data, `${stem}.meta`);
    } catch (error) {
      if (error instanceof IntegrityError) {
        return null;
      }
      throw error;
    }
  }

  /** The age file of a secret, genuine where that is signed. */
  #ciphertext(stem: string): Buffer {
    if (this.members === null) {
      return this.#tree.read(`secrets/${stem}.enc`) ?? missing(stem);
    }
    const [document, found] = this.#found(stem);
    const data = this.#tree.require(`secrets/${stem}.enc`);
    requireGenuine(document, found, this.members, data);
    return data;
  }

  #found(stem: string): readonly [Signed, Sidecar] {
    const found = this.#secrets.get(stem);
    return found === undefined || found[1].removed ? missing(this.shown(stem)) : found;
  }
}

/** The members now, followed from the first version, and at least as new as what was seen. */
function verifiedMembers(tree: Tree, seen: Seen, numbered: readonly string[]): [Members, string] {
  if (numbered.some((path, at) => path !== `${SIGNED_MEMBERS}/${String(at + 1).padStart(6, "0")}.json`)) {
    throw new IntegrityError(`${VAULT}/${SIGNED_MEMBERS} has a gap`, "restore it from its history");
  }
  const what = "the list of members";
  let current: Members | null = null;
  let digest = "";
  const digests = [""];
  for (const path of numbered) {
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
    digests.push(digest);
  }
  if (current === null) {
    throw new IntegrityError("there are no members");
  }
  const [version, last] = seen.members;
  if (version > 0 && !digests.includes(last) && !leads(tree, last)) {
    const at = Math.min(version, current.version);
    seen.judge(what, seen.members, at, digests[at] ?? "");
  }
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
    seen.judgeSecret(name, [each.version, document.digest, alike(document, each)]);
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

function byFirst(one: readonly [string, string], other: readonly [string, string]): number {
  return one[0] < other[0] ? -1 : 1;
}

function missing(name: string): never {
  throw new NotFound(`there is no secret '${name}' in this vault`, "keyhole repo list");
}
