/** A typed no, with the number that would have been a yes where there is one. */
import { type ErrorCode, MoltError } from '../protocol/errors.ts';

/**
 * `enough`: of the term that is refused, the value that would have been taken: base units a second for a price, base units
 * for an amount or a stake, seconds for a duration. It travels with the refusal (protocol/wire.ts), and `explain` adds up
 * what it finds there.
 */
export function refusal(code: ErrorCode, message: string, enough?: bigint): MoltError {
  return new MoltError(code, message, enough === undefined ? {} : { enough: enough.toString() });
}
