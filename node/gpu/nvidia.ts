/**
 * NVIDIA cards and their MIG slices, as `nvidia-smi` tells them.
 *
 * `-q -x` has nearly everything and survives new fields; compute capability, the names of slices and the topology are only
 * in other answers, each of which may be missing. The readers never throw: what is not understood is left out and, where
 * it matters to the operator, named as a problem.
 */
import { CLOSENESS } from '../../market/index.ts';
import {
  type GpuDetection,
  type GpuDevice,
  type GpuSource,
  faultIn,
  isAbsent,
  modelName,
  pciAddress,
  percent,
  sizeBytes,
} from './device.ts';
import type { Tool } from './tool.ts';
import { type XmlElement, childrenOf, parseXml, textAt } from './xml.ts';

const PROGRAM = 'nvidia-smi';
/** Safe in an engine's request and in an environment variable. */
const CARD_ID = /^GPU-[0-9A-Fa-f-]{8,64}$/;
const SLICE_ID = /^MIG-[0-9A-Za-z/-]{8,96}$/;

interface Slice {
  readonly profile: string;
  readonly id: string;
}

export interface Topology {
  /** Between the n-th and the m-th card, CLOSENESS. */
  closeness(from: number, to: number): number;
  numaNode(card: number): number | undefined;
}

/** What only changes with the machine, so it is asked for once. */
export interface NvidiaBackground {
  /** Tenths, by the card's id. */
  readonly capabilities: ReadonlyMap<string, number>;
  readonly topology: Topology;
  /** By the card's id and the slice's index on it: `GPU-…/0`. */
  readonly slices: ReadonlyMap<string, Slice>;
}

/** No tool is no cards; a tool that fails is a problem. */
export function createNvidia(tool: Tool): GpuSource {
  let background: NvidiaBackground | undefined;
  const more = async (...args: readonly string[]): Promise<string> => {
    const answer = await tool(PROGRAM, args);
    return 'text' in answer ? answer.text : '';
  };
  const learn = async (log: string): Promise<NvidiaBackground> => ({
    capabilities: parseCapabilities(await more('--query-gpu=uuid,compute_cap', '--format=csv,noheader')),
    topology: parseTopology(await more('topo', '-m')),
    slices: log.includes('<mig_device>') ? parseSlices(await more('-L')) : new Map(),
  });
  return {
    async look() {
      const answer = await tool(PROGRAM, ['-q', '-x']);
      if ('failed' in answer) {
        return { devices: [], problems: answer.failed === 'absent' ? [] : [answer.reason] };
      }
      background ??= await learn(answer.text);
      return parseNvidia(answer.text, background);
    },
  };
}

/** The answer of `nvidia-smi -q -x`. */
export function parseNvidia(xml: string, background: NvidiaBackground): GpuDetection {
  const log = parseXml(xml);
  if (log === undefined || log.name !== 'nvidia_smi_log') {
    return { devices: [], problems: [`${PROGRAM} answered something that is not its XML`] };
  }
  const cards = childrenOf(log, 'gpu');
  const ids = cards.map((card) => textAt(card, 'uuid'));
  const driver = textAt(log, 'driver_version');
  const devices: GpuDevice[] = [];
  const problems: string[] = [];
  for (const [index, element] of cards.entries()) {
    const id = ids[index] ?? '';
    const busId = pciAddress(textAt(element, 'pci', 'pci_bus_id') || (element.attributes['id'] ?? ''));
    if (!CARD_ID.test(id)) {
      problems.push(`the card at ${busId || 'an unknown address'} tells no UUID; it cannot be sold by id`);
      continue;
    }
    const { topology } = background;
    const near = ids.flatMap((other, to): [string, number][] =>
      to !== index && CARD_ID.test(other) && topology.closeness(index, to) > CLOSENESS.far
        ? [[other, topology.closeness(index, to)]]
        : [],
    );
    const card: GpuDevice = {
      id,
      vendor: 'nvidia',
      model: modelName(textAt(element, 'product_name')),
      driver: isAbsent(driver) ? '' : driver.slice(0, 40),
      computeCapability: background.capabilities.get(id) ?? 0,
      busId,
      numaNode: topology.numaNode(index),
      links: Object.fromEntries(near),
      ...memoryAndUse(element),
      fault: faultOfCard(element),
    };
    if (textAt(element, 'mig_mode', 'current_mig') === 'Enabled') {
      const slices = slicesOf(element, card, background);
      if (slices.length === 0)
        problems.push(`${id} is in MIG mode and has no named slices; make some with nvidia-smi mig`);
      devices.push(...slices);
    } else devices.push(card);
  }
  return { devices: withoutRepeats(devices), problems };
}

function memoryAndUse(element: XmlElement): Pick<GpuDevice, 'memoryBytes' | 'memoryUsedBytes' | 'busyPercent'> {
  return {
    memoryBytes: sizeBytes(textAt(element, 'fb_memory_usage', 'total')) ?? 0,
    memoryUsedBytes: sizeBytes(textAt(element, 'fb_memory_usage', 'used')),
    busyPercent: percent(textAt(element, 'utilization', 'gpu_util')),
  };
}

/** A card that needs a reset still lists; it says so in a value, or in the recovery that it asks for. */
function faultOfCard(element: XmlElement): string | undefined {
  const recovery = textAt(element, 'gpu_recovery_action');
  if (!isAbsent(recovery)) return `the driver asks for: ${recovery.slice(0, 40)}`;
  const telling = [
    textAt(element, 'product_name'),
    textAt(element, 'fb_memory_usage', 'total'),
    textAt(element, 'fb_memory_usage', 'used'),
    textAt(element, 'utilization', 'gpu_util'),
    textAt(element, 'temperature', 'gpu_temp'),
    textAt(element, 'performance_state'),
  ];
  const fault = telling.map(faultIn).find((text) => text !== undefined);
  return fault === undefined ? undefined : `the driver says: ${fault}`;
}

/** Slices are cards of their own: own memory, own id, not given out together with the card they are cut from. */
function slicesOf(element: XmlElement, card: GpuDevice, background: NvidiaBackground): GpuDevice[] {
  const list = element.children.find((child) => child.name === 'mig_devices');
  if (list === undefined) return [];
  return childrenOf(list, 'mig_device').flatMap((slice): GpuDevice[] => {
    const named = background.slices.get(`${card.id}/${textAt(slice, 'index')}`);
    const own = textAt(slice, 'uuid');
    const id = SLICE_ID.test(own) ? own : named?.id;
    if (id === undefined) return [];
    const profile = named?.profile ?? '';
    return [
      {
        ...card,
        id,
        model: modelName(textAt(element, 'product_name'), `MIG ${profile}`),
        ...memoryAndUse(slice),
        migProfile: profile,
      },
    ];
  });
}

/** A tool that lists one id twice would have it sold twice. */
function withoutRepeats(devices: readonly GpuDevice[]): GpuDevice[] {
  return [...new Map(devices.map((device) => [device.id, device])).values()];
}

/** The answer of `--query-gpu=uuid,compute_cap --format=csv,noheader`: "GPU-…, 9.0" → 90. */
export function parseCapabilities(csv: string): ReadonlyMap<string, number> {
  const found = new Map<string, number>();
  for (const line of csv.split('\n')) {
    const [id = '', capability = ''] = line.split(',').map((part) => part.trim());
    const match = /^(\d{1,2})\.(\d)$/.exec(capability);
    if (CARD_ID.test(id) && match !== null) found.set(id, Number(match[1]) * 10 + Number(match[2]));
  }
  return found;
}

/** The answer of `-L`: a line per card, and below it an indented one per slice. */
export function parseSlices(list: string): ReadonlyMap<string, Slice> {
  const found = new Map<string, Slice>();
  let card = '';
  for (const line of list.split('\n')) {
    const id = /\(UUID: ([^)]{1,120})\)/.exec(line)?.[1] ?? '';
    const slice = /^\s+MIG (\S{1,24})\s+Device\s+(\d{1,3}):/.exec(line);
    if (slice === null) card = CARD_ID.test(id) ? id : card;
    else if (SLICE_ID.test(id)) found.set(`${card}/${slice[2]}`, { profile: slice[1] ?? '', id });
  }
  return found;
}

const LINK_NAMES: Readonly<Record<string, number>> = {
  PIX: CLOSENESS.sameSwitch,
  PXB: CLOSENESS.sameBridge,
  PHB: CLOSENESS.hostBridge,
  NODE: CLOSENESS.sameNode,
  SYS: CLOSENESS.far,
};

/** The answer of `topo -m`: a table between tabs, its header perhaps underlined for a terminal. */
export function parseTopology(table: string): Topology {
  // oxlint-disable-next-line no-control-regex -- the escape sequences of terminals are what is looked for
  const plain = table.replaceAll(/\u001b\[[0-9;]*m/g, '');
  const rows = plain.split('\n').map((line) => line.split('\t').map((cell) => cell.trim()));
  const header = rows.find((row) => row.includes('GPU0') && row[0] !== 'GPU0') ?? [];
  const columnOf = (card: number): number => header.indexOf(`GPU${card}`);
  const numaColumn = header.indexOf('NUMA Affinity');
  const rowOf = (card: number): readonly string[] | undefined => rows.find((row) => row[0] === `GPU${card}`);
  return {
    closeness(from, to) {
      const cell = rowOf(from)?.[columnOf(to)] ?? '';
      const bonded = /^NV(\d{1,3})$/.exec(cell)?.[1];
      return bonded === undefined
        ? (LINK_NAMES[cell] ?? CLOSENESS.far)
        : CLOSENESS.linked + Math.min(99, Number(bonded));
    },
    numaNode(card) {
      const cell = numaColumn < 0 ? '' : (rowOf(card)?.[numaColumn] ?? '');
      return /^\d{1,4}$/.test(cell) ? Number(cell) : undefined;
    },
  };
}
