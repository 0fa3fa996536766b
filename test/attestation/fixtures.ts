/** One honest proof, and the means to forge others with real signatures. */
import { createHash } from 'node:crypto';

import { type ProofFacts, makeProof } from '../../attestation/index.ts';
import { PAYLOAD_TYPE, preAuthenticationEncoding, sealDsse } from '../../attestation/dsse.ts';
import { type Address, encodeAddress } from '../../protocol/address.ts';
import { type KeyPair, keyPairFromSeed } from '../../protocol/ed25519.ts';
import type { UsageSample } from '../../protocol/usage.ts';
import { createTranscript } from '../../attestation/index.ts';

export function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

export function key(name: string): KeyPair {
  return keyPairFromSeed(new Uint8Array(Buffer.from(digestOf(name), 'hex')));
}

export function address(name: string): Address {
  return encodeAddress(new Uint8Array(Buffer.from(digestOf(`address ${name}`), 'hex')));
}

export const operator = key('operator');
export const CID_A = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
export const CID_B = 'bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e';

/** A sample of a run that had nothing but a processor and memory. */
export function usage(sample: Pick<UsageSample, 'elapsedMs' | 'cpuMs' | 'memoryBytes'>): UsageSample {
  const none = { networkRxBytes: 0, networkTxBytes: 0, blockReadBytes: 0, blockWriteBytes: 0 };
  return { ...none, gpuPercent: 0, gpuMemoryBytes: 0, ...sample };
}

const subject = { network: address('network'), lease: address('lease'), attempt: 1, specDigest: digestOf('spec') };
const transcript = createTranscript(subject);
transcript.log('stdout', Buffer.from('hello\n'));
transcript.log('stderr', Buffer.from('warning\n'));
transcript.sample(usage({ elapsedMs: 1_000, cpuMs: 900, memoryBytes: 50_000_000 }));
transcript.sample(usage({ elapsedMs: 2_000, cpuMs: 1_800, memoryBytes: 60_000_000 }));

/** What a buyer who followed the job has. */
export const SUMMARY = transcript.finish();

export const FACTS: ProofFacts = {
  ...subject,
  termsDigest: digestOf('terms'),
  budget: address('budget'),
  buyer: address('buyer'),
  provider: address('provider'),
  operator: operator.address,
  runtime: { kind: 'wasm', version: '0.1.0' },
  image: { reference: CID_A },
  inputs: [
    { path: 'data.csv', cid: CID_A },
    { path: 'more/data.csv', cid: CID_B },
  ],
  outputs: [{ name: 'report', path: 'report.json', cid: CID_B, sha256: digestOf('report'), sizeBytes: 1234 }],
  exit: { reason: 'exited', exitCode: 0, detail: 'the program ended' },
  startedAtMs: 1_800_000_000_000,
  finishedAtMs: 1_800_000_002_600,
  billedMs: 2_500,
  pricePerSecond: '1000000',
  locked: '600000000',
  claimed: '2500000',
  usage: { cpuMs: 2_400, memoryPeakBytes: 64_000_000, fuel: '123456789' },
  logs: { root: SUMMARY.logRoot, leaves: 2, stdoutBytes: 6, stderrBytes: 8, stdoutSha256: SUMMARY.stdoutSha256 },
  metering: { head: SUMMARY.meterHead, samples: 2 },
  software: '0.1.0',
  chain: { slot: '77', blockhash: address('blockhash') },
};

export const HONEST = makeProof({ signer: operator, facts: FACTS });

/** The payload of an envelope as text. */
export function payloadOf(envelope: Uint8Array): string {
  const { payload } = JSON.parse(Buffer.from(envelope).toString('utf8')) as { payload: string };
  return Buffer.from(payload, 'base64').toString('utf8');
}

/** An envelope over any payload, signed by the operator or somebody else: what a lying provider can make. */
export function sealText(payload: string, signer: KeyPair = operator): Uint8Array {
  return sealDsse(signer, Buffer.from(payload, 'utf8'));
}

/** An envelope with other members, its signature kept. */
export function rewrap(envelope: Uint8Array, changes: Readonly<Record<string, unknown>>): Uint8Array {
  const parsed = JSON.parse(Buffer.from(envelope).toString('utf8')) as Record<string, unknown>;
  return new Uint8Array(Buffer.from(JSON.stringify({ ...parsed, ...changes }), 'utf8'));
}

export { PAYLOAD_TYPE, preAuthenticationEncoding };
