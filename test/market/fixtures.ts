/** Market messages for tests: real keys, real signatures, sensible content that a test changes where it wants. */
import { createHash } from 'node:crypto';

import { base58btc } from 'multiformats/bases/base58';

import type { SellerTerms } from '../../market/index.ts';
import { type Address, decodeAddress, encodeAddress } from '../../protocol/address.ts';
import type { Verified } from '../../protocol/brands.ts';
import { type KeyPair, keyPairFromSeed } from '../../protocol/ed25519.ts';
import { type Kind, decodeEnvelope, sealEnvelope, verifyEnvelope } from '../../protocol/envelope.ts';
import {
  type Bid,
  type Message,
  type Offer,
  type Quote,
  type Resources,
  decodeBid,
  decodeOffer,
  decodeQuote,
  encodeBid,
  encodeOffer,
  encodeQuote,
} from '../../protocol/messages.ts';
import { U64_MAX, baseUnits } from '../../protocol/units.ts';

export const NOW = 1_800_000_000_000;

const keys = new Map<string, KeyPair>();

/** The same one for the same name. Each is made once: that costs more than to sign with it. */
export function key(name: string): KeyPair {
  const made = keys.get(name) ?? keyPairFromSeed(new Uint8Array(createHash('sha256').update(name).digest()));
  keys.set(name, made);
  return made;
}

export function address(name: string): Address {
  return encodeAddress(new Uint8Array(createHash('sha256').update(`address ${name}`).digest()));
}

export const NETWORK = address('network');

export const SMALL: Resources = { cpuMillis: 1000, memoryBytes: 2 ** 30, diskBytes: 2 ** 30, gpus: [] };

export function multiaddrOf(signer: Address, port = 4001): string {
  const prefix = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);
  const peerId = base58btc.baseEncode(Buffer.concat([prefix, decodeAddress(signer)]));
  return `/ip4/127.0.0.1/tcp/${port}/p2p/${peerId}`;
}

export function offerContent(signer: KeyPair, changes: Partial<Offer> = {}): Offer {
  return {
    provider: address(`provider of ${signer.address}`),
    free: SMALL,
    runtimes: ['wasm'],
    features: [],
    hardwareTier: 'A0',
    prices: { base: baseUnits(1000n), perCpu: baseUnits(0n), perGib: baseUnits(0n), perGpu: baseUnits(0n) },
    speed: 100,
    speedMeasuredMs: NOW,
    region: '',
    durationSecondsMax: 3600,
    warm: [],
    addresses: [multiaddrOf(signer.address)],
    revoked: false,
    ...changes,
  };
}

export function bidContent(changes: Partial<Bid> = {}): Bid {
  return {
    need: SMALL,
    runtime: 'wasm',
    features: [],
    durationSecondsMax: 600,
    pricePerSecondMax: baseUnits(2_000_000n),
    stakeMin: baseUnits(0n),
    reserveMin: baseUnits(0n),
    region: '',
    distanceMax: U64_MAX,
    quotesWanted: 5,
    warm: '',
    addresses: [],
    finishByMs: 0,
    startByMs: 0,
    near: [],
    budget: address('budget'),
    windowMs: 0,
    hardwareTierMin: 'A0',
    ...changes,
  };
}

export function quoteContent(changes: Partial<Quote> = {}): Quote {
  return {
    bid: 'ab'.repeat(32),
    provider: address('provider'),
    pricePerSecond: baseUnits(1_000n),
    amount: baseUnits(600_000n),
    reserve: baseUnits(300_000n),
    openBeforeMs: NOW + 30_000,
    finishByMs: NOW + 750_000,
    graceMs: 60_000,
    windowMs: 60_000,
    speed: 100,
    warm: false,
    startByMs: 0,
    near: [],
    ...changes,
  };
}

/** What a provider with much stake knows when a buyer with much money asks; 1,000 base units a second, whatever the size. */
export const SELLER_TERMS: SellerTerms = {
  policy: {
    prices: { base: baseUnits(1_000n), perCpu: baseUnits(0n), perGib: baseUnits(0n), perGpu: baseUnits(0n) },
    durationSecondsMax: 3_600,
  },
  provider: {
    address: address('provider'),
    stake: baseUnits(10n ** 12n),
    freeStake: baseUnits(10n ** 12n),
    reserveBps: 1_000,
    minGraceMs: 60_000,
    minWindowMs: 60_000,
    maxLeaseMs: 86_400_000,
    runtimes: ['wasm'],
    features: [],
    region: '',
  },
  speed: 100,
  warm: [],
  chainNowMs: NOW,
  buyer: { budget: address('budget'), free: 10n ** 15n, capPerLease: 10n ** 15n, range: '', isKnown: true },
  hasRegulars: false,
};

export interface Header {
  readonly sequence?: number;
  readonly issuedMs?: number;
  readonly expiresMs?: number;
  readonly network?: Address;
}

/** The signed bytes of one message. */
export function seal(signer: KeyPair, kind: Kind, body: Uint8Array, header: Header = {}): Uint8Array {
  const issuedMs = header.issuedMs ?? NOW;
  const { sequence = 1, network = NETWORK, expiresMs = issuedMs + 20_000 } = header;
  return sealEnvelope(signer, kind, { network, sequence, issuedMs, expiresMs }, body).bytes;
}

export function offerBytes(signer: KeyPair, header: Header = {}, changes: Partial<Offer> = {}): Uint8Array {
  return seal(signer, 'offer', encodeOffer(offerContent(signer, changes)), header);
}

export function bidBytes(signer: KeyPair, header: Header = {}, changes: Partial<Bid> = {}): Uint8Array {
  return seal(signer, 'bid', encodeBid(bidContent(changes)), header);
}

export function verifiedOffer(
  signer: KeyPair,
  header: Header = {},
  changes: Partial<Offer> = {},
): Verified<Message<Offer>> {
  const bytes = offerBytes(signer, header, changes);
  const at = { network: NETWORK, nowMs: header.issuedMs ?? NOW };
  return verifyEnvelope(decodeOffer(decodeEnvelope('offer', bytes, at)));
}

export function verifiedBid(signer: KeyPair, changes: Partial<Bid> = {}): Verified<Message<Bid>> {
  return verifyEnvelope(
    decodeBid(decodeEnvelope('bid', bidBytes(signer, {}, changes), { network: NETWORK, nowMs: NOW })),
  );
}

export function verifiedQuote(signer: KeyPair, quote: Quote): Verified<Message<Quote>> {
  const bytes = seal(signer, 'quote', encodeQuote(quote));
  return verifyEnvelope(decodeQuote(decodeEnvelope('quote', bytes, { network: NETWORK, nowMs: NOW })));
}
