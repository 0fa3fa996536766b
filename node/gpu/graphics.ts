/**
 * GPUs that no vendor's tool of ours speaks for, as far as `systeminformation` tells: for people to see why nothing is
 * sold, since containers cannot be given them by id.
 */
import { type GpuDetection, type GpuVendor, type GpuSource, modelName, pciAddress } from './device.ts';

const VENDORS: readonly (readonly [RegExp, GpuVendor])[] = [
  [/nvidia/i, 'nvidia'],
  [/\bamd\b|advanced micro|\bati\b|radeon/i, 'amd'],
  [/intel/i, 'intel'],
  [/apple/i, 'apple'],
];

const REASONS: Readonly<Record<GpuVendor, string>> = {
  nvidia: 'nvidia-smi is not here; install the NVIDIA driver to sell it',
  amd: 'neither amd-smi nor rocm-smi is here; install ROCm to sell it',
  intel: 'Intel GPUs are not sold: nothing here tells them apart by an id that a container can be given',
  apple: 'Apple GPUs are not sold: containers cannot reach Metal',
  other: 'GPUs of this vendor are not sold',
};

/** What of a controller is read. */
export interface Controller {
  readonly vendor?: string;
  readonly model?: string;
  readonly busAddress?: string;
  /** MiB, null when not told. */
  readonly vram?: number | null;
}

/** Asked once: it is slow, and what it tells is never sold. */
export function createGraphics(read: () => Promise<readonly Controller[]> = readControllers): GpuSource {
  let found: Promise<GpuDetection> | undefined;
  return {
    look: () => {
      found ??= read().then(parseControllers, (error: unknown) => ({
        devices: [],
        problems: [
          `the graphics controllers cannot be listed: ${error instanceof Error ? error.message : String(error)}`,
        ],
      }));
      return found;
    },
  };
}

export function parseControllers(controllers: readonly Controller[]): GpuDetection {
  const devices = controllers.flatMap(({ vendor = '', model = '', busAddress = '', vram }, index) => {
    const kind = VENDORS.find(([pattern]) => pattern.test(`${vendor} ${model}`))?.[1];
    // Without a vendor it is the display of a virtual machine or a board's console.
    if (kind === undefined) return [];
    const isSize = typeof vram === 'number' && Number.isSafeInteger(vram * 2 ** 20) && vram >= 0;
    return [
      {
        id: `${kind.toUpperCase()}-${pciAddress(busAddress) || index}`,
        vendor: kind,
        model: modelName(model),
        memoryBytes: isSize ? vram * 2 ** 20 : 0,
        memoryUsedBytes: undefined,
        busyPercent: undefined,
        driver: '',
        computeCapability: 0,
        busId: pciAddress(busAddress),
        numaNode: undefined,
        links: {},
        fault: REASONS[kind],
      },
    ];
  });
  return { devices, problems: [] };
}

async function readControllers(): Promise<readonly Controller[]> {
  const { default: information } = await import('systeminformation');
  return (await information.graphics()).controllers;
}
