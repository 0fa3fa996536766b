/** Which names of files an artifact may have: those that mean the same single file on every system. */
import { MoltError } from '../../../protocol/errors.ts';

const NAME_BYTES_MAX = 255;

/** Why a path is refused: a name that is none or leaves its directory, … ; `context.reason` of the error. */
export type Hazard = 'name' | 'length' | 'characters' | 'encoding' | 'collision' | 'symlink' | 'special' | 'occupied';

/** The names in one directory. */
export class Names {
  readonly #directory: string;
  readonly #folded = new Set<string>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Throws `artifact/unsafe-path` for names that leave their directory, that systems read in different ways, or that are
   * one file with an earlier name where case or Unicode composition does not count.
   */
  add(name: string): void {
    checkName(name);
    const folded = name.normalize('NFC').toLowerCase();
    if (this.#folded.has(folded)) {
      throw unsafePath(`${this.#directory}/${name}`, 'collision', 'another entry has this name on some systems');
    }
    this.#folded.add(folded);
  }
}

function checkName(name: string): void {
  if (name === '' || name === '.' || name === '..') throw unsafePath(name, 'name', 'not a name of its own');
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw unsafePath(name, 'length', `longer than ${NAME_BYTES_MAX} bytes`);
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[/\\\u0000-\u001f\u007f]/.test(name))
    throw unsafePath(name, 'characters', 'with a slash, backslash or control character');
  if (!name.isWellFormed() || name.includes('\ufffd')) throw unsafePath(name, 'encoding', 'not valid UTF-8');
}

export function unsafePath(path: string, reason: Hazard, text: string): MoltError {
  const shown = JSON.stringify(path.slice(-100));
  return new MoltError(
    'artifact/unsafe-path',
    `an artifact holds plain files and directories; ${shown} is refused: ${text}`,
    { reason },
  );
}
