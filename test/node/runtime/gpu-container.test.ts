/**
 * Goal: a job gets exactly the GPUs it was given, and a GPU that no container can see is not sold. Method: a real engine
 * with a made-up NVIDIA hook; device nodes that are no cards. No GPU is behind any of it.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it, test } from 'vitest';

import type { GpuDevice } from '../../../node/gpu/index.ts';
import { ContainerRuntime, type RunRequest } from '../../../node/runtime/index.ts';
import { wrongList } from '../../../node/runtime/container/gpu-check.ts';
import { gpuConfig, waysOf } from '../../../node/runtime/container/gpu-passing.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { openBusyboxRegistry } from '../../fixtures/engine.ts';
import { type GpuEngine, noCdiEngine, noGpuEngine, openCdiEngine, openGpuEngine } from '../../fixtures/gpu-engine.ts';
import type { Registry } from '../../fixtures/registry.ts';

const A = 'GPU-11111111-2222-3333-4444-555555555555';
const B = 'GPU-66666666-7777-8888-9999-000000000000';
const SLICE = 'MIG-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
const signal = new AbortController().signal;

function device(id: string, more: Partial<GpuDevice> = {}): GpuDevice {
  return {
    id,
    vendor: 'nvidia',
    model: 'Fake',
    memoryBytes: 2 ** 30,
    memoryUsedBytes: 0,
    busyPercent: 0,
    driver: '',
    computeCapability: 90,
    busId: '0000:0c:00.0',
    numaNode: undefined,
    links: {},
    fault: undefined,
    ...more,
  };
}

describe('what a container is created with', () => {
  it('names NVIDIA devices by id and nothing else, also where the image says otherwise', () => {
    const { env, host } = gpuConfig([
      { way: 'nvidia', id: A, lockedMemory: true },
      { way: 'nvidia', id: B, lockedMemory: true },
    ]);
    expect(host).toEqual({
      DeviceRequests: [{ Driver: 'nvidia', DeviceIDs: [A, B], Capabilities: [['gpu', 'compute', 'utility']] }],
      Ulimits: [{ Name: 'memlock', Soft: -1, Hard: -1 }],
    });
    expect(env).toEqual([`NVIDIA_VISIBLE_DEVICES=${A},${B}`, 'NVIDIA_DRIVER_CAPABILITIES=compute,utility']);
  });

  it('names devices of a CDI engine by their qualified name, and keeps older runtimes out of it', () => {
    const { env, host } = gpuConfig([{ way: 'cdi', id: A, lockedMemory: false }]);
    expect(host).toEqual({
      DeviceRequests: [{ Driver: 'cdi', DeviceIDs: [`nvidia.com/gpu=${A}`] }],
      Ulimits: [{ Name: 'memlock', Soft: 65_536, Hard: 65_536 }],
    });
    expect(env).toEqual(['NVIDIA_VISIBLE_DEVICES=void']);
  });

  it('gives nothing to a job without GPUs', () => {
    expect(gpuConfig([])).toEqual({
      env: ['NVIDIA_VISIBLE_DEVICES=void'],
      host: { Ulimits: [{ Name: 'memlock', Soft: 65_536, Hard: 65_536 }] },
    });
  });
});

test.each([
  [A, `GPU 0: NVIDIA H100 (UUID: ${A})`, undefined],
  [SLICE, `GPU 0: NVIDIA H100 (UUID: ${A})\n  MIG 1g.5gb  Device  0: (UUID: ${SLICE})`, undefined],
  [A, '', 'lists none'],
  [A, 'No devices were found', 'lists none'],
  [A, `GPU 0: NVIDIA H100 (UUID: ${B})`, `sees ${B}`],
  [A, `GPU 0: X (UUID: ${A})\nGPU 1: X (UUID: ${B})`, `sees ${A}, ${B}`],
  [A, `GPU 0: X (UUID: ${A})\n  MIG 1g.5gb  Device  0: (UUID: ${SLICE})`, 'alone'],
  [SLICE, `GPU 0: X (UUID: ${A})\n  MIG 1g.5gb  Device  0: (UUID: ${SLICE}b)`, 'alone'],
])('seeing exactly %s is told from seeing less, more or another: %j', (id, list, said) => {
  const wrong = wrongList(list, id);
  if (said === undefined) expect(wrong).toBeUndefined();
  else expect(wrong).toContain(said);
});

interface Place {
  readonly runtime: ContainerRuntime;
  /** Inputs and outputs of its jobs. */
  readonly directory: string;
  readonly image: string;
}

/** Starts a job; `text` is what it says until it ends. */
async function begin(
  { runtime, directory, image }: Place,
  {
    gpus,
    script,
    more = {},
  }: { readonly gpus: readonly string[]; readonly script: string; readonly more?: Partial<RunRequest> },
): Promise<{ readonly attemptId: string; readonly text: Promise<string> }> {
  const attemptId = `a${process.hrtime.bigint()}`;
  const [inputDirectory, outputDirectory] = [join(directory, 'in'), join(directory, attemptId)];
  for (const path of [inputDirectory, outputDirectory]) mkdirSync(path, { recursive: true });
  const run = await runtime.start(
    {
      attemptId,
      image: { kind: 'image', reference: image },
      command: ['sh', '-c', script],
      environment: { PATH: '/bin:/usr/bin' },
      inputDirectory,
      outputDirectory,
      gpus,
      limits: {
        cpus: 1,
        memoryBytes: 256 << 20,
        diskBytes: 1 << 20,
        durationMs: 30_000,
        logBytes: 1 << 20,
        processes: 64,
      },
      randomSeed: new Uint8Array(32),
      clockStartMs: 0,
      ...more,
    },
    signal,
  );
  const read = async (): Promise<string> => {
    let text = '';
    for await (const { bytes } of run.logs) text += Buffer.from(bytes).toString();
    await run.exit;
    return text;
  };
  return { attemptId, text: read() };
}

async function saidBy(place: Place, job: Parameters<typeof begin>[1]): Promise<string> {
  const { attemptId, text } = await begin(place, job);
  const said = await text;
  await place.runtime.remove(attemptId);
  return said;
}

const reason = noGpuEngine();

describe.skipIf(reason !== undefined)(
  `GPUs on an engine with a made-up hook${reason === undefined ? '' : ` (${reason})`}`,
  () => {
    let directory: string;
    let engine: GpuEngine;
    let registry: Registry;
    let runtime: ContainerRuntime;
    let nodes: string;

    beforeAll(async () => {
      directory = mkdtempSync(join(tmpdir(), 'molt-gpu-engine-'));
      nodes = join(directory, 'dev');
      mkdirSync(join(nodes, 'dri/by-path'), { recursive: true });
      // The null device under the names of a card's nodes: what is shown is that they are passed, not that they compute.
      for (const name of ['kfd', 'dri/renderD128', 'dri/renderD129']) {
        execFileSync('mknod', ['-m', '660', join(nodes, name), 'c', '1', '3']);
        execFileSync('chgrp', ['44', join(nodes, name)]);
      }
      symlinkSync('../renderD128', join(nodes, 'dri/by-path/pci-0000:0c:00.0-render'));
      symlinkSync('../renderD129', join(nodes, 'dri/by-path/pci-0000:0d:00.0-render'));
      engine = await openGpuEngine(join(directory, 'engine'));
      registry = await openBusyboxRegistry();
      runtime = new ContainerRuntime(systemEnv(), {
        directory: join(directory, 'node'),
        socketPath: engine.socketPath,
        loopDisks: false,
        devices: nodes,
      });
    });

    afterAll(async () => {
      await runtime?.close();
      await registry?.[Symbol.asyncDispose]();
      await engine?.[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true, force: true });
    });

    const said = (gpus: readonly string[], script: string, more: Partial<RunRequest> = {}): Promise<string> =>
      saidBy({ runtime, directory, image: registry.reference }, { gpus, script, more });

    it('a device that a container sees is fit to be sold, a slice as well', async () => {
      engine.setMode('give');
      expect(await runtime.checkGpu(device(A), signal)).toBeUndefined();
      expect(await runtime.checkGpu(device(B), signal)).toBeUndefined();
      expect(await runtime.checkGpu(device(SLICE), signal)).toBeUndefined();
    });

    it.each([
      ['nothing', 'gives no GPU'],
      ['too-much', 'GPU-99999999-0000-0000-0000-000000000000'],
      ['fail', 'driver not loaded'],
    ] as const)('an engine whose hook does "%s" is found out, and the reason says how', async (mode, words) => {
      engine.setMode(mode);
      const other = device('GPU-77777777-2222-3333-4444-555555555555');
      expect(await runtime.checkGpu(other, signal)).toContain(words);
      engine.setMode('give');
      await expect(said([other.id], 'true')).rejects.toMatchObject({ code: 'job/impossible' });
      expect(await runtime.list()).toEqual([]);
    });

    it('a job sees exactly the devices it was given, whatever its image asks for', async () => {
      expect(await said([A, B], 'nvidia-smi')).toBe(`GPU 0: Fake (UUID: ${A})\nGPU 1: Fake (UUID: ${B})\n`);
      expect(await said([B], 'echo $NVIDIA_VISIBLE_DEVICES $NVIDIA_DRIVER_CAPABILITIES')).toBe(
        `${B} compute,utility\n`,
      );
      expect(await said([], 'echo $NVIDIA_VISIBLE_DEVICES; ls /usr/bin 2>&1')).toContain('void');
    });

    it('a job with a GPU has shared memory to work with', async () => {
      const size = 'while read -r _ at _ options; do [ $at = /dev/shm ] && echo $options; done < /proc/mounts';
      expect(await said([A], size)).toContain(`size=${(256 << 20) / 2 / 1024}k`);
      expect(await said([], size)).toContain('size=65536k');
    });

    it('a ROCm card is its compute interface and its own render node, opened as the job’s user', async () => {
      const card = device('AMD-0000:0c:00.0', { vendor: 'amd' });
      expect(await runtime.checkGpu(card, signal)).toBeUndefined();
      expect(await said([card.id], 'echo /dev/dri/* /dev/kfd; : 3<> /dev/dri/renderD128 && id -G')).toBe(
        '/dev/dri/renderD128 /dev/kfd\n65534 44\n',
      );
    });

    it('a card without a device node is not fit to be sold, and the reason says so', async () => {
      const gone = device('AMD-0000:ff:00.0', { vendor: 'amd', busId: '0000:ff:00.0' });
      expect(await runtime.checkGpu(gone, signal)).toContain('no device node for 0000:ff:00.0');
      expect(
        await waysOf(device('INTEL-0000:03:00.0', { vendor: 'intel' }), { devices: nodes, lockedMemory: true }),
      ).toEqual([]);
    });

    it('a GPU under a stronger sandbox is refused before anything is made', async () => {
      await expect(said([A], 'true', { sandbox: true })).rejects.toMatchObject({ code: 'job/impossible' });
      const always = new ContainerRuntime(systemEnv(), {
        directory: join(directory, 'always'),
        socketPath: engine.socketPath,
        sandbox: 'always',
      });
      expect(await always.checkGpu(device(A), signal)).toContain('set it to "when-asked"');
    });
  },
);

const noCdi = noCdiEngine();

describe.skipIf(noCdi !== undefined)(
  `GPUs on an engine that gives them by CDI${noCdi === undefined ? '' : ` (${noCdi})`}`,
  () => {
    const seen = (...ids: readonly string[]): string => ids.map((id) => `${id}\n`).join('');
    const LIST = "nvidia-smi | sed -n 's/.*UUID: \\(.*\\))/\\1/p'";
    let directory: string;
    let engine: AsyncDisposable & { readonly socketPath: string };
    let registry: Registry;
    let place: Place;

    beforeAll(async () => {
      directory = mkdtempSync(join(tmpdir(), 'molt-cdi-engine-'));
      engine = await openCdiEngine(join(directory, 'engine'), [A, B]);
      registry = await openBusyboxRegistry();
      const runtime = new ContainerRuntime(systemEnv(), {
        directory: join(directory, 'node'),
        socketPath: engine.socketPath,
        loopDisks: false,
      });
      place = { runtime, directory, image: registry.reference };
    });

    afterAll(async () => {
      await place?.runtime.close();
      await registry?.[Symbol.asyncDispose]();
      await engine?.[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true, force: true });
    });

    it('a device that the specification names is fit to be sold, after the way of the toolkit was refused', async () => {
      expect(await place.runtime.checkGpu(device(A), signal)).toBeUndefined();
      expect(await place.runtime.checkGpu(device(B), signal)).toBeUndefined();
    });

    it('a device that it does not name is not, and both ways say why', async () => {
      const refusal = await place.runtime.checkGpu(device('GPU-77777777-2222-3333-4444-555555555555'), signal);
      expect(refusal).toMatch(/nvidia: .*could not select device driver/);
      expect(refusal).toMatch(/cdi: .*unresolvable CDI devices nvidia\.com\/gpu=GPU-77777777/);
    });

    it('each of two jobs at a time sees its own device and no node of the other’s, and without one there is none', async () => {
      const first = await begin(place, { gpus: [A], script: `${LIST}; ls /dev | grep nvidia; sleep 2` });
      const second = await saidBy(place, { gpus: [B], script: `${LIST}; ls /dev | grep nvidia` });
      expect(second).toBe(`${seen(B)}nvidia1\n`);
      expect(await first.text).toBe(`${seen(A)}nvidia0\n`);
      await place.runtime.remove(first.attemptId);
      expect(await saidBy(place, { gpus: [], script: 'ls /dev | grep nvidia; ls /usr/bin; true' })).not.toContain(
        'nvidia',
      );
    });

    it('a job can have both, and the next one gets the device that a job before it had', async () => {
      expect(await saidBy(place, { gpus: [A, B], script: LIST })).toBe(seen(A, B));
      expect(await saidBy(place, { gpus: [A], script: LIST })).toBe(seen(A));
      expect(await place.runtime.list()).toEqual([]);
    });
  },
);
