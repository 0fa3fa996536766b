/**
 * How long a node's one thread stays with one thing while it does the heaviest that it does: the longest turn of its event
 * loop, in processor time, so that other programs do not count. Whatever waits meanwhile, gossip above all, waits that long.
 */
import { randomFillSync } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createAdmission, createBook } from '../../market/index.ts';
import { openArtifacts } from '../../node/mesh/index.ts';
import { encodeAddress } from '../../protocol/address.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { systemEnv } from '../../protocol/env.ts';
import { NETWORK, NOW, offerBytes } from '../../test/market/fixtures.ts';
import { type Group, quantile } from './row.ts';

const OUTPUT_BYTES = 256 * 2 ** 20;
const OFFERS = 10_000;

export const stall: Group = {
  name: 'stall',
  about:
    'the longest turns of the event loop (99th percentile of those above 0.1 ms, processor time) while a node works',
  run: async (tell) => {
    const env = systemEnv();
    const directory = await mkdtemp(join(tmpdir(), 'molt-stall-'));
    try {
      const artifacts = await openArtifacts(env, { directory: join(directory, 'store'), quotaBytes: 2 ** 30 });
      const path = join(directory, 'output');
      await writeRandom(path);
      const idle = await longestTurn(() => env.clock.sleep(500));
      const row = (name: string, value: number): void =>
        tell({
          name,
          value,
          unit: 'ms',
          baseline: idle,
          baselineIs: 'the same while nothing is done',
          target: 50,
        });
      let cid = '';
      row(
        'an output of 256 MB becomes an artifact',
        await longestTurn(async () => {
          ({ cid } = await artifacts.add(path));
        }),
      );
      row(
        'the same is read back, every block checked',
        await longestTurn(async () => {
          await artifacts.export(cid, join(directory, 'back'), { maxBytes: OUTPUT_BYTES, maxEntries: 1 });
        }),
      );
      row('10,000 offers come at once, one a turn', await longestTurn(takeOffers));
      row('a book of 10,000 is listed and looked through for what expired', await longestTurn(lookThroughBook));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
};

async function writeRandom(path: string): Promise<void> {
  const file = await open(path, 'w');
  const chunk = Buffer.alloc(2 ** 20);
  for (let at = 0; at < OUTPUT_BYTES; at += chunk.length) await file.write(randomFillSync(chunk));
  await file.close();
}

/** Looks at this thread's processor time once a turn. */
async function longestTurn(work: () => Promise<void>): Promise<number> {
  const turns: number[] = [];
  let going = true;
  const spent = (): number => {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1_000;
  };
  let before = spent();
  const look = (): void => {
    const now = spent();
    if (now - before > 0.1) turns.push(now - before);
    before = now;
    if (going) setImmediate(look);
  };
  setImmediate(look);
  await work();
  going = false;
  return turns.length === 0 ? 0 : quantile(turns, 0.99);
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function takeOffers(): Promise<void> {
  const admission = createAdmission({
    network: NETWORK,
    limits: { offersPerForwarder: { perSecond: 2e6, burst: 2e6 }, offersInAll: { perSecond: 1e6, burst: 1e6 } },
  });
  const from = encodeAddress(systemEnv().random.bytes(32));
  const made: Uint8Array[] = [];
  for (let index = 0; index < OFFERS; index++) {
    made.push(offerBytes(keyPairFromSeed(systemEnv().random.bytes(32))));
    if (index % 10 === 0) await turn();
  }
  for (const bytes of made) {
    admission.offer(bytes, from, NOW);
    await turn();
  }
}

async function lookThroughBook(): Promise<void> {
  const admission = createAdmission({ network: NETWORK });
  const { message } = admission.offer(offerBytes(keyPairFromSeed(systemEnv().random.bytes(32))), undefined, NOW);
  if (message === undefined) throw new Error('the offer of the fixture is not admitted');
  const book = createBook({ offersMax: OFFERS });
  for (let index = 0; index < OFFERS; index++) {
    const signer = encodeAddress(systemEnv().random.bytes(32));
    book.put({ ...message, signer });
    if (index % 10 === 0) await turn();
  }
  for (let round = 0; round < 100; round++) {
    book.expire(NOW);
    book.list('cpu');
    await turn();
  }
}
