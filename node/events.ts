/** What a running node tells: one typed event per thing that happened. Logs, the terminal and tests subscribe to it. */
import type { Ground } from '../attestation/index.ts';
import type { Side } from '../chain/index.ts';
import type { Address } from '../protocol/address.ts';
import type { ErrorCode } from '../protocol/errors.ts';
import type { Machine } from './machine.ts';
import type { Way } from './mesh/index.ts';

export type NodeEvent =
  | { readonly type: 'listening'; readonly node: Address; readonly addresses: readonly string[] }
  /** How the world reaches this node, and by which addresses: now, and at every change. */
  | { readonly type: 'reachability'; readonly way: Way; readonly addresses: readonly string[] }
  | ({ readonly type: 'machine' } & Machine)
  | { readonly type: 'runtime'; readonly runtime: string; readonly available: boolean; readonly reason: string }
  | {
      readonly type: 'gpu';
      readonly id: string;
      readonly model: string;
      readonly memoryBytes: number;
      readonly offered: boolean;
      /** Why not, when it is not. */
      readonly reason: string;
    }
  /** A GPU that is sold went bad, or is well again (then without a reason). */
  | { readonly type: 'gpu-health'; readonly id: string; readonly well: boolean; readonly reason: string }
  | {
      readonly type: 'selling';
      readonly provider: Address;
      readonly cpuMillis: number;
      readonly memoryBytes: number;
      readonly speed: number;
    }
  /** The node takes nothing new, or takes work again. Told at start when it drains. */
  | { readonly type: 'draining'; readonly draining: boolean; readonly unfinished: number }
  | { readonly type: 'offer-published'; readonly sequence: number; readonly revoked: boolean }
  | { readonly type: 'offer-refused'; readonly code: ErrorCode; readonly reason: string }
  | { readonly type: 'bid-refused'; readonly code: ErrorCode; readonly reason: string }
  | { readonly type: 'bid-declined'; readonly bid: string; readonly code: ErrorCode; readonly reason: string }
  | { readonly type: 'quoted'; readonly bid: string; readonly quote: string; readonly pricePerSecond: bigint }
  | { readonly type: 'hold-released'; readonly quote: string; readonly reason: 'expired' | 'let-go' }
  | { readonly type: 'lease-accepted'; readonly lease: Address; readonly buyer: Address }
  | { readonly type: 'request-refused'; readonly from: Address; readonly code: ErrorCode; readonly reason: string }
  | { readonly type: 'job-phase'; readonly lease: Address; readonly phase: string; readonly attempt: number }
  | { readonly type: 'job-failed'; readonly lease: Address; readonly code: ErrorCode; readonly reason: string }
  | { readonly type: 'job-recovered'; readonly lease: Address; readonly phase: string; readonly adopted: boolean }
  | { readonly type: 'proof'; readonly lease: Address; readonly digest: string; readonly claimed: string }
  | { readonly type: 'claimed'; readonly lease: Address; readonly transaction: string }
  | { readonly type: 'refunded'; readonly lease: Address; readonly transaction: string }
  | { readonly type: 'settled-alone'; readonly lease: Address; readonly transaction: string }
  | { readonly type: 'lease-closed'; readonly lease: Address }
  /** This provider's account was drawn to judge a dispute, and has a vote to give until then, chain time. */
  | { readonly type: 'seat-drawn'; readonly lease: Address; readonly voteUntilMs: number }
  | {
      readonly type: 'evidence-taken';
      readonly lease: Address;
      readonly from: 'buyer' | 'provider';
      /** Module and inputs came as well. */
      readonly content: boolean;
    }
  | {
      readonly type: 'dispute-judged';
      readonly lease: Address;
      readonly side: Side;
      readonly ground: Ground;
      readonly reason: string;
    }
  | { readonly type: 'vote-committed'; readonly lease: Address; readonly transaction: string }
  | { readonly type: 'vote-revealed'; readonly lease: Address; readonly side: Side; readonly transaction: string }
  /** A dispute in which this node had a seat has ended; `side` is how it voted. */
  | {
      readonly type: 'dispute-over';
      readonly lease: Address;
      readonly ending: string;
      readonly side: Side | undefined;
    }
  | { readonly type: 'trouble'; readonly what: string; readonly code: ErrorCode; readonly reason: string };

export type Tell = (event: NodeEvent) => void;
