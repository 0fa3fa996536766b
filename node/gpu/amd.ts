/**
 * AMD cards, as `amd-smi` tells them, or `rocm-smi` where that is all there is. JSON whose keys and wrapping change between
 * releases, so it is read by meaning and not by place. The readers never throw.
 */
import { z } from 'zod';

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

const ROCM_ARGS = [
  '--showproductname',
  '--showbus',
  '--showuniqueid',
  '--showdriverversion',
  '--showuse',
  '--showmeminfo',
  'vram',
  '--json',
] as const;

/** No tool is no cards; a tool that fails is a problem. */
export function createAmd(tool: Tool): GpuSource {
  return {
    async look() {
      const facts = await tool('amd-smi', ['static', '--json']);
      if ('text' in facts) {
        const use = await tool('amd-smi', ['metric', '--json']);
        return parseAmdSmi(facts.text, 'text' in use ? use.text : '');
      }
      const answer = await tool('rocm-smi', ROCM_ARGS);
      if ('text' in answer) return parseRocmSmi(answer.text);
      const problems = [facts, answer].flatMap((one) => (one.failed === 'absent' ? [] : [one.reason]));
      return { devices: [], problems };
    },
  };
}

const record = z.record(z.string(), z.unknown());

/** The value under the names, whatever it is. */
function at(value: unknown, ...names: readonly string[]): unknown {
  let here = value;
  for (const name of names) {
    const parsed = record.safeParse(here);
    here = parsed.success && Object.hasOwn(parsed.data, name) ? parsed.data[name] : undefined;
  }
  return here;
}

/** Text or number → text; anything else → "". A value with its unit, `{ value: 196592, unit: "MB" }`, becomes one text. */
function textOf(value: unknown): string {
  if (typeof value === 'string') return value.trim();
  if (typeof value === 'number') return String(value);
  const amount = at(value, 'value');
  const unit = at(value, 'unit');
  return amount === undefined ? '' : `${textOf(amount)} ${typeof unit === 'string' ? unit : ''}`.trim();
}

/** Cards in whatever list the release wraps them in. */
function cardsIn(json: string): readonly unknown[] | undefined {
  const value = parseJson(json);
  const list = Array.isArray(value) ? value : at(value, 'gpu_data');
  if (Array.isArray(list)) return list;
  return at(value, 'gpu') === undefined ? undefined : [value];
}

function parseJson(json: string): unknown {
  try {
    // Some releases print a warning before the JSON.
    return JSON.parse(json.slice(Math.max(0, json.search(/[[{]/))));
  } catch {
    return undefined;
  }
}

/** The answers of `amd-smi static --json` and `amd-smi metric --json`. */
export function parseAmdSmi(facts: string, use: string): GpuDetection {
  const cards = cardsIn(facts);
  if (cards === undefined) return { devices: [], problems: ['amd-smi answered something that is not its JSON'] };
  const uses = cardsIn(use) ?? [];
  return collect(
    cards.map((card) => {
      const now = uses.find((one) => textOf(at(one, 'gpu')) === textOf(at(card, 'gpu')));
      const numa = textOf(at(card, 'numa', 'node'));
      return {
        busId: textOf(at(card, 'bus', 'bdf')),
        model: textOf(at(card, 'asic', 'market_name')),
        driver: textOf(at(card, 'driver', 'version')) || textOf(at(card, 'driver', 'driver_version')),
        total: textOf(at(card, 'vram', 'size')),
        used: textOf(at(now, 'mem_usage', 'used_vram')),
        busy: textOf(at(now, 'usage', 'gfx_activity')),
        numaNode: /^\d{1,4}$/.test(numa) ? Number(numa) : undefined,
      };
    }),
    'amd-smi',
  );
}

/** The answer of `rocm-smi … --json`: an object per card, and one named "system". Sizes are bytes. */
export function parseRocmSmi(json: string): GpuDetection {
  const parsed = record.safeParse(parseJson(json));
  if (!parsed.success) return { devices: [], problems: ['rocm-smi answered something that is not its JSON'] };
  const driver = textOf(at(parsed.data, 'system', 'Driver version'));
  const cards = Object.entries(parsed.data).filter(([name]) => /^card\d{1,3}$/.test(name));
  return collect(
    cards.map(([, card]) => {
      // The case of keys differs between releases: "Card series" became "Card Series".
      const own = record.safeParse(card);
      const fields = new Map(
        Object.entries(own.success ? own.data : {}).map(([key, value]) => [key.toLowerCase(), value]),
      );
      const field = (name: string): string => textOf(fields.get(name));
      const series = field('card series');
      return {
        busId: field('pci bus'),
        model: isAbsent(series) ? field('card model') : series,
        driver: field('driver version') || driver,
        total: field('vram total memory (b)'),
        used: field('vram total used memory (b)'),
        busy: field('gpu use (%)'),
        numaNode: undefined,
      };
    }),
    'rocm-smi',
  );
}

interface Raw {
  readonly busId: string;
  readonly model: string;
  readonly driver: string;
  readonly total: string;
  readonly used: string;
  readonly busy: string;
  readonly numaNode: number | undefined;
}

/** Cards are named and passed on by their PCI address: without one there is nothing to give a container. */
function collect(cards: readonly Raw[], program: string): GpuDetection {
  const devices = new Map<string, GpuDevice>();
  const problems: string[] = [];
  for (const raw of cards) {
    const busId = pciAddress(raw.busId);
    if (busId === '') {
      problems.push(`${program} lists ${modelName(raw.model)} without a PCI address; it cannot be sold by id`);
      continue;
    }
    const id = `AMD-${busId}`;
    const fault = [raw.total, raw.used, raw.busy, raw.model].map(faultIn).find((text) => text !== undefined);
    devices.set(id, {
      id,
      vendor: 'amd',
      model: modelName(isAbsent(raw.model) ? 'AMD GPU' : raw.model),
      memoryBytes: sizeBytes(raw.total) ?? 0,
      memoryUsedBytes: sizeBytes(raw.used),
      busyPercent: percent(raw.busy),
      driver: isAbsent(raw.driver) ? '' : raw.driver.slice(0, 40),
      computeCapability: 0,
      busId,
      numaNode: raw.numaNode,
      links: {},
      fault: fault === undefined ? undefined : `${program} says: ${fault}`,
    });
  }
  return { devices: [...devices.values()], problems };
}
