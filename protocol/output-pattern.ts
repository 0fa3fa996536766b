/**
 * Patterns in the paths of outputs: `*` is any run of characters within one name, `?` one character, and `**` as a whole
 * name any number of directories, also none. A name that starts with a dot is a name like any other.
 *
 * Matching takes time in proportion to the lengths of pattern and path, whatever the pattern: both come from strangers.
 */

/** True when an output's path names whatever matches it, rather than one file or folder. */
export function isOutputPattern(path: string): boolean {
  return /[*?]/.test(path);
}

/** Whether a file's path below /out, with forward slashes, matches. */
export function matchesOutputPattern(pattern: string, path: string): boolean {
  return matchesRun(pattern.split('/'), path.split('/'), {
    isWild: (part) => part === '**',
    matches: (part, name) => matchesRun(Array.from(part), Array.from(name), NAME_RULE),
  });
}

interface Rule {
  /** Stands for any run of items. */
  readonly isWild: (part: string) => boolean;
  readonly matches: (part: string, item: string) => boolean;
}

const NAME_RULE: Rule = {
  isWild: (part) => part === '*',
  matches: (part, character) => part === '?' || part === character,
};

/** Greedy with one place to come back to, the last wild part: an earlier one never has to take more. */
function matchesRun(parts: readonly string[], items: readonly string[], rule: Rule): boolean {
  let part = 0;
  let item = 0;
  let back: { readonly part: number; item: number } | undefined;
  while (item < items.length) {
    const current = parts[part];
    if (current !== undefined && rule.isWild(current)) {
      back = { part: ++part, item };
    } else if (current !== undefined && rule.matches(current, items[item] ?? '')) {
      part++;
      item++;
    } else if (back !== undefined) {
      part = back.part;
      item = ++back.item;
    } else return false;
  }
  return parts.slice(part).every((rest) => rule.isWild(rest));
}
