/**
 * `npm run gpu-check`: what a provider would sell of this machine's GPUs, tried for real.
 *
 * Detects every GPU, gives each to a container of the engine and looks whether it sees exactly that one. With an image,
 * `npm run gpu-check -- NAME@sha256:… COMMAND…`, it also runs that as a job on the GPUs, chosen by topology as a lease
 * would get them, and prints what it says and what the GPUs did. Exit code 1 when there are GPUs and none can be sold.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { placeGpus } from '../market/index.ts';
import { engineSocket } from '../node/config.ts';
import { type GpuDevice, Gpus, createDetector, examineGpus } from '../node/gpu/index.ts';
import { ContainerRuntime } from '../node/runtime/index.ts';
import { systemEnv } from '../protocol/env.ts';
import { formatBytes } from '../protocol/units.ts';

const env = systemEnv();
const { signal } = new AbortController();
const [image, ...command] = process.argv.slice(2);
const directory = await mkdtemp(join(tmpdir(), 'molt-gpu-check-'));
const runtime = new ContainerRuntime(env, { directory, socketPath: engineSocket(process.env) });
const { source, toolkit } = createDetector(env, process.env['PATH'] ?? '/usr/bin:/bin');

try {
  const {
    gpus,
    problems,
    toolkit: version,
  } = await examineGpus({
    source,
    toolkit,
    check: (device) => runtime.checkGpu(device, signal),
    selling: ['all'],
    leased: new Set(),
  });
  for (const problem of problems) console.log(`problem: ${problem}`);
  if (gpus.length === 0) console.log('there is no GPU on this machine: nothing was checked');
  if (version !== undefined) console.log(`NVIDIA Container Toolkit ${version}`);
  for (const { device, reason } of gpus) {
    console.log(`${describe(device)}: ${reason === undefined ? 'a container sees exactly it' : `not sold: ${reason}`}`);
  }
  const good = gpus.flatMap(({ device, reason }) => (reason === undefined ? [device] : []));
  if (gpus.length > 0 && good.length === 0) process.exitCode = 1;
  if (image !== undefined && good.length > 0) await runJob(image, good);
} finally {
  await runtime.close();
  await rm(directory, { recursive: true, force: true });
}

function describe(device: GpuDevice): string {
  const { id, model, memoryBytes, driver, computeCapability, busId, numaNode } = device;
  const capability = computeCapability === 0 ? '' : `, compute capability ${computeCapability / 10}`;
  const node = numaNode === undefined ? '' : `, NUMA node ${numaNode}`;
  const links = Object.keys(device.links).length;
  return `${id} ${model}, ${formatBytes(memoryBytes)}, driver ${driver || 'unknown'}${capability}, at ${busId || 'an unknown address'}${node}${links === 0 ? '' : `, near ${links} others`}`;
}

/** One job on all of them, through the same door that leases use. */
async function runJob(reference: string, devices: readonly GpuDevice[]): Promise<void> {
  const need = { count: devices.length, vramBytes: 0, model: '', computeCapability: 0 };
  const ids = placeGpus(devices, new Set(), [need]) ?? [];
  for (const name of ['in', 'out']) await mkdir(join(directory, name));
  const attemptId = `gpu-check-${process.pid}`;
  try {
    const run = await runtime.start(
      {
        attemptId,
        image: { kind: 'image', reference },
        command,
        environment: {},
        inputDirectory: join(directory, 'in'),
        outputDirectory: join(directory, 'out'),
        gpus: ids,
        limits: {
          cpus: 2,
          memoryBytes: 2 ** 32,
          diskBytes: 2 ** 30,
          durationMs: 300_000,
          logBytes: 1 << 20,
          processes: 1_024,
        },
        randomSeed: new Uint8Array(32),
        clockStartMs: 0,
      },
      signal,
    );
    using watch = new Gpus(env, {
      source,
      devices,
      leased: () => new Set(ids),
      onWithheld: () => undefined,
      tell: (id, reason) => console.log(`${id}: ${reason ?? 'well again'}`),
    });
    const use = env.clock.every(2_000, async () => {
      const { gpuPercent, gpuMemoryBytes } = await watch.use(ids);
      console.log(`  the GPUs: ${gpuPercent} % busy, ${formatBytes(gpuMemoryBytes)} in use`);
    });
    for await (const { bytes } of run.logs) process.stdout.write(bytes);
    use[Symbol.dispose]();
    const exit = await run.exit;
    console.log(`the job on ${ids.join(', ')} ended: ${exit.reason} ${exit.exitCode ?? ''} ${exit.detail}`.trimEnd());
    if (exit.reason !== 'exited' || exit.exitCode !== 0) process.exitCode = 1;
  } finally {
    await runtime.remove(attemptId);
  }
}
