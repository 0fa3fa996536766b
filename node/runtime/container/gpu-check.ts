/**
 * Does a container that is given a GPU see exactly that GPU? Tried, before anything is sold.
 *
 * NVIDIA: the container runs `nvidia-smi -L`, which only the engine can have put there, and must list this id and no
 * other. That proves device, driver and management library; it does not run a kernel. ROCm: the container opens the
 * compute interface and the card's render node for reading and writing, as the job's user, and must see no other card's.
 */
import type { ContainerCreateOptions } from 'dockerode';

import type { Env } from '../../../protocol/env.ts';
import type { GpuDevice } from '../../gpu/index.ts';
import type { RunRequest } from '../runtime.ts';
import { type Engine, faultOf } from './engine.ts';
import { readFrames } from './frames.ts';
import { LIBRARY_PATH, ensureGpuImage } from './gpu-image.ts';
import { type GpuPassing, waysOf } from './gpu-passing.ts';
import { containerConfig } from './host-config.ts';
import type { Owner } from './owner.ts';
import type { EngineFacts } from './probe.ts';

export interface GpuTrial {
  readonly env: Env;
  readonly engine: Engine;
  readonly facts: EngineFacts;
  readonly owner: Owner;
  /** Where the host's device nodes are. */
  readonly devices: string;
  readonly signal: AbortSignal;
}

const LOOK_MS = 50;
const LOOKS_MAX = 400;
const MEMORY_BYTES = 512 << 20;
const PROCESSES = 64;
/** What the engine, or the init process before the check, says when nobody has put the tool there. */
const NOT_THERE = /executable file not found|exec nvidia-smi failed|no such file/i;
const GIVES_NONE = 'the engine accepts the request and gives no GPU: nvidia-smi is not in the container';
const OPENS = 'for node in "$@"; do : 3<> "$node" || exit 1; done; echo /dev/dri/* /dev/kfd';

/** The way that works, or why none does. `first` is a way that worked for another device. Throws `runtime/engine-failed`. */
export async function findPassing(
  trial: GpuTrial,
  device: GpuDevice,
  first?: GpuPassing,
): Promise<GpuPassing | { readonly refusal: string }> {
  const image = await ensureGpuImage(trial.engine);
  const lockedMemory = first?.lockedMemory ?? (await liftsLockedMemory(trial, image));
  const all = await waysOf(device, { devices: trial.devices, lockedMemory });
  if (all.length === 0)
    return { refusal: `there is no device node for ${device.busId || device.id} to give a container` };
  const refusals: string[] = [];
  for (const passing of all.toSorted((a, b) => Number(b.way === first?.way) - Number(a.way === first?.way))) {
    const refusal = await tryPassing(trial, image, passing);
    if (refusal === undefined) return passing;
    refusals.push(`${passing.way}: ${refusal}`);
  }
  return { refusal: refusals.join('; ') };
}

/** An engine without the right to raise limits refuses the container, which must not be taken for a GPU that is missing. */
async function liftsLockedMemory(trial: GpuTrial, image: string): Promise<boolean> {
  const config = checkConfig(trial, image, ['/bin/sh', '-c', 'exit 0'], []);
  const limits = (config.HostConfig?.Ulimits ?? []).filter(({ Name }) => Name !== 'memlock');
  const unlimited = { Name: 'memlock', Soft: -1, Hard: -1 };
  const lifted = { ...config, HostConfig: { ...config.HostConfig, Ulimits: [...limits, unlimited] } };
  return runToEnd(trial, lifted).then(
    ({ exitCode }) => exitCode === 0,
    () => false,
  );
}

/** The same configuration that a job gets, so that what is seen here is what a job sees. */
function checkConfig(
  { facts, owner }: GpuTrial,
  image: string,
  command: readonly string[],
  gpus: readonly GpuPassing[],
): ContainerCreateOptions {
  const labels = owner.trialLabels();
  const request = {
    attemptId: 'gpu-check',
    image: { kind: 'image', reference: image },
    command,
    environment: { PATH: '/usr/local/bin:/usr/bin:/bin', LD_LIBRARY_PATH: LIBRARY_PATH },
    inputDirectory: '',
    outputDirectory: '',
    limits: { cpus: 1, memoryBytes: MEMORY_BYTES, diskBytes: 0, durationMs: 0, logBytes: 0, processes: PROCESSES },
    randomSeed: new Uint8Array(32),
    clockStartMs: 0,
  } as const satisfies RunRequest;
  return containerConfig(request, {
    engine: facts.kind,
    image,
    labels,
    seccomp: facts.seccomp,
    init: facts.init,
    gpus,
  });
}

/** Why a container that is given the device does not see exactly it; undefined when it does. */
async function tryPassing(trial: GpuTrial, image: string, passing: GpuPassing): Promise<string | undefined> {
  const isRocm = passing.way === 'rocm';
  const command = isRocm
    ? ['/bin/sh', '-c', OPENS, 'sh', ...passing.nodes.map(({ inContainer }) => inContainer)]
    : ['nvidia-smi', '-L'];
  try {
    const { exitCode, said } = await runToEnd(trial, checkConfig(trial, image, command, [passing]));
    if (exitCode !== 0) return NOT_THERE.test(said) ? GIVES_NONE : `the check ended with ${exitCode}: ${oneLine(said)}`;
    return isRocm ? wrongNodes(said, passing) : wrongList(said, passing.id);
  } catch (error) {
    trial.signal.throwIfAborted();
    const { message } = faultOf(error);
    return NOT_THERE.test(message) ? GIVES_NONE : oneLine(message.replace(/^.*container init: /s, ''));
  }
}

async function runToEnd(
  trial: GpuTrial,
  config: ContainerCreateOptions,
): Promise<{ readonly exitCode: number; readonly said: string }> {
  const container = await trial.engine.createContainer(config);
  try {
    await container.start();
    return await endOf(trial, container);
  } finally {
    await container.remove({ force: true, v: true });
  }
}

async function endOf(
  trial: GpuTrial,
  container: Awaited<ReturnType<Engine['createContainer']>>,
): Promise<{ readonly exitCode: number; readonly said: string }> {
  for (let look = 0; look < LOOKS_MAX; look++) {
    await trial.env.clock.sleep(LOOK_MS, trial.signal);
    const { State } = await container.inspect();
    if (State.Running) continue;
    const log = await container.logs({ stdout: true, stderr: true });
    let said = '';
    for await (const { bytes } of readFrames([log])) said += Buffer.from(bytes).toString('latin1');
    return { exitCode: State.ExitCode, said };
  }
  return { exitCode: -1, said: `no answer after ${(LOOK_MS * LOOKS_MAX) / 1_000} s` };
}

/** Why this list is not exactly the one device; undefined when it is. A slice is listed below the card it is cut from. */
export function wrongList(list: string, id: string): string | undefined {
  const kind = id.startsWith('MIG-') ? 'MIG-' : 'GPU-';
  const listed = [...list.matchAll(/\(UUID: ([^)\s]{1,120})\)/g)].map((match) => match[1] ?? '');
  const seen = listed.filter((one) => one.startsWith(kind));
  const slices = listed.filter((one) => one.startsWith('MIG-'));
  if (seen.length === 1 && seen[0] === id && (kind === 'MIG-' || slices.length === 0)) return undefined;
  return listed.length === 0
    ? 'the engine accepts the request and gives no GPU: nvidia-smi lists none in the container'
    : `the container should see ${id} alone, and sees ${listed.slice(0, 8).join(', ')}`;
}

function wrongNodes(said: string, { nodes }: Extract<GpuPassing, { way: 'rocm' }>): string | undefined {
  const seen = said.trim().split(/\s+/).sort();
  const given = nodes.map(({ inContainer }) => inContainer).sort();
  return seen.join(' ') === given.join(' ')
    ? undefined
    : `the container should see ${given.join(', ')} alone, and sees ${oneLine(seen.slice(0, 8).join(', '))}`;
}

function oneLine(text: string): string {
  return text
    .replaceAll(/\P{L}*\n\P{L}*/gu, '; ')
    .replaceAll(/\p{Cc}+/gu, ' ')
    .trim()
    .slice(0, 200);
}
