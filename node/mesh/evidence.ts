/**
 * Evidence about a disputed lease, on its way from a party to a drawn verifier: one request, one answer, and the stream
 * ends. The answer comes when everything is on the verifier's disk, so a party that has heard it may go away.
 */
import type { Network } from '../../market/ports.ts';
import { type Address, decodeAddress, encodeAddress } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { EvidenceAnswer, EvidenceRequest } from '../../protocol/molt.js';
import { STREAMS, decodeEvidenceAnswer, decodeEvidenceRequest, fromRefusal, toRefusal } from '../../protocol/wire.ts';

/** What a party hands in. Not verified yet where it comes from the network. */
export interface HandedIn {
  readonly lease: Address;
  /** Signed message, dag-cbor and DSSE JSON; none is empty. */
  readonly quote?: Uint8Array;
  readonly spec?: Uint8Array;
  readonly proof?: Uint8Array;
  /** Module and inputs are served to the verifier until it has answered. */
  readonly hasContent: boolean;
}

/** Who takes evidence in; resolves when it is kept, and throws a `MoltError` to refuse it. */
export type TakeEvidence = (from: Address, evidence: HandedIn, signal: AbortSignal) => Promise<void>;

/** The request is small and comes at once; the answer may wait for gigabytes of content. */
const REQUEST_MS = 20_000;

/**
 * Resolves when the verifier has all of it. Throws its refusal (`dispute/…`, `artifact/…`), `mesh/…`, and the signal's reason.
 */
async function handInEvidence(
  network: Network,
  verifier: Address,
  evidence: HandedIn,
  options: { readonly addresses: readonly string[]; readonly signal: AbortSignal },
): Promise<void> {
  const { addresses, signal } = options;
  const { maxFrameBytes, protocol } = STREAMS.evidence;
  const channel = await network.open(verifier, protocol, { addresses, maxFrameBytes, signal });
  const onAbort = (): void => channel.abort(new MoltError('node/stopped', 'the evidence is no longer handed in'));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const { lease, quote, spec, proof, hasContent } = evidence;
    const none = new Uint8Array();
    await channel.send(
      EvidenceRequest.encode({
        lease: decodeAddress(lease),
        quote: quote ?? none,
        spec: spec ?? none,
        proof: proof ?? none,
        hasContent,
      }),
    );
    for await (const frame of channel) {
      const { refused } = decodeEvidenceAnswer(frame);
      if (refused !== undefined) throw fromRefusal(refused);
      return;
    }
    throw new MoltError('mesh/closed', 'the verifier ended the stream without an answer');
  } finally {
    signal.removeEventListener('abort', onAbort);
    await channel.close().catch(() => undefined);
  }
}

/** A drawn verifier's node, and where it was last heard of. */
export interface DrawnNode {
  readonly node: Address;
  readonly addresses: readonly string[];
}

/**
 * Hands the same evidence to each of these verifiers at once, and gives back those who need not be asked again: they have
 * it, or have judged already. Those who could not be reached, or do not know of the draw yet, are asked later.
 */
export async function handInToAll(
  env: Env,
  round: { readonly network: Network; readonly verifiers: readonly DrawnNode[]; readonly evidence: HandedIn },
  signal: AbortSignal,
): Promise<readonly Address[]> {
  const { network, verifiers, evidence } = round;
  const handed = verifiers.map(async ({ node, addresses }) => {
    try {
      await handInEvidence(network, node, evidence, { addresses, signal });
      return [node];
    } catch (error) {
      if (hasCode(error, 'dispute/judged')) return [node];
      const { lease } = evidence;
      env.logger.log('debug', 'a verifier did not take the evidence yet', { lease, verifier: node, error });
      return [];
    }
  });
  return (await Promise.all(handed)).flat();
}

/** Takes evidence from whoever brings some, until disposed. */
export function serveEvidence(env: Env, network: Network, take: TakeEvidence): Promise<AsyncDisposable> {
  const { protocol, ...limits } = STREAMS.evidence;
  return network.handle(protocol, { ...limits, idleMs: REQUEST_MS }, async (channel) => {
    const gone = new AbortController();
    try {
      for await (const frame of channel) {
        try {
          await take(channel.remote, readRequest(frame), gone.signal);
          await channel.send(EvidenceAnswer.encode({}));
        } catch (error) {
          if (!(error instanceof MoltError) || error.code.startsWith('mesh/')) throw error;
          env.logger.log('debug', 'evidence refused', { remote: channel.remote, code: error.code });
          await channel.send(EvidenceAnswer.encode({ refused: toRefusal(error) }));
        }
        return;
      }
    } finally {
      gone.abort(new MoltError('mesh/closed', 'the party is gone'));
      await channel.close();
    }
  });
}

function readRequest(frame: Uint8Array): HandedIn {
  const { lease, quote, spec, proof, hasContent } = decodeEvidenceRequest(frame);
  if (lease.length !== 32) throw new MoltError('protocol/malformed', 'evidence names its lease with 32 bytes');
  return {
    lease: encodeAddress(lease),
    ...(quote.length === 0 ? {} : { quote }),
    ...(spec.length === 0 ? {} : { spec }),
    ...(proof.length === 0 ? {} : { proof }),
    hasContent,
  };
}
