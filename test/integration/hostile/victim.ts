/**
 * The provider that is attacked, in a process of its own: the real mesh, admission, book and selling loop, without chain
 * and runtimes. Its parent asks over IPC how it fares. Arguments: seed (hex), JSON of where it lives.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';

import { type Place, openSeller } from './seller.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';

/** Whom it is connected to and what it has in its book, at little cost. */
export interface View {
  readonly peers: readonly string[];
  /** Signer and sequence of each, sorted. */
  readonly offers: readonly string[];
}

/** How the victim fared since this was asked last. */
export interface Health extends View {
  readonly delayP99Ms: number;
  readonly delayMaxMs: number;
  readonly rssMb: number;
  /** What is reachable: heap and buffers after a collection. */
  readonly liveMb: number;
  /** Bids that were not answered with a quote, by reason. */
  readonly refused: Readonly<Record<string, number>>;
}

export type Question = 'view' | 'health';

const [seed = '', place = ''] = process.argv.slice(2);
const directory = await mkdtemp(join(tmpdir(), 'molt-victim-'));
const refused: Record<string, number> = {};
const seller = await openSeller({
  ...(JSON.parse(place) as Place),
  key: keyPairFromSeed(Buffer.from(seed, 'hex')),
  directory,
  tell: (event) => {
    if (event.type === 'bid-refused' || event.type === 'bid-declined')
      refused[event.code] = (refused[event.code] ?? 0) + 1;
  },
});
const delays = monitorEventLoopDelay({ resolution: 10 });
delays.enable();
const view = (): View => ({
  peers: seller.mesh.peers(),
  offers: seller.feed.book
    .list()
    .map(({ signer, sequence }) => `${signer} ${sequence}`)
    .toSorted(),
});
process.on('message', (question: Question) => {
  if (question === 'view') {
    process.send?.(view());
    return;
  }
  globalThis.gc?.();
  const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
  const health: Health = {
    delayP99Ms: Math.max(0, delays.percentile(99) / 1e6 - 10),
    delayMaxMs: Math.max(0, delays.max / 1e6 - 10),
    rssMb: rss / 2 ** 20,
    liveMb: (heapUsed + Math.max(external, arrayBuffers)) / 2 ** 20,
    refused: { ...refused },
    ...view(),
  };
  for (const code of Object.keys(refused)) delete refused[code];
  delays.reset();
  process.send?.(health);
});
async function stop(): Promise<void> {
  await seller[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
}

process.once('disconnect', () => {
  void stop().finally(() => process.exit(0));
});
process.send?.(seller.mesh.addresses);
