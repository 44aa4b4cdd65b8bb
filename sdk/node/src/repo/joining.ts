/**
 * Which list of members goes on from another that is not in its chain: two people changed the members at once.
 *
 * The document that ends this goes on from one list and names the last document of the other (`over`), whose documents
 * stay beside the chain. Who has seen one of these goes on from it, step by step, and from the last to the one that names
 * it only if an owner of the list that was there signed that.
 */

import { IntegrityError } from "../errors.js";
import { KIND, readMembers, requireFollows, type Members } from "./members.js";
import { readSigned, type Signed } from "./signed.js";
import type { Tree } from "./tree.js";

export const SIGNED_MEMBERS = ".x/members";
const ASIDE = ".x/aside";
const MOST = 4096;

/** The paths of the documents of the members, the oldest first. */
export function chain(tree: Tree): string[] {
  return jsonIn(tree, SIGNED_MEMBERS);
}

/**
 * Whether the last list of a chain, which is verified, goes on from a document that was seen, in it or beside it.
 *
 * Throws `IntegrityError` for what is beside the chain and no list of members, or too much.
 */
export function leads(tree: Tree, seen: string): boolean {
  const aside = jsonIn(tree, ASIDE);
  if (aside.length > MOST) {
    throw new IntegrityError(`${ASIDE} has more than ${MOST} files`, "restore it from its history");
  }
  const documents = new Map<string, readonly [Signed, Members]>();
  const after = new Map<string, string[]>();
  let goal = "";
  for (const path of [...aside, ...chain(tree)]) {
    const document = readSigned(KIND, tree.require(path), path);
    const found = readMembers(document);
    goal = document.digest;
    documents.set(goal, [document, found]);
    for (const before of [found.previous, ...found.over]) {
      after.set(before, [...(after.get(before) ?? []), goal]);
    }
  }
  const reached = new Set([seen]);
  for (const here of reached) {
    const before = documents.get(here);
    for (const later of before === undefined ? [] : (after.get(here) ?? [])) {
      const found = documents.get(later);
      if (before !== undefined && found !== undefined && goesOn(before[1], here, ...found)) {
        reached.add(later);
      }
    }
  }
  return documents.has(seen) && reached.has(goal);
}

function jsonIn(tree: Tree, folder: string): string[] {
  return tree.names(folder).filter((name) => name.endsWith(".json")).map((name) => `${folder}/${name}`);
}

function goesOn(before: Members, digest: string, document: Signed, after: Members): boolean {
  if (after.over.includes(digest)) {
    const same = before.vault === after.vault && (before.names === null) === (after.names === null);
    return same && before.owners.some((owner) => document.isByKey(owner.sign));
  }
  try {
    requireFollows(before, digest, document);
  } catch (error) {
    if (error instanceof IntegrityError) {
      return false;
    }
    throw error;
  }
  return true;
}
