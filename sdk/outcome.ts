/** How the end of a run reads: a result, or an error that has the result with it. */
import { type ErrorCode, MoltError } from '../protocol/errors.ts';
import type { RunOptions } from './options.ts';
import type { JobResult } from './progress.ts';

/** The program ended, and not well. `result` has everything; the job was paid. */
export class JobFailedError extends MoltError {
  readonly result: JobResult;

  constructor(code: ErrorCode, message: string, result: JobResult) {
    super(code, message, { exitCode: result.exitCode, reason: result.reason, lease: result.lease });
    this.result = result;
  }
}

/** How an end of a run reads as an error. */
const EXIT_CODES: Readonly<Record<string, ErrorCode>> = {
  'out-of-memory': 'job/out-of-memory',
  'out-of-fuel': 'job/out-of-fuel',
  'stack-overflow': 'job/stack-overflow',
  'timed-out': 'job/timed-out',
  cancelled: 'job/cancelled',
  'output-too-large': 'job/output-too-large',
  'output-missing': 'job/output-missing',
  signalled: 'job/crashed',
  crashed: 'job/crashed',
  'never-ready': 'job/never-ready',
};

/** What a cancelled job comes to, of one provider or of several. */
export const CANCELLED = 'the job was cancelled; what ran is paid, the rest is back in the budget';

/** The result, or `JobFailedError` where the program did not end well and that is not allowed. */
export function checked(result: JobResult, options: RunOptions, signal: AbortSignal): JobResult {
  if (result.reason === 'cancelled' || signal.aborted) {
    throw new JobFailedError('job/cancelled', CANCELLED, result);
  }
  if (options.allowFailure === true || (result.reason === 'exited' && result.exitCode === 0)) return result;
  const code = EXIT_CODES[result.reason] ?? 'job/failed';
  const tail = result.stderr.trim().split('\n').slice(-3).join('\n');
  const what =
    result.reason === 'exited'
      ? `the program ended with exit code ${result.exitCode}`
      : `the run ended with "${result.reason}"`;
  throw new JobFailedError(code, `${what}${tail === '' ? '' : `; it said last:\n${tail}`}`, result);
}
