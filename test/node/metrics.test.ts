/** Goal: what happens is counted, and no stranger can make a node keep more series. Method: events and a made-up admission. */
import { expect, test } from 'vitest';

import type { Admission } from '../../market/index.ts';
import { Metrics } from '../../node/metrics.ts';
import { encodeAddress } from '../../protocol/address.ts';

const someone = (index: number): ReturnType<typeof encodeAddress> => {
  const bytes = new Uint8Array(32);
  new DataView(bytes.buffer).setUint32(0, index + 1);
  return encodeAddress(bytes);
};

async function samples(metrics: Metrics): Promise<Map<string, number>> {
  const { text } = await metrics.text();
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

test('events and verdicts are counted under their own names', async () => {
  const metrics = new Metrics();
  const verdicts = [{ verdict: 'accept' }, { verdict: 'reject' }, { verdict: 'reject' }];
  const admission = {
    bid: () => ({ verdict: verdicts.shift() }),
    offer: () => ({ verdict: { verdict: 'ignore' } }),
  } as unknown as Admission;
  const counting = metrics.counting(admission);
  for (let count = 0; count < 3; count++) counting.bid(new Uint8Array(), undefined, 0);
  counting.offer(new Uint8Array(), undefined, 0);
  metrics.heard({ type: 'proof', lease: someone(1), digest: 'x', claimed: '9007199254740992' });
  metrics.heard({ type: 'bid-declined', bid: 'x', code: 'market/draining', reason: 'y' });
  metrics.heard({ type: 'runtime', runtime: 'wasm', available: false, reason: 'z' });
  const read = await samples(metrics);
  expect(read.get('molt_gossip_messages_total{kind="bid",verdict="reject"}')).toBe(2);
  expect(read.get('molt_gossip_messages_total{kind="offer",verdict="ignore"}')).toBe(1);
  expect(read.get('molt_claimed_base_units_total')).toBe(2 ** 53);
  expect(read.get('molt_bids_declined_total{code="market/draining"}')).toBe(1);
  expect(read.get('molt_runtime_available{runtime="wasm"}')).toBe(0);
});

test('a thousand strangers with a thousand bids make no series', async () => {
  const metrics = new Metrics();
  const tell = (index: number): void => {
    const [peer, text] = [someone(index), `text ${index}`];
    metrics.heard({ type: 'lease-accepted', lease: peer, buyer: peer });
    metrics.heard({ type: 'request-refused', from: peer, code: 'job/unknown', reason: text });
    metrics.heard({ type: 'bid-declined', bid: text, code: 'market/no-capacity', reason: text });
    metrics.heard({ type: 'job-failed', lease: peer, code: 'job/disk-full', reason: text });
    metrics.heard({ type: 'trouble', what: text, code: 'chain/unreachable', reason: text });
    metrics.heard({ type: 'job-phase', lease: peer, phase: 'running', attempt: index });
  };
  tell(0);
  const before = [...(await samples(metrics)).keys()].filter((name) => name.startsWith('molt_'));
  for (let index = 1; index <= 1_000; index++) tell(index);
  const after = [...(await samples(metrics)).keys()].filter((name) => name.startsWith('molt_'));
  expect(after).toEqual(before);
  expect((await samples(metrics)).get('molt_leases_accepted_total')).toBe(1_001);
});
