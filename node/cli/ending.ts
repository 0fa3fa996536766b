/**
 * How a command ends: done, with an error that is told, or by a signal.
 *
 * Exit codes: 0 done, 1 failed with a code of the catalogue, 2 the command line is not understood, 130 stopped by Ctrl-C.
 */
import { CommanderError } from 'commander';

import { AssertionError, MoltError, hasCode } from '../../protocol/errors.ts';
import { Interrupted } from './command.ts';
import type { Terminal } from './terminal.ts';

export interface Interruption {
  readonly came: boolean;
  /** Asking for the signal promises to act on it. */
  signal(): AbortSignal;
}

/** The first Ctrl-C or SIGTERM asks a command that has something to end properly; any other ends the process. */
export function listenForSignals(): Interruption {
  const controller = new AbortController();
  let promised = false;
  const onSignal = (): void => {
    if (!promised || controller.signal.aborted) process.exit(130);
    controller.abort(new Interrupted('stopped by a signal'));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    get came() {
      return controller.signal.aborted;
    },
    signal: () => {
      promised = true;
      return controller.signal;
    },
  };
}

/** Says what went wrong; the exit code. `interrupted`: Ctrl-C came, and a cancelled job is then what was asked for. */
export function reportEnd(
  error: unknown,
  terminal: Terminal,
  { json, interrupted }: { readonly json: boolean; readonly interrupted: boolean },
): number {
  const tell = (told: object, ...lines: readonly string[]): void =>
    terminal.err(json ? JSON.stringify({ error: told }) : `${terminal.style('red', '✖')} ${lines.join('\n')}`);
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    const usage = new MoltError('config/usage', error.message.replace(/^error: /, ''));
    tell(usage, usage.message, '  molt --help lists the commands');
    return 2;
  }
  if (error instanceof Interrupted) return 130;
  if (error instanceof MoltError) {
    tell(error, error.message, `  ${error.code}`);
    if (error.code === 'config/usage') return 2;
    return interrupted && hasCode(error, 'job/cancelled', 'node/stopped') ? 130 : 1;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const what = error instanceof AssertionError ? 'an invariant of this program broke' : 'an unexpected error';
  tell({ code: 'defect', message: text }, `${what}; please report it`, text);
  return 1;
}
