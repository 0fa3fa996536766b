/** How fast an artifact moves between two processes, beside what the same bytes need over the layers below it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { NODE_FLAGS } from '../../node/cli/demo/child.ts';
import type { Where } from './artifact-peer.ts';
import type { Taking, Way } from './artifact-taker.ts';
import { type Group, median } from './row.ts';

const SIZE_BYTES = 512 * 1024 * 1024;
const ROUNDS = 5;
const MEGA = 1e6;
/** A file system in memory, where there is one: what it takes is the transfer, and not the disk. */
const MEMORY = '/dev/shm';

export const artifact: Group = {
  name: 'artifact',
  about: `${SIZE_BYTES / 2 ** 20} MiB between two processes on loopback, MB/s, median of ${ROUNDS} rounds in turn`,
  run: async (tell) => {
    const directory = await mkdtemp(join(tmpdir(), 'molt-bench-'));
    // What lies below Molt runs as Node starts by itself, Molt as the program starts.
    const bare = await Pair.start(join(directory, 'bare'), []);
    const molt = await Pair.start(join(directory, 'molt'), NODE_FLAGS);
    try {
      const rates = await measure(bare, molt);
      const unit = 'MB/s';
      const bound = 'at-least' as const;
      const stream = { unit, bound, baseline: rates.libp2p, baselineIs: 'a bare libp2p stream, 64 KiB writes' };
      const { artifact: whole, disk } = rates;
      tell({ ...stream, name: 'artifact into memory, beside the stream', value: whole, target: 0.6 * rates.libp2p });
      tell({ ...stream, name: 'artifact onto disk, beside the stream', value: disk, target: 0.6 * rates.libp2p });
      const same = { unit, bound, baseline: rates.small, baselineIs: "the stream with the program's young generation" };
      tell({ ...same, name: 'artifact into memory, beside that stream', value: whole, target: 0.25 * rates.small });
      const tls = { unit, bound, baseline: rates.tls, baselineIs: 'node:tls 1.3, AES-128-GCM' };
      tell({ ...tls, name: 'artifact into memory, beside raw TLS', value: whole, target: 0.1 * rates.tls });
      const tcp = { unit, bound, baseline: rates.tcp, baselineIs: 'node:net' };
      tell({ ...tcp, name: 'artifact into memory, beside raw TCP', value: whole, target: 0.1 * rates.tcp });
      tell({ ...stream, name: 'channel of 1 MiB frames', value: rates.channel, target: 0.8 * rates.libp2p });
      const write = { unit, bound, baseline: rates.write, baselineIs: 'as many bytes written to files of 1 MiB' };
      tell({ ...write, name: 'artifact onto disk, beside the disk', value: disk, target: 0.1 * rates.write });
    } finally {
      await bare.stop();
      await molt.stop();
      await rm(directory, { recursive: true, force: true });
    }
  },
};

/** A sending and a receiving process. */
class Pair {
  readonly #sender: ChildProcess;
  readonly #taker: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  private constructor(sender: ChildProcess, taker: ChildProcess, answers: AsyncIterator<string>) {
    this.#sender = sender;
    this.#taker = taker;
    this.#answers = answers;
  }

  static async start(directory: string, flags: readonly string[]): Promise<Pair> {
    const run = (file: string, ...args: string[]): { child: ChildProcess; lines: AsyncIterator<string> } => {
      const child = spawn(process.execPath, [...flags, join(import.meta.dirname, file), ...args], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
    };
    const sender = run('artifact-peer.ts', directory, String(SIZE_BYTES));
    const where = JSON.parse((await sender.lines.next()).value as string) as Where;
    const memory = existsSync(MEMORY) ? MEMORY : directory;
    const taking: Taking = { where, sizeBytes: SIZE_BYTES, disk: directory, memory };
    const taker = run('artifact-taker.ts', JSON.stringify(taking));
    return new Pair(sender.child, taker.child, taker.lines);
  }

  /** MB/s. */
  async rate(way: Way): Promise<number> {
    this.#taker.stdin?.write(`${way}\n`);
    const { value } = await this.#answers.next();
    return SIZE_BYTES / MEGA / (Number(value) / 1_000);
  }

  async stop(): Promise<void> {
    for (const child of [this.#taker, this.#sender]) {
      child.stdin?.end();
      if (child.exitCode === null) await once(child, 'exit');
    }
  }
}

/** MB/s each way; `small` is the bare stream in processes with the program's flags. */
async function measure(bare: Pair, molt: Pair): Promise<Readonly<Record<Way | 'small', number>>> {
  const ways: readonly (readonly [Way | 'small', () => Promise<number>])[] = [
    ...(['tcp', 'tls', 'libp2p', 'write'] as const).map((way) => [way, () => bare.rate(way)] as const),
    ['small', () => molt.rate('libp2p')],
    ...(['channel', 'artifact', 'disk'] as const).map((way) => [way, () => molt.rate(way)] as const),
  ];
  const rates: Record<Way | 'small', number[]> = {
    tcp: [],
    tls: [],
    libp2p: [],
    small: [],
    channel: [],
    artifact: [],
    disk: [],
    write: [],
  };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [way, run] of ways) rates[way].push(await run());
  }
  return Object.fromEntries(Object.entries(rates).map(([way, all]) => [way, median(all)])) as Record<
    Way | 'small',
    number
  >;
}
