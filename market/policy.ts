/**
 * A provider's policy: whom it serves, with what, when, and from which size on. Pure: each rule is a function from what is
 * known to a refusal or nothing, and every refusal has a code of its own.
 *
 * A bid does not say which image it is for, only the beginning of a digest over its whole name; rules that name an image
 * whole are applied to the bid already, all of them again to the specification, before anything of it runs.
 */
import type { Address } from '../protocol/address.ts';
import type { MoltError } from '../protocol/errors.ts';
import { warmPrefix } from '../protocol/job-spec.ts';
import type { Bid, Message, RuntimeKind } from '../protocol/messages.ts';
import { formatMolt } from '../protocol/units.ts';
import type { Blackouts } from './blackout.ts';
import type { PricePolicy } from './price.ts';
import { refusal } from './refusal.ts';

export interface SellingPolicy extends PricePolicy {
  /** Longest job that is leased. */
  readonly durationSecondsMax: number;
  /** A lease must lock at least this, base units. Default 0. */
  readonly leaseAmountMin?: bigint;
  /** Node keys of buyers that get quotes; empty or absent: everybody. */
  readonly allowedBuyers?: readonly Address[];
  /** Node keys of buyers that get none, also where they are allowed. */
  readonly blockedBuyers?: readonly Address[];
  readonly images?: ImageRules;
  readonly blackouts?: Blackouts;
  /** Soonest start that is promised. Default: START_PROMISES. */
  readonly starts?: StartPromises;
}

/** Seconds from a quote to the start of its job that the provider promises to keep to. */
export interface StartPromises {
  /** With the image or module at hand. */
  readonly warmSeconds: number;
  /** With everything still to be fetched. */
  readonly coldSeconds: number;
}

/** The buyer takes some seconds to choose and the chain some to confirm, whatever the machine has at hand. */
const START_PROMISES: StartPromises = { warmSeconds: 10, coldSeconds: 60 };

/** Which images and modules may run. */
export interface ImageRules {
  /** Empty: all. */
  readonly allowed: readonly ImageRule[];
  /** Also where they are allowed. */
  readonly blocked: readonly ImageRule[];
}

interface ImageRule {
  readonly text: string;
  /** As bids name an image, where the rule names one whole; else undefined. */
  readonly prefix: string | undefined;
}

/**
 * A rule is the CID of a module, an image with its digest (`ghcr.io/acme/tool@sha256:…`), an image without (every digest of
 * it), a digest alone (`sha256:…`, in every registry), or a beginning with a star (`ghcr.io/acme/*`).
 */
export function imageRules(allowed: readonly string[], blocked: readonly string[]): ImageRules {
  const parse = (text: string): ImageRule => {
    const isWhole = !text.endsWith('*') && (text.includes('@') || /^baf[a-z2-7]{20,}$/.test(text));
    return { text, prefix: isWhole ? warmPrefix(text) : undefined };
  };
  return { allowed: allowed.map(parse), blocked: blocked.map(parse) };
}

/** `market/image-refused`, or nothing, for the image or module of a specification. */
export function imageRefusal({ images }: SellingPolicy, image: string): MoltError | undefined {
  if (images === undefined) return undefined;
  const names = ({ text }: ImageRule): boolean => covers(text, image);
  if (images.blocked.some(names)) return refusal('market/image-refused', `the provider does not run ${image}`);
  if (images.allowed.length === 0 || images.allowed.some(names)) return undefined;
  return refusal('market/image-refused', `the provider runs chosen images only, and ${image} is none of them`);
}

function covers(rule: string, image: string): boolean {
  if (rule.endsWith('*')) return image.startsWith(rule.slice(0, -1));
  const at = image.indexOf('@');
  return rule === image || (at !== -1 && (rule === image.slice(0, at) || rule === image.slice(at + 1)));
}

/** What a bid gives away of its image is enough to refuse it where a rule names the image whole. */
function imageRefusalOfBid({ images }: SellingPolicy, warm: string, runtime: RuntimeKind): MoltError | undefined {
  if (images === undefined || warm === '') return undefined;
  const names = ({ prefix }: ImageRule): boolean => prefix === warm;
  if (images.blocked.some(names)) return refusal('market/image-refused', 'the provider does not run this image');
  const isTold = images.allowed.every(({ text, prefix }) =>
    runtime === 'wasm' ? !text.endsWith('*') : prefix !== undefined,
  );
  if (images.allowed.length === 0 || !isTold || images.allowed.some(names)) return undefined;
  return refusal('market/image-refused', 'the provider runs chosen images only, and this is none of them');
}

/** What speaks against the buyer or the image of a bid, before anything is looked at that costs time. */
export function partnerRefusal(policy: SellingPolicy, bid: Message<Bid>): MoltError | undefined {
  const { allowedBuyers = [], blockedBuyers = [] } = policy;
  if (blockedBuyers.includes(bid.signer)) {
    return refusal('market/buyer-refused', 'the provider does not serve this buyer');
  }
  if (allowedBuyers.length > 0 && !allowedBuyers.includes(bid.signer)) {
    return refusal('market/buyer-refused', 'the provider serves chosen buyers only, and this is none of them');
  }
  return imageRefusalOfBid(policy, bid.content.warm, bid.content.runtime);
}

/**
 * `market/duration-too-long` and `market/closed`. `overheadMs` is what a lease may last beyond the job itself; hours are
 * of the wall clock.
 */
export function timeRefusal(
  policy: SellingPolicy,
  durationSeconds: number,
  at: { readonly nowMs: number; readonly overheadMs: number },
): MoltError | undefined {
  const longest = policy.durationSecondsMax;
  if (durationSeconds > longest) {
    return refusal(
      'market/duration-too-long',
      `the job may run ${durationSeconds} s, the provider leases at most ${longest} s`,
      BigInt(longest),
    );
  }
  const next = policy.blackouts?.next(at.nowMs, at.nowMs + durationSeconds * 1000 + at.overheadMs);
  if (next === undefined) return undefined;
  const left = Math.min(Math.floor((next.inMs - at.overheadMs) / 1000), durationSeconds - 1);
  if (left < 1) return refusal('market/closed', `the provider sells nothing now: it is closed at ${next.text}`);
  return refusal(
    'market/closed',
    `the job may run ${durationSeconds} s, the provider closes at ${next.text}, which leaves ${left} s`,
    BigInt(left),
  );
}

/** `market/start-too-late`. Both times are Unix ms; `startByMs` 0 asks for nothing. */
export function startRefusal(
  { starts = START_PROMISES }: SellingPolicy,
  startByMs: number,
  at: { readonly nowMs: number; readonly warm: boolean },
): MoltError | undefined {
  if (startByMs === 0) return undefined;
  const seconds = at.warm ? starts.warmSeconds : starts.coldSeconds;
  const leftMs = startByMs - at.nowMs;
  if (leftMs >= seconds * 1000) return undefined;
  return refusal(
    'market/start-too-late',
    `the bid wants the job begun in ${Math.max(0, leftMs) / 1000} s, the provider promises ${seconds} s where ${at.warm ? 'the image is at hand' : 'the image is still to be fetched'}`,
    BigInt(seconds),
  );
}

/** `market/lease-too-small`. */
export function sizeRefusal({ leaseAmountMin = 0n }: SellingPolicy, amount: bigint): MoltError | undefined {
  if (amount >= leaseAmountMin) return undefined;
  return refusal(
    'market/lease-too-small',
    `the lease would lock ${formatMolt(amount)}, the provider takes none below ${formatMolt(leaseAmountMin)}`,
    leaseAmountMin,
  );
}
