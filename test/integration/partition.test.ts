/**
 * Goal: after a partition all books are the same again, soon after the line is whole.
 * Method: six sellers in processes of their own, three on each side of a wire that drops every packet for 35 s, long enough
 * for the loss to be noticed and for every offer to be replaced on its own side.
 */
import { expect, test } from 'vitest';

import { encodeAddress } from '../../protocol/address.ts';
import { cutReason, openWire } from '../fixtures/cut.ts';
import { until } from '../node/mesh/peers.ts';
import { env } from './hostile/seller.ts';
import { type Victim, openVictim } from './hostile/victim-process.ts';

const CUT_MS = 35_000;
const EQUAL_WITHIN_MS = 5_000;
const SIDE = 3;

const reason = cutReason();
const named = reason === '' ? '' : ` (skipped: ${reason})`;

test.skipIf(reason !== '')(`books are equal within five seconds of the end of a 35 s partition${named}`, async () => {
  using wire = openWire();
  await using opened = new AsyncDisposableStack();
  const network = encodeAddress(env.random.bytes(32));
  const nodes: Victim[] = [];
  const meeting: string[] = [];
  for (const { namespace, address } of wire.hosts) {
    for (let index = 0; index < SIDE; index++) {
      const place = { network, bootstrap: [...meeting], listen: [`/ip4/${address}/tcp/0`] };
      const node = opened.use(await openVictim(place, namespace));
      nodes.push(node);
      if (index === 0) meeting.push(...node.addresses);
    }
  }
  const books = async (): Promise<string[][]> =>
    (await Promise.all(nodes.map((node) => node.view()))).map(({ offers }) => [...offers]);
  const signers = (book: readonly string[] | undefined): string[] =>
    (book ?? []).map((line) => line.split(' ')[0] ?? '');
  const areEqual = async (): Promise<boolean> => {
    const all = await books();
    return all.every((book) => book.length === nodes.length && book.join() === all[0]?.join());
  };
  await until('all books are whole', areEqual, 60_000);

  wire.cut();
  await new Promise((resolve) => setTimeout(resolve, CUT_MS));
  const [left = [], right = []] = [(await books())[0], (await books())[SIDE]];
  expect(left.join()).not.toBe(right.join());
  const sides = await Promise.all(nodes.map(async (node) => (await node.view()).peers));
  const here = nodes.slice(0, SIDE).map((node) => node.self as string);
  expect(sides[0]?.every((peer) => here.includes(peer))).toBe(true);

  wire.heal();
  const healedMs = performance.now();
  await until('all books are equal again', areEqual);
  const tookMs = performance.now() - healedMs;
  console.log(`books of ${nodes.length} nodes equal ${Math.round(tookMs)} ms after a cut of ${CUT_MS} ms was healed`);
  expect(signers((await books())[0])).toEqual(nodes.map((node) => node.self as string).toSorted());
  expect(tookMs).toBeLessThan(EQUAL_WITHIN_MS);
});
