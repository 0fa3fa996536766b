/**
 * Giving GPUs to a container: by id, in the way that was seen to work on this engine.
 *
 * Engines answer success and give none (Podman's Docker socket, a toolkit that is set up for another runtime), so a way is
 * only used after a container that got the device that way listed exactly this device: gpu-check.ts.
 */
import { realpath, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';

import type { ContainerCreateOptions } from 'dockerode';

import type { GpuDevice } from '../../gpu/index.ts';

type HostConfig = NonNullable<ContainerCreateOptions['HostConfig']>;

/** A device of the host as a container gets it. */
export interface DeviceNode {
  readonly onHost: string;
  readonly inContainer: string;
}

/** How one device is given. `lockedMemory`: the engine may lift the limit on locked memory, which CUDA pins buffers in. */
export type GpuPassing =
  | { readonly way: 'nvidia' | 'cdi'; readonly id: string; readonly lockedMemory: boolean }
  | {
      readonly way: 'rocm';
      readonly id: string;
      readonly lockedMemory: boolean;
      readonly nodes: readonly DeviceNode[];
      /** Group on the host that may open them. */
      readonly group: number;
    };

const MEMLOCK_UNLIMITED = -1;
const MEMLOCK_BYTES = 65_536;

/** What a container's configuration gets for these devices; for none of them what keeps an image from claiming any. */
export function gpuConfig(gpus: readonly GpuPassing[]): { readonly env: readonly string[]; readonly host: HostConfig } {
  const nvidia = gpus.filter(({ way }) => way === 'nvidia').map(({ id }) => id);
  const cdi = gpus.filter(({ way }) => way === 'cdi').map(({ id }) => `nvidia.com/gpu=${id}`);
  const rocm = gpus.filter((one) => one.way === 'rocm');
  const nodes = new Map(rocm.flatMap((one) => one.nodes.map((node) => [node.onHost, node])));
  const requests = [
    ...(nvidia.length === 0
      ? []
      : [{ Driver: 'nvidia', DeviceIDs: nvidia, Capabilities: [['gpu', 'compute', 'utility']] }]),
    ...(cdi.length === 0 ? [] : [{ Driver: 'cdi', DeviceIDs: cdi }]),
  ];
  const isFree = gpus.length > 0 && gpus.every(({ lockedMemory }) => lockedMemory);
  const memlock = isFree ? MEMLOCK_UNLIMITED : MEMLOCK_BYTES;
  return {
    // Said in any case: an image may carry these variables, and a runtime of older kind obeys them.
    env: [
      `NVIDIA_VISIBLE_DEVICES=${nvidia.length === 0 ? 'void' : nvidia.join(',')}`,
      ...(nvidia.length === 0 ? [] : ['NVIDIA_DRIVER_CAPABILITIES=compute,utility']),
    ],
    host: {
      ...(requests.length === 0 ? {} : { DeviceRequests: requests }),
      ...(nodes.size === 0
        ? {}
        : {
            Devices: [...nodes.values()].map(({ onHost, inContainer }) => ({
              PathOnHost: onHost,
              PathInContainer: inContainer,
              CgroupPermissions: 'rw',
            })),
            GroupAdd: [...new Set(rocm.map(({ group }) => String(group)))],
          }),
      Ulimits: [{ Name: 'memlock', Soft: memlock, Hard: memlock }],
    },
  };
}

/** Ways to try, the usual one first. Empty when the device has no nodes here. */
export async function waysOf(
  device: GpuDevice,
  engine: { readonly devices: string; readonly lockedMemory: boolean },
): Promise<readonly GpuPassing[]> {
  const { id, vendor, busId } = device;
  const { lockedMemory } = engine;
  if (vendor === 'nvidia')
    return [
      { way: 'nvidia', id, lockedMemory },
      { way: 'cdi', id, lockedMemory },
    ];
  const found = vendor === 'amd' ? await rocmNodes(busId, engine.devices) : undefined;
  return found === undefined ? [] : [{ way: 'rocm', id, lockedMemory, ...found }];
}

/** ROCm needs the compute interface, which all cards share, and the render node of this card. */
async function rocmNodes(
  busId: string,
  devices: string,
): Promise<Pick<Extract<GpuPassing, { way: 'rocm' }>, 'nodes' | 'group'> | undefined> {
  try {
    const compute = join(devices, 'kfd');
    const render = await realpath(join(devices, 'dri/by-path', `pci-${busId}-render`));
    const { gid } = await stat(render);
    await stat(compute);
    return {
      group: gid,
      nodes: [
        { onHost: compute, inContainer: '/dev/kfd' },
        { onHost: render, inContainer: `/dev/dri/${basename(render)}` },
      ],
    };
  } catch {
    return undefined;
  }
}
