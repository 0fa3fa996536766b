/** The embedded sandbox: how soon a guest runs, how fast it computes, and what an attack does to the node meanwhile. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

import { type ModuleImage, type Run, WasmRuntime } from '../../node/runtime/index.ts';
import { kernelModule } from '../../node/speed.ts';
import { systemEnv } from '../../protocol/env.ts';
import { assemble, ENDLESS, leb } from '../../test/node/runtime/module.ts';
import { matrixKernel } from './matrix-kernel.ts';
import { type Group, median, type Row } from './row.ts';

const ROUNDS = 15;
const COLD_BYTES = 5_000_000;
const never = new AbortController().signal;

export const wasm: Group = {
  name: 'wasm',
  about: 'the wasm sandbox: start, compute, attack',
  run: async (tell) => {
    const root = await mkdtemp(join(tmpdir(), 'molt-bench-wasm-'));
    const bench = new Bench(root);
    try {
      const bareMs = median(Array.from({ length: 5 }, bareNode));
      await bench.prepare();
      tell(await bench.warmStart(bareMs));
      tell(await bench.coldStart());
      const row = await bench.kernel();
      if (typeof row === 'string') console.log(`wasm compute kernel: skipped, ${row}`);
      else tell(row);
      tell(await bench.attack());
    } finally {
      await bench.close();
      await rm(root, { recursive: true, force: true });
    }
  },
};

function bareNode(): number {
  const startedMs = performance.now();
  spawnSync(process.execPath, ['-e', '0']);
  return performance.now() - startedMs;
}

class Bench {
  readonly #root: string;
  readonly #runtime: WasmRuntime;
  #attempts = 0;

  constructor(root: string) {
    this.#root = root;
    this.#runtime = new WasmRuntime(systemEnv(), join(root, 'runtime'));
  }

  async close(): Promise<void> {
    await this.#runtime.close();
  }

  /** What a node does when it starts: afterwards a process waits. */
  async prepare(): Promise<void> {
    const { available, reason } = await this.#runtime.probe(never);
    if (!available) throw new Error(`the wasm runtime does not work here: ${reason}`);
  }

  async #image(bytes: Uint8Array): Promise<ModuleImage> {
    const digest = createHash('sha256').update(bytes).digest('hex');
    const path = join(this.#root, `${digest}.wasm`);
    await writeFile(path, bytes);
    return { kind: 'module', path, digest };
  }

  async #start(image: ModuleImage, fuel?: bigint): Promise<{ run: Run; startMs: number }> {
    const directory = join(this.#root, `attempt-${this.#attempts++}`);
    const [inputDirectory, outputDirectory] = [join(directory, 'in'), join(directory, 'out')];
    await mkdir(inputDirectory, { recursive: true });
    await mkdir(outputDirectory);
    const limits = {
      cpus: 1,
      memoryBytes: 64 << 20,
      diskBytes: 1 << 20,
      durationMs: 60_000,
      logBytes: 64 << 20,
      processes: 1,
    };
    const startedMs = performance.now();
    const run = await this.#runtime.start(
      {
        attemptId: `bench-${this.#attempts}`,
        image,
        command: ['bench'],
        environment: {},
        inputDirectory,
        outputDirectory,
        limits: fuel === undefined ? limits : { ...limits, fuel },
        randomSeed: new Uint8Array(32),
        clockStartMs: 0,
      },
      never,
    );
    return { run, startMs: performance.now() - startedMs };
  }

  async warmStart(bareMs: number): Promise<Row> {
    const image = await this.#image(kernelModule(1000));
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      await this.#runtime.prepare(image, () => undefined, never);
      const { run, startMs } = await this.#start(image);
      await run.exit;
      times.push(startMs);
    }
    return {
      name: 'wasm warm start → first instruction, median',
      value: median(times),
      unit: 'ms',
      baseline: bareMs,
      baselineIs: 'bare node, start to exit',
      target: 15,
    };
  }

  /** A module of 5 MB that this node never saw: checked, metered, compiled, started in one process that waited empty. */
  async coldStart(): Promise<Row> {
    const times: number[] = [];
    let compileMs = 0;
    for (let round = 0; round < 5; round++) {
      const bytes = largeModule(round);
      const image = await this.#image(bytes);
      // The successor of the process that the round before took comes up.
      await sleep(1500);
      const begunMs = performance.now();
      compileMs = new WebAssembly.Module(bytes) instanceof WebAssembly.Module ? performance.now() - begunMs : 0;
      const { run, startMs } = await this.#start(image);
      await run.exit;
      times.push(startMs);
    }
    return {
      name: 'wasm cold start, module of 5 MB, median',
      value: median(times),
      unit: 'ms',
      baseline: compileMs,
      baselineIs: 'validating it, not metered, in this process',
      target: 300,
    };
  }

  /** Or why there is nothing to compare with. */
  async kernel(): Promise<Row | string> {
    const program = join(this.#root, 'matrix');
    const source = join(import.meta.dirname, 'matrix.c');
    const compiler = ['gcc', 'clang', 'clang-19'].find(
      (name) => spawnSync(name, ['-O3', '-ffp-contract=off', '-o', program, source]).status === 0,
    );
    if (compiler === undefined) return 'no C compiler for the native side (gcc or clang)';
    const image = await this.#image(matrixKernel());
    const [native, guest]: [number[], number[]] = [[], []];
    const results = new Set<string>();
    for (let round = 0; round < 7; round++) {
      const [bits = '', ms = ''] = spawnSync(program, { encoding: 'utf8' }).stdout.trim().split(' ');
      native.push(Number(ms));
      const { run } = await this.#start(image);
      const chunks: Uint8Array[] = [];
      for await (const { bytes } of run.logs) chunks.push(bytes);
      guest.push((await run.exit).durationMs);
      results.add(bits).add(String(Buffer.concat(chunks).readUInt32LE(0)));
    }
    if (results.size !== 1) throw new Error(`the two kernels differ: ${[...results].join(', ')}`);
    return {
      name: 'wasm compute kernel, metered, fastest of 7',
      value: Math.min(...guest),
      unit: 'ms',
      baseline: Math.min(...native),
      baselineIs: `the same in C, ${compiler} -O3`,
      target: 2 * Math.min(...native),
    };
  }

  /** Delay of this process's event loop while a guest computes without end and another floods its log. */
  async attack(): Promise<Row> {
    const idle = await mostDelay(async () => sleep(1000));
    const endless = await this.#image(assemble({ bodies: [ENDLESS] }));
    const flood = await this.#image(logFlood());
    const attacked = await mostDelay(async () => {
      const runs = await Promise.all([this.#start(endless, 2_000_000_000n), this.#start(flood, 200_000_000n)]);
      for (const { run } of runs) {
        for await (const _chunk of run.logs) continue;
        await run.exit;
      }
    });
    return {
      name: 'event loop during attacks, longest delay',
      value: attacked,
      unit: 'ms',
      baseline: idle,
      baselineIs: 'longest delay of one idle second',
      target: 50,
    };
  }
}

async function mostDelay(work: () => Promise<unknown>): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 2 });
  delay.enable();
  await work();
  delay.disable();
  return delay.max / 1e6;
}

/** Writes 60,000 bytes to stdout, over and over. */
function logFlood(): Uint8Array {
  const write = [0x41, 1, 0x41, 0, 0x41, 1, 0x41, 16, 0x10, 0, 0x1a];
  const body = [0, 0x03, 0x40, ...write, 0x0c, 0, 0x0b, 0x0b];
  return assemble({ imports: ['fd_write'], bodies: [body], memory: [0, 2], data: [64, 0, 0, 0, 0x60, 0xea, 0, 0] });
}

/** Functions of a kilobyte, arithmetic and branches, the first of which is run. */
function largeModule(salt: number): Uint8Array {
  const round = [0x20, 0, 0x41, ...leb(13 + salt), 0x74, 0x22, 0, 0x04, 0x40, 0x20, 0, 0x41, 7, 0x6a, 0x21, 0, 0x0b];
  const body = [1, 1, 0x7f, ...Array.from({ length: 60 }, () => round).flat(), 0x0b];
  return assemble({ bodies: Array.from({ length: Math.ceil(COLD_BYTES / body.length) }, () => body) });
}
