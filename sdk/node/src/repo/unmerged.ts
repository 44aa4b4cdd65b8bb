/** The next step for a file that cannot be read: a merge by git alone leaves the lines of both sides in it. */

const MARKS = ["\n<<<<<<< ", "\n=======\n", "\n>>>>>>> "];
const RESTORE = "restore it from its history";
const ABORT =
  "git has put the lines of two sides into it: git merge --abort, or git rebase --abort, then: keyhole repo pull";

/** What to do about a file with these bytes. */
export function nextStep(data: Uint8Array): string {
  const text = `\n${Buffer.from(data).toString("latin1")}`;
  return MARKS.every((mark) => text.includes(mark)) ? ABORT : RESTORE;
}
