/**
 * The verifier: a provider's duty to judge disputes. `duty.ts` says what is to be done, `cases.ts` remembers it, `rerun.ts`
 * runs a disputed job again, and `verifier.ts` puts them together. Who is right is decided by attestation/judge.ts.
 */
export { Cases, type DisputeSummary, summariseCases } from './cases.ts';
export { Verifier } from './verifier.ts';
