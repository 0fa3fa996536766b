/** Which names of files an artifact may have: those that mean the same single file on every system. */
import { MoltError } from '../../../protocol/errors.ts';

const NAME_BYTES_MAX = 255;

/** Throws `artifact/unsafe-path` for names that leave their directory or that systems read in different ways. */
export function checkName(name: string): void {
  if (name === '' || name === '.' || name === '..') throw unsafePath(name, 'not a name of its own');
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw unsafePath(name, `longer than ${NAME_BYTES_MAX} bytes`);
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[/\\\u0000-\u001f\u007f]/.test(name)) throw unsafePath(name, 'with a slash, backslash or control character');
  if (!name.isWellFormed() || name.includes('\ufffd')) throw unsafePath(name, 'not valid UTF-8');
}

export function unsafePath(path: string, reason: string): MoltError {
  const shown = JSON.stringify(path.slice(-100));
  return new MoltError(
    'artifact/unsafe-path',
    `an artifact holds plain files and directories; ${shown} is refused: ${reason}`,
  );
}
