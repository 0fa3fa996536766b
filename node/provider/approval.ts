/**
 * The owner's own check: a program that is asked before a quote is signed, and again before a job is taken.
 *
 * It gets one JSON object on standard input and nothing else: no shell, no arguments but those of the setting, an
 * environment without this process's. It approves by ending with exit code 0 and saying nothing, or with
 * `{"approve": true}`; it declines with another exit code or `{"approve": false, "reason": "…"}`, whose reason the buyer
 * is told. Whatever else happens, a program that is missing, too slow, killed or says something else, declines: what
 * cannot be checked is not taken. No more than a few run at once, and what comes on top of them is declined too.
 */
import { execFile } from 'node:child_process';

import { refusal } from '../../market/index.ts';
import { Deadline } from '../../protocol/deadline.ts';
import type { Env } from '../../protocol/env.ts';
import type { MoltError } from '../../protocol/errors.ts';
import type { JobSpec } from '../../protocol/job-spec.ts';
import type { Bid, Message, Quote } from '../../protocol/messages.ts';
import type { Tell } from '../events.ts';
import type { Agreement } from './job.ts';

export interface ApprovalOptions {
  /** Program and its arguments; empty: there is no check and everything is approved. */
  readonly command: readonly string[];
  readonly timeoutMs: number;
  /** Where programs are looked for. */
  readonly path: string;
  /** Hears why a check could not be made: the buyer is not told. */
  readonly tell: Tell;
}

/** Undefined: approved. Never rejects. */
export type Approve = (question: Question) => Promise<MoltError | undefined>;

/** What the program is told. Numbers of base units are decimal text. Nothing in it is a secret of the buyer's. */
export type Question = { readonly type: 'bid' | 'job' } & Readonly<Record<string, unknown>>;

/** Of a bid, and what would be quoted. */
export function bidQuestion({ id, signer, content: bid }: Message<Bid>, quote: Quote): Question {
  return {
    type: 'bid',
    bid: id,
    buyer: signer,
    runtime: bid.runtime,
    features: bid.features,
    region: bid.region,
    need: bid.need,
    durationSecondsMax: bid.durationSecondsMax,
    pricePerSecondMax: bid.pricePerSecondMax.toString(),
    pricePerSecond: quote.pricePerSecond.toString(),
    amount: quote.amount.toString(),
    reserve: quote.reserve.toString(),
  };
}

/** Of a job that was leased and did not begin: not its environment, its secrets or its inputs. */
export function jobQuestion({ lease, delegate, amount }: Agreement, spec: JobSpec): Question {
  return {
    type: 'job',
    lease,
    buyer: delegate,
    amount,
    runtime: spec.runtime,
    image: spec.image,
    need: spec.resources,
    durationSecondsMax: spec.maxDurationSeconds,
    egress: spec.network.egress,
    services: spec.services,
    sandbox: spec.sandbox,
  };
}

const CHECKS_MAX = 4;
const ANSWER_BYTES_MAX = 64 * 1024;
const REASON_CHARACTERS_MAX = 200;

export function createApproval(env: Env, { command, timeoutMs, path, tell }: ApprovalOptions): Approve {
  const [program, ...args] = command;
  if (program === undefined) return () => Promise.resolve(undefined);
  let running = 0;
  const fail = (why: string): MoltError => {
    tell({ type: 'trouble', what: 'approval', code: 'market/not-approved', reason: `${program} ${why}` });
    return refusal('market/not-approved', "the provider's own check could not be made; try again, or another provider");
  };
  return async (question) => {
    if (running >= CHECKS_MAX) {
      return refusal('market/not-approved', "the provider's own check is busy; try again, or another provider");
    }
    running++;
    const { promise, resolve } = Promise.withResolvers<MoltError | undefined>();
    using deadline = new Deadline(env.clock, timeoutMs);
    const child = execFile(
      program,
      args,
      { encoding: 'utf8', maxBuffer: ANSWER_BYTES_MAX, env: { LC_ALL: 'C.UTF-8', PATH: path }, windowsHide: true },
      (error, stdout) => {
        running--;
        resolve(verdictOf(error, stdout, fail));
      },
    );
    // A program that does not read its input breaks the pipe; its verdict counts all the same.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(`${JSON.stringify(question)}\n`);
    const onTimeUp = (): void => {
      child.kill('SIGKILL');
      resolve(fail(`did not answer in ${timeoutMs} ms`));
    };
    deadline.signal.addEventListener('abort', onTimeUp, { once: true });
    // Awaited here, so that the deadline lives as long as the question.
    return await promise;
  };
}

type Failure = (Error & { readonly code?: number | string | null; readonly signal?: string | null }) | null;

function verdictOf(error: Failure, stdout: string, fail: (why: string) => MoltError): MoltError | undefined {
  if (error !== null && typeof error.code !== 'number') return fail(`failed: ${error.message.split('\n')[0] ?? ''}`);
  const said = parseAnswer(stdout);
  if (error !== null) return declined(said === 'malformed' ? undefined : said.reason);
  if (said === 'malformed') return fail('said something that is no JSON object with "approve"');
  return said.approve ? undefined : declined(said.reason);
}

interface Answer {
  readonly approve: boolean;
  readonly reason?: string;
}

/** Silence approves. */
function parseAnswer(stdout: string): Answer | 'malformed' {
  if (stdout.trim() === '') return { approve: true };
  let value: unknown;
  try {
    value = JSON.parse(stdout);
  } catch {
    return 'malformed';
  }
  if (typeof value !== 'object' || value === null) return 'malformed';
  const { approve, reason } = value as { approve?: unknown; reason?: unknown };
  if (typeof approve !== 'boolean') return 'malformed';
  return { approve, ...(typeof reason === 'string' ? { reason } : {}) };
}

function declined(reason: string | undefined): MoltError {
  const text = (reason ?? '')
    .replaceAll(/\p{C}+/gu, ' ')
    .trim()
    .slice(0, REASON_CHARACTERS_MAX);
  return refusal('market/not-approved', `the provider's own check declined${text === '' ? '' : `: ${text}`}`);
}
