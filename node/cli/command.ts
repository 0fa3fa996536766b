/**
 * What every command gets: terminal, environment, home and the wish to stop.
 */
import { readFile } from 'node:fs/promises';

import { MoltError } from '../../protocol/errors.ts';
import type { Env } from '../../protocol/env.ts';
import { type JobSpec, parseJobSpec } from '../../protocol/job-spec.ts';
import { type LoadedSettings, type Settings, type SettingsLayers, mergeSettings, readConfigFile } from '../config.ts';
import { type Home, homeAt } from '../home.ts';
import { toJson } from './job-line.ts';
import type { Terminal } from './terminal.ts';

export interface CommandContext {
  readonly env: Env;
  readonly terminal: Terminal;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Machine-readable output was asked for. */
  readonly json: boolean;
  readonly home: Home;
  /** Aborts at the first Ctrl-C or SIGTERM; who never reads it is ended by that first one. */
  readonly signal: AbortSignal;
  /** The process ends with exit code 1, though what was asked for was done and printed. */
  failed(): void;
  /** Where passphrases are read from instead of the terminal. */
  readonly passphraseFd?: number | undefined;
}

/** The reason of `CommandContext.signal`, so that a stop that was asked for is not reported as a failure. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** `--home`, else MOLT_HOME, else ~/.molt. */
export function chooseHome(flag: string | undefined, environment: Readonly<Record<string, string | undefined>>): Home {
  const named = environment['MOLT_HOME'];
  return homeAt(flag ?? (named === '' ? undefined : named));
}

/** Parses `--passphrase-fd`. Throws `config/usage`. */
export function parseDescriptor(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw new MoltError('config/usage', `--passphrase-fd is "${text}", expected the number of an open file descriptor`);
}

/** Settings of this command: flags over environment over config.json over defaults. */
export async function loadSettings(
  context: CommandContext,
  flags: SettingsLayers['flags'] = {},
): Promise<LoadedSettings> {
  const file = await readConfigFile(context.home.config);
  return mergeSettings({ flags, environment: context.environment, file });
}

/** The budget and endpoint a buyer needs. Throws `config/invalid` with the command that makes them. */
export function requireBudget(context: CommandContext, settings: Settings): string {
  if (settings.budget !== null) return settings.budget;
  throw new MoltError(
    'config/invalid',
    `no budget is set in ${context.home.directory}; run: ${moltCommand()} init --role buyer --home ${context.home.directory}`,
    { key: 'budget' },
  );
}

/** A job specification from a JSON file. Throws `config/usage` when unreadable, `protocol/invalid-spec` when refused. */
export async function readSpec(path: string): Promise<JobSpec> {
  return parseJobSpec(await readJson(path));
}

/** JSON from a file that the user named. Throws `config/usage`. */
export async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new MoltError(
      'config/usage',
      `${path} cannot be read as JSON: ${(cause as Error).message}`,
      { path },
      { cause },
    );
  }
}

/** Prints a result: one JSON object with `--json`, else the lines. */
export function printResult(context: CommandContext, value: object, lines: readonly string[]): void {
  if (context.json) context.terminal.out(toJson(value));
  else for (const line of lines) context.terminal.out(line);
}

/** Resolves when the signal aborts. */
export function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Resolves at the first Ctrl-C or SIGTERM or, when asked, once standard input ends: then the parent process is gone. */
export async function untilStopped(context: CommandContext, untilStdinEnds: boolean): Promise<void> {
  const ends = [whenAborted(context.signal)];
  if (untilStdinEnds) {
    ends.push(
      new Promise((resolve) => {
        process.stdin.once('end', resolve).once('close', resolve).once('error', resolve).resume();
      }),
    );
  }
  await Promise.race(ends);
}

/** How the reader starts this program: in a checkout through npm, which brings the right Node. */
export function moltCommand(): string {
  return import.meta.url.endsWith('.ts') ? 'npm run molt --' : 'molt';
}
