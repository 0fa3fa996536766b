/** What a GPU is to a provider: a device with an id, and what its vendor's tools tell of it. */
import type { Gpu } from '../../market/index.ts';
import { LIMITS } from '../../protocol/limits.ts';

export type GpuVendor = 'nvidia' | 'amd' | 'intel' | 'apple' | 'other';

/**
 * As the machine's own tools tell it. Unknown models are here as what they call themselves; nothing is guessed. The id is
 * the vendor's own UUID where it has one (`GPU-…`, `MIG-…`), else `AMD-<pci address>`.
 */
export interface GpuDevice extends Gpu {
  readonly vendor: GpuVendor;
  /** In use by anybody; undefined where the tools do not tell. */
  readonly memoryUsedBytes: number | undefined;
  /** 0 … 100, share of time in which something ran; undefined where the tools do not tell. */
  readonly busyPercent: number | undefined;
  /** Driver version, "" when not told. */
  readonly driver: string;
  /** Profile of a slice of a partitioned card; its model ends in it. */
  readonly migProfile?: string;
  /** Why it cannot be sold, whatever the engine says; undefined when nothing is wrong with it. */
  readonly fault: string | undefined;
}

/** What was found, and what went wrong on the way, one sentence each. */
export interface GpuDetection {
  readonly devices: readonly GpuDevice[];
  readonly problems: readonly string[];
}

/** A model name as it may stand in an offer. `suffix` is kept when the whole is too long. */
export function modelName(text: string, suffix = ''): string {
  const printable = (text: string): string =>
    text
      .replaceAll(/[^\x20-\x7e]+/g, ' ')
      .replaceAll(/ +/g, ' ')
      .trim();
  const [name, end] = [printable(text), printable(suffix)];
  if (end === '') return (name === '' ? 'unknown' : name).slice(0, LIMITS.modelCharacters).trim();
  const room = Math.max(0, LIMITS.modelCharacters - end.length - 1);
  return `${(name === '' ? 'unknown' : name).slice(0, room).trim()} ${end}`.trim().slice(0, LIMITS.modelCharacters);
}

/** A PCI address in one form: `00000000:0C:00.0` and `0000:0c:00.0` are the same card. */
export function pciAddress(text: string): string {
  const match = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/i.exec(text.trim());
  if (match === null) return '';
  const [, domain = '0000', bus, device, unit] = match;
  return `${domain.slice(-4)}:${bus}:${device}.${unit}`.toLowerCase();
}

/** Text that tools print where a value should be. */
export function isAbsent(text: string): boolean {
  const bare = text
    .trim()
    .replaceAll(/^\[|\]$/g, '')
    .toLowerCase();
  return ABSENT.has(bare);
}

const ABSENT: ReadonlySet<string> = new Set([
  '',
  'n/a',
  'none',
  'not supported',
  'not available',
  'function not found',
  'requested functionality has been deprecated',
  'insufficient permissions',
  'unknown',
]);

/** What a tool prints for a card that is listed and cannot be used; undefined for everything else. */
export function faultIn(text: string): string | undefined {
  return /requires reset|err!|unknown error|gpu is lost|fallen off the bus|unhealthy/i.test(text)
    ? text
        .trim()
        .replaceAll(/^\[|\]$/g, '')
        .slice(0, 80)
    : undefined;
}

const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  kib: 2 ** 10,
  kb: 2 ** 10,
  mib: 2 ** 20,
  mb: 2 ** 20,
  gib: 2 ** 30,
  gb: 2 ** 30,
};

/** "81559 MiB" → bytes. Tools that say MB mean MiB. Undefined for what is not a size. */
export function sizeBytes(text: string): number | undefined {
  const match = /^(\d{1,15}(?:\.\d{1,6})?) ?([kmg]?i?b)?$/i.exec(text.trim());
  if (match === null) return undefined;
  const bytes = Number(match[1]) * (UNITS[(match[2] ?? 'b').toLowerCase()] ?? 1);
  return Number.isSafeInteger(Math.round(bytes)) ? Math.round(bytes) : undefined;
}

/** "37 %" → 37. Undefined for what is not a share. */
export function percent(text: string): number | undefined {
  const match = /^(\d{1,3}(?:\.\d{1,6})?) ?%?$/.exec(text.trim());
  const value = match === null ? undefined : Number(match[1]);
  return value !== undefined && value <= 100 ? value : undefined;
}

/** One vendor's tools on this machine. */
export interface GpuSource {
  /** Everything there is now. Asks as little as it can after the first time; never rejects. */
  look(): Promise<GpuDetection>;
}
