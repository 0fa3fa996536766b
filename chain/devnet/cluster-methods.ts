/**
 * JSON-RPC methods about time and the cluster, which here is one node that leads every slot and pays no inflation.
 *
 * The slot under way is `processed`; the one before it is complete and therefore confirmed and finalized.
 */
import { z } from 'zod';

import { BLOCKHASH_SLOTS, type Ledger } from './ledger.ts';
import {
  CODES,
  RpcError,
  SOLANA_VERSION,
  address,
  invalid,
  options,
  parse,
  slotNumber,
  withContext,
  type Methods,
} from './rpc.ts';
import { feeOf, messageOf, parseTransaction } from './transaction.ts';

const SLOTS_PER_EPOCH = 432_000;
const LEADERS_MAX = 5_000;

/** The newest slot of the commitment that the caller names; finalized when none, as everywhere in Solana's RPC. */
function slotOf(ledger: Ledger, params: readonly unknown[]): number {
  const [given] = parse(params, options);
  return given?.commitment === 'processed' ? ledger.slot() : ledger.slot() - 1;
}

function feeForMessage(ledger: Ledger, text: string): unknown {
  const message = Buffer.from(text, 'base64');
  const count = ((message[0] ?? 0) & 0x80 ? message[1] : message[0]) ?? 0;
  try {
    const wire = Buffer.concat([Buffer.from([count]), Buffer.alloc(64 * count), message]);
    const transaction = parseTransaction(wire);
    if (messageOf(transaction).length !== message.length) throw invalid('not a message');
    // A fee is quoted only while the blockhash is good.
    if (!ledger.isBlockhashValid(transaction.blockhash)) return null;
    return feeOf(transaction);
  } catch {
    throw invalid('invalid base64 encoding, or not a message');
  }
}

export const CLUSTER_METHODS: Methods = {
  getHealth: () => 'ok',
  getVersion: () => ({ 'solana-core': SOLANA_VERSION, 'feature-set': 0 }),
  getGenesisHash: ({ ledger }) => ledger.genesis,
  getIdentity: ({ ledger }) => ({ identity: ledger.faucet.address }),
  getSlot: ({ ledger }, params) => slotOf(ledger, params),
  getBlockHeight: ({ ledger }, params) => slotOf(ledger, params),
  getMaxRetransmitSlot: ({ ledger }) => ledger.slot(),
  getMaxShredInsertSlot: ({ ledger }) => ledger.slot(),
  getFirstAvailableBlock: ({ ledger }) => ledger.history.firstSlot(),
  minimumLedgerSlot: ({ ledger }) => ledger.history.firstSlot(),
  getTransactionCount: ({ ledger }) => ledger.transactionCount,
  getEpochInfo: ({ ledger }, params) => {
    const slot = slotOf(ledger, params);
    return {
      absoluteSlot: slot,
      blockHeight: slot,
      epoch: Math.floor(slot / SLOTS_PER_EPOCH),
      slotIndex: slot % SLOTS_PER_EPOCH,
      slotsInEpoch: SLOTS_PER_EPOCH,
      transactionCount: ledger.transactionCount,
    };
  },
  getEpochSchedule: () => ({
    slotsPerEpoch: SLOTS_PER_EPOCH,
    leaderScheduleSlotOffset: SLOTS_PER_EPOCH,
    warmup: false,
    firstNormalEpoch: 0,
    firstNormalSlot: 0,
  }),
  getBlockTime: ({ ledger }, params) => {
    const [slot] = parse(params, slotNumber);
    if (slot > ledger.slot()) throw new RpcError(CODES.blockNotAvailable, `Block not available for slot ${slot}`);
    return ledger.timeOf(slot);
  },
  getLatestBlockhash: ({ ledger }, params) => {
    parse(params, options);
    const slot = ledger.slot();
    return withContext(ledger, { blockhash: ledger.blockhash(slot), lastValidBlockHeight: slot + BLOCKHASH_SLOTS });
  },
  isBlockhashValid: ({ ledger }, params) => {
    const [hash] = parse(params, address, options);
    return withContext(ledger, ledger.isBlockhashValid(hash));
  },
  getFeeForMessage: ({ ledger }, params) => {
    const [text] = parse(params, z.string(), options);
    return withContext(ledger, feeForMessage(ledger, text));
  },
  getSlotLeader: ({ ledger }) => ledger.faucet.address,
  getSlotLeaders: ({ ledger }, params) => {
    const [, limit] = parse(params, slotNumber, slotNumber.min(1).max(LEADERS_MAX));
    return Array.from({ length: limit }, () => ledger.faucet.address);
  },
  getClusterNodes: ({ ledger }) => [
    {
      pubkey: ledger.faucet.address,
      gossip: null,
      tpu: null,
      rpc: null,
      version: SOLANA_VERSION,
      featureSet: 0,
      shredVersion: 0,
    },
  ],
  getVoteAccounts: () => ({ current: [], delinquent: [] }),
  getRecentPrioritizationFees: ({ ledger }) =>
    Array.from({ length: BLOCKHASH_SLOTS }, (_, index) => ({
      slot: Math.max(0, ledger.slot() - BLOCKHASH_SLOTS + index),
      prioritizationFee: 0,
    })),
  /** A node has no samples before its first minute; this one never takes any. */
  getRecentPerformanceSamples: () => [],
  getInflationGovernor: () => ({ initial: 0, terminal: 0, taper: 0, foundation: 0, foundationTerm: 0 }),
  getInflationRate: ({ ledger }) => ({
    total: 0,
    validator: 0,
    foundation: 0,
    epoch: Math.floor(ledger.slot() / SLOTS_PER_EPOCH),
  }),
};
