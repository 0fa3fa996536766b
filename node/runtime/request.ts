/**
 * What every runtime refuses before it touches anything: requests that cannot be, whoever asks.
 */
import { MoltError } from '../../protocol/errors.ts';
import type { Feature } from '../../protocol/messages.ts';
import type { RunRequest } from './runtime.ts';

const ARGUMENTS_MAX = 1024;
const TEXT_BYTES_MAX = 128 * 1024;

function impossible(what: string): MoltError {
  return new MoltError('job/impossible', `the run cannot be started: ${what}`, { what });
}

/**
 * Throws `job/impossible` naming the first part of the request that is outside its bounds, or that needs a feature which
 * is not among `features`.
 */
export function checkRequest(request: RunRequest, features: readonly Feature[]): void {
  const { attemptId, command, environment, limits, randomSeed } = request;
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(attemptId)) throw impossible('an attempt id has 1 to 64 of A-Z a-z 0-9 _ -');
  const texts = [...command, ...Object.entries(environment).flat()];
  if (texts.length > ARGUMENTS_MAX) throw impossible(`at most ${ARGUMENTS_MAX} arguments and variables are passed`);
  if (texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0) > TEXT_BYTES_MAX) {
    throw impossible(`arguments and variables have at most ${TEXT_BYTES_MAX} bytes`);
  }
  if (texts.some((text) => text.includes('\0'))) throw impossible('arguments and variables have no NUL');
  for (const name of Object.keys(environment)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) throw impossible(`"${name}" is not the name of a variable`);
  }
  for (const [name, value] of Object.entries(limits)) {
    const valid = typeof value === 'bigint' ? value >= 0n : Number.isFinite(value) && value >= 0;
    if (!valid) throw impossible(`limit ${name} is ${value}`);
  }
  if (limits.cpus <= 0 || limits.durationMs <= 0) throw impossible('cpus and durationMs are above zero');
  const asked: readonly (readonly [boolean, Feature])[] = [
    [(request.egress ?? []).length > 0, 'egress'],
    [(request.services ?? []).length > 0, 'services'],
    [request.sandbox === true, 'sandbox'],
  ];
  for (const [needed, feature] of asked) {
    if (needed && !features.includes(feature)) throw impossible(`this runtime does not offer ${feature} here`);
  }
  if (randomSeed.length !== 32) throw impossible(`the random seed has 32 bytes, not ${randomSeed.length}`);
}
