/**
 * Every bound of the protocol in one place, with its reason. A bound that a peer can break is checked where the bytes
 * arrive; a bound of our own making is asserted where they leave.
 */

const KIB = 1024;
const MIB = 1024 * KIB;

export const LIMITS = {
  /** Gossip multiplies bytes by the mesh degree, so offers are kept under one MTU-sized packet. */
  offerBytes: 512,
  bidBytes: 1 * KIB,
  quoteBytes: 1 * KIB,
  /** Frames of the lease stream: a JobSpec or a proof is the largest thing in one. */
  leaseFrameBytes: 1 * MIB,
  bidAnswerFrameBytes: 2 * KIB,
  offersFrameBytes: 1 * KIB,
  specBytes: 256 * KIB,
  proofBytes: 256 * KIB,
  secretBytes: 64 * KIB,
  secrets: 16,
  /** One block and its frame. */
  artifactBlockBytes: 1 * MIB,
  artifactFrameBytes: 2 * MIB,
  /** Files and directories of one artifact. The list of one directory is held in memory. */
  artifactEntries: 100_000,
  /** How far clocks of peers may differ, both ways. */
  clockPastMs: 60_000,
  clockFutureMs: 10_000,
  offerLifetimeMs: 60_000,
  bidLifetimeMs: 30_000,
  quoteLifetimeMs: 30_000,
  addressesPerMessage: 3,
  addressBytes: 96,
  /** As many as fit beside two addresses and a region; with GPUs fewer are sent. */
  warmPerOffer: 8,
  nearPerBid: 4,
  gpuKindsPerMessage: 4,
  gpusPerKind: 64,
  gpusPerJob: 256,
  regionCharacters: 12,
  modelCharacters: 40,
  quotesWanted: 20,
  /** One lease lasts at most this long; services renew. */
  leaseSeconds: 14 * 24 * 3600,
  logChunkBytes: 32 * KIB,
  logBytes: 16 * MIB,
  inputs: 64,
  outputs: 64,
  egressRules: 16,
  services: 8,
  /** Bytes of a forwarded connection in one frame. */
  forwardFrameBytes: 64 * KIB,
  /** Quote, specification and proof of a disputed lease. */
  evidenceFrameBytes: 1 * MIB,
  refusalCharacters: 600,
  /** On a followed lease stream a provider says at least this often that it is there; one that misses three is gone. */
  heartbeatMs: 2_000,
} as const;
