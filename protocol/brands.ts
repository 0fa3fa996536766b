/**
 * Types that carry proof that a check was made. Each is minted by one cast, in the file that made the check:
 * `Verified` by protocol/envelope.ts, `FundedLease` by chain/, `VerifiedProof` by attestation/. So running a job before
 * its lease is funded, or paying before its proof is verified, does not compile.
 */
declare const verified: unique symbol;
declare const funded: unique symbol;
declare const proven: unique symbol;

/** A message whose signature, network, expiry and limits were checked. */
export type Verified<Message> = Message & { readonly [verified]: true };

/** A lease that is on chain, RUNNING, and carries exactly the agreed terms. */
export type FundedLease<Lease> = Lease & { readonly [funded]: true };

/** A proof whose signature and binding to lease, spec, image and outputs were checked. */
export type VerifiedProof<Proof> = Proof & { readonly [proven]: true };
