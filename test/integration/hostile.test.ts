/**
 * Goal: whatever a stranger does to a provider, honest trade goes on, the provider's event loop stays free, its memory
 * bounded, and the stranger is dropped or bounded.
 * Method: a provider in a process of its own, an honest bidder here, and an attacker in a third process that follows none
 * of the rules. The figures of each attack are printed. Delays on a shared machine say little, so their bound is wide.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { encodeAddress } from '../../protocol/address.ts';
import { until } from '../node/mesh/peers.ts';
import { type TestBidder, env, openBidder } from './hostile/seller.ts';
import { type Victim, openVictim } from './hostile/victim-process.ts';

const HOSTILE = join(import.meta.dirname, 'hostile');
/** p99 of the victim's event-loop delay during an attack; some 20 ms on a quiet machine. */
const DELAY_P99_MS_MAX = 500;
/** Of what is reachable. The book holds 10,000 offers in some 20 MB, and each connection its buffers. */
const GROWTH_MB_MAX = 60;
const ATTACK_SECONDS = 6;

const network = encodeAddress(env.random.bytes(32));

interface Tally {
  readonly sent: number;
  readonly dropped: number;
}

async function attack(name: string, victim: Victim): Promise<Tally> {
  const args = [join(HOSTILE, 'attack.ts'), name, network, victim.addresses[0] ?? '', String(ATTACK_SECONDS)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 });
  return JSON.parse(stdout) as Tally;
}

/** Bids about once a second, which is what one origin may, as long as `during` lasts. */
async function tradeOn(bidder: TestBidder, victim: Victim, during: Promise<unknown>) {
  const over = new AbortController();
  const end = during.finally(() => over.abort());
  const answers: number[] = [];
  let bids = 0;
  while (!over.signal.aborted) {
    bids++;
    const { quotedBy, tookMs } = await bidder.bid(5_000, 1);
    if (quotedBy.includes(victim.self)) answers.push(tookMs);
    await new Promise((resolve) => setTimeout(resolve, 1_100));
  }
  await end;
  return { bids, answers };
}

let victim: Victim;
let bidder: TestBidder;

beforeAll(async () => {
  victim = await openVictim({ network });
  bidder = await openBidder({ network, bootstrap: victim.addresses });
  await until('the bidder is connected', () => bidder.mesh.isConnected(victim.self));
});

afterAll(async () => {
  await bidder?.[Symbol.asyncDispose]();
  await victim?.[Symbol.asyncDispose]();
});

describe('a provider under attack goes on quoting, keeps its event loop free and drops the attacker', () => {
  test.each([
    ['invalid flood', 'drops'],
    ['valid flood', 'drops'],
    ['replay', 'drops'],
    ['oversize', 'drops'],
    ['slow reader', 'bounds'],
    ['stream churn', 'drops'],
    ['connection churn', 'drops'],
    ['sybil bidders', 'drops'],
  ] as const)('%s', async (name, outcome) => {
    const before = await victim.health();
    const attacking = attack(name, victim);
    const { bids, answers } = await tradeOn(bidder, victim, attacking);
    const { sent, dropped } = await attacking;
    const after = await victim.health();
    const figures = {
      bids,
      quoted: answers.length,
      slowestMs: Math.round(Math.max(...answers)),
      delayP99Ms: Math.round(after.delayP99Ms),
      delayMaxMs: Math.round(after.delayMaxMs),
      rssMb: `${Math.round(before.rssMb)} → ${Math.round(after.rssMb)}`,
      liveMb: `${Math.round(before.liveMb)} → ${Math.round(after.liveMb)}`,
      refused: after.refused,
      sent,
      dropped,
      peers: after.peers.length,
      offers: after.offers.length,
    };
    console.log(`${name}: ${JSON.stringify(figures)}`);
    expect(sent).toBeGreaterThan(0);
    expect(bids).toBeGreaterThanOrEqual(3);
    expect(answers.length).toBeGreaterThanOrEqual(bids - 1);
    expect(after.delayP99Ms).toBeLessThan(DELAY_P99_MS_MAX);
    expect(after.liveMb - before.liveMb).toBeLessThan(GROWTH_MB_MAX);
    if (outcome === 'drops') expect(dropped).toBeGreaterThan(0);
    expect(after.peers).toContain(bidder.mesh.self);
    expect(after.peers.length).toBeLessThanOrEqual(3);
  });
});
