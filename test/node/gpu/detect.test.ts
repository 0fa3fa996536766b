/**
 * Goal: whatever the vendors' tools answer, what is read of it is true, and nothing breaks. Method: answers in the published
 * formats, executables that answer them, garbage.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';

import { parseAmdSmi, parseRocmSmi } from '../../../node/gpu/amd.ts';
import { combine } from '../../../node/gpu/detect.ts';
import { CLOSENESS } from '../../../market/index.ts';
import { modelName } from '../../../node/gpu/device.ts';
import { createGraphics, parseControllers } from '../../../node/gpu/graphics.ts';
import { createNvidia, parseCapabilities, parseNvidia, parseSlices, parseTopology } from '../../../node/gpu/nvidia.ts';
import { type Tool, createTool } from '../../../node/gpu/tool.ts';
import { parseToolkitVersion, readToolkit } from '../../../node/gpu/toolkit.ts';
import { systemEnv } from '../../../protocol/env.ts';
import {
  type FakeCard,
  capabilityCsv,
  listText,
  nvidiaXml,
  topologyText,
  writeNvidiaTools,
  writeProgram,
} from '../../fixtures/gpu.ts';

const env = systemEnv();
const directory = mkdtempSync(join(tmpdir(), 'molt-gpu-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const A = 'GPU-11111111-2222-3333-4444-555555555555';
const B = 'GPU-66666666-7777-8888-9999-000000000000';
const SLICE = 'MIG-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';

/** A tool that answers from a table; what is not in it is not on this machine. */
function replay(table: Readonly<Record<string, string>>): Tool {
  return async (program, args) => {
    const text = table[[program, ...args].join(' ')] ?? table[program];
    return text === undefined ? { failed: 'absent', reason: `there is no ${program} here` } : { text };
  };
}

function nvidia(cards: readonly FakeCard[], topology = ''): Tool {
  return replay({
    'nvidia-smi -q -x': nvidiaXml(cards),
    'nvidia-smi --query-gpu=uuid,compute_cap --format=csv,noheader': capabilityCsv(cards),
    'nvidia-smi -L': listText(cards),
    'nvidia-smi topo -m': topology,
  });
}

test('a card is read with everything that tells it from others', async () => {
  const topology = topologyText(
    [
      [' X ', 'NV18'],
      ['NV18', ' X '],
    ],
    ['0', '1'],
  );
  const { devices, problems } = await createNvidia(
    nvidia([{ id: A, used: '512 MiB', busy: '37 %' }, { id: B }], topology),
  ).look();
  expect(problems).toEqual([]);
  expect(devices[0]).toEqual({
    id: A,
    vendor: 'nvidia',
    model: 'NVIDIA H100 80GB HBM3',
    memoryBytes: 81_559 * 2 ** 20,
    memoryUsedBytes: 512 * 2 ** 20,
    busyPercent: 37,
    driver: '590.48.01',
    computeCapability: 90,
    busId: '0000:0c:00.0',
    numaNode: 0,
    links: { [B]: CLOSENESS.linked + 18 },
    fault: undefined,
  });
  expect(devices[1]).toMatchObject({ id: B, busId: '0000:0d:00.0', numaNode: 1 });
});

test.each([
  'N/A',
  '[N/A]',
  '[Function Not Found]',
  '[Not Supported]',
  'Requested functionality has been deprecated',
  '',
])('a value that reads %j is not there, and the card is sold as what it is', async (absent) => {
  const cards = [{ id: A, memory: absent, used: absent, busy: absent, capability: absent, recovery: absent }];
  const { devices } = await createNvidia(nvidia(cards)).look();
  expect(devices).toMatchObject([
    {
      id: A,
      memoryBytes: 0,
      memoryUsedBytes: undefined,
      busyPercent: undefined,
      computeCapability: 0,
      fault: undefined,
    },
  ]);
});

test.each([
  [{ memory: '[GPU requires reset]' }, 'GPU requires reset'],
  [{ busy: 'ERR!' }, 'ERR!'],
  [{ used: '[Unknown Error]' }, 'Unknown Error'],
  [{ recovery: 'Reset' }, 'Reset'],
])('a card that needs help is listed and not sold: %j', async (values, said) => {
  const { devices } = await createNvidia(nvidia([{ id: A, ...values }, { id: B }])).look();
  expect(devices[0]?.fault).toContain(said);
  expect(devices[1]?.fault).toBeUndefined();
});

test('a partitioned card is its slices, each with its own memory and id, and not the card', async () => {
  const slices = [
    { id: SLICE, profile: '3g.40gb', memory: '40448 MiB' },
    { id: SLICE.replace('aaaa', 'ffff'), profile: '1g.10gb', memory: '9856 MiB' },
  ];
  const { devices } = await createNvidia(nvidia([{ id: A, used: '[N/A]', busy: '[N/A]', slices }, { id: B }])).look();
  expect(
    devices.map(({ id, model, memoryBytes, computeCapability }) => [id, model, memoryBytes, computeCapability]),
  ).toEqual([
    [SLICE, 'NVIDIA H100 80GB HBM3 MIG 3g.40gb', 40_448 * 2 ** 20, 90],
    [slices[1]?.id, 'NVIDIA H100 80GB HBM3 MIG 1g.10gb', 9_856 * 2 ** 20, 90],
    [B, 'NVIDIA H100 80GB HBM3', 81_559 * 2 ** 20, 90],
  ]);
});

test('a partitioned card without slices, and a card without an id, are problems in words', async () => {
  const { devices, problems } = await createNvidia(nvidia([{ id: A, slices: [] }, { id: '[N/A]' }])).look();
  expect(devices).toEqual([]);
  expect(problems).toEqual([
    expect.stringContaining('has no named slices'),
    expect.stringContaining('0000:0d:00.0 tells no UUID'),
  ]);
});

test('an id listed twice is one device: it is not sold twice', async () => {
  const { devices } = await createNvidia(nvidia([{ id: A }, { id: A }])).look();
  expect(devices).toHaveLength(1);
});

test('an unknown model is sold under its own name, cut to what an offer carries', async () => {
  const model = 'NVIDIA RTX PRO 9999 Something Max-Q Workstation Edition of the Future';
  const { devices } = await createNvidia(nvidia([{ id: A, model }])).look();
  expect(devices[0]?.model).toBe(model.slice(0, 40).trim());
  expect(modelName('a'.repeat(60), 'MIG 1g.5gb')).toBe(`${'a'.repeat(29)} MIG 1g.5gb`);
});

test('a driver that fails, and one that hangs, are problems in words and no devices', async () => {
  const broken = join(directory, 'broken');
  writeNvidiaTools(broken, { cards: [] });
  writeProgram(
    join(broken, 'nvidia-smi'),
    `echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver." ; exit 9`,
  );
  const path = `${broken}:/usr/bin:/bin`;
  expect(await createNvidia(createTool(env, path)).look()).toEqual({
    devices: [],
    problems: [expect.stringContaining("couldn't communicate with the NVIDIA driver")],
  });
  writeProgram(join(broken, 'nvidia-smi'), 'exec sleep 60');
  const tool = createTool(hurried, path);
  expect(await createNvidia(tool).look()).toEqual({
    devices: [],
    problems: [expect.stringContaining('did not answer in 5 s')],
  });
});

/** A clock on which five seconds are fifty milliseconds. */
const hurried = {
  ...env,
  clock: { ...env.clock, sleep: (ms: number, signal?: AbortSignal) => env.clock.sleep(ms / 100, signal) },
};

test('executables on the search path are asked without a shell, in the C locale', async () => {
  const good = join(directory, 'good');
  writeNvidiaTools(good, { cards: [{ id: A }], toolkit: '1.19.1' });
  writeProgram(join(good, 'locale'), 'echo "$LC_ALL $1"');
  const tool = createTool(env, `${good}:/usr/bin:/bin`);
  expect(await tool('locale', ['; echo no'])).toEqual({ text: 'C ; echo no\n' });
  expect((await createNvidia(tool).look()).devices).toMatchObject([{ id: A, computeCapability: 90 }]);
  expect(await tool('not-here-at-all', [])).toMatchObject({ failed: 'absent' });
});

test('the topology is read from the table: links, switches, bridges, NUMA nodes', () => {
  const read = parseTopology(
    topologyText(
      [
        [' X ', 'NV4', 'PIX', 'SYS'],
        ['NV4', ' X ', 'PXB', 'NODE'],
        ['PIX', 'PXB', ' X ', 'PHB'],
        ['SYS', 'NODE', 'PHB', ' X '],
      ],
      ['0', '0', '1', 'N/A'],
    ),
  );
  expect([1, 2, 3].map((to) => read.closeness(0, to))).toEqual([104, CLOSENESS.sameSwitch, CLOSENESS.far]);
  expect([read.closeness(1, 2), read.closeness(1, 3), read.closeness(2, 3)]).toEqual([
    CLOSENESS.sameBridge,
    CLOSENESS.sameNode,
    CLOSENESS.hostBridge,
  ]);
  expect([0, 2, 3, 9].map((card) => read.numaNode(card))).toEqual([0, 1, undefined, undefined]);
});

test('amd-smi is read in both wrappings, with use where it tells', () => {
  const card = {
    gpu: 0,
    asic: { market_name: 'AMD Instinct MI300X', asic_serial: '0x1' },
    bus: { bdf: '0000:83:00.0' },
    vram: { type: 'HBM3', size: { value: 196_592, unit: 'MB' } },
    driver: { name: 'amdgpu', version: '6.19.14' },
    numa: { node: 1 },
  };
  const use = [
    { gpu: 0, usage: { gfx_activity: { value: 12, unit: '%' } }, mem_usage: { used_vram: { value: 283, unit: 'MB' } } },
  ];
  const expected = {
    id: 'AMD-0000:83:00.0',
    vendor: 'amd',
    model: 'AMD Instinct MI300X',
    memoryBytes: 196_592 * 2 ** 20,
    memoryUsedBytes: 283 * 2 ** 20,
    busyPercent: 12,
    driver: '6.19.14',
    numaNode: 1,
  };
  for (const wrapped of [[card], { gpu_data: [card] }, card]) {
    expect(parseAmdSmi(JSON.stringify(wrapped), JSON.stringify(use))).toMatchObject({
      devices: [expected],
      problems: [],
    });
  }
  expect(parseAmdSmi(JSON.stringify([card]), 'WARNING')).toMatchObject({ devices: [{ memoryUsedBytes: undefined }] });
  expect(
    parseAmdSmi(JSON.stringify([{ gpu: 0, asic: { market_name: 'N/A' }, bus: { bdf: 'N/A' } }]), '').problems,
  ).toHaveLength(1);
});

test('rocm-smi is read in both spellings of its keys, beside its system object', () => {
  const old = {
    card0: {
      'Card series': 'AMD Instinct MI100',
      'PCI Bus': '0000:1A:00.0',
      'VRAM Total Memory (B)': '34342961152',
      'VRAM Total Used Memory (B)': '6782976',
      'GPU use (%)': '0',
    },
    system: { 'Driver version': '6.1.1' },
  };
  const now = {
    card0: { 'Card Series': 'N/A', 'Card Model': '0x73df', 'PCI Bus': '0000:1A:00.0', 'VRAM Total Memory (B)': 'N/A' },
  };
  expect(parseRocmSmi(JSON.stringify(old)).devices).toMatchObject([
    {
      id: 'AMD-0000:1a:00.0',
      model: 'AMD Instinct MI100',
      memoryBytes: 34_342_961_152,
      busyPercent: 0,
      driver: '6.1.1',
    },
  ]);
  expect(parseRocmSmi(JSON.stringify(now)).devices).toMatchObject([{ model: '0x73df', memoryBytes: 0 }]);
});

test('a GPU that nobody can pass on is told with the reason, and only where no tool found one', async () => {
  const controllers = [
    { vendor: 'Intel Corporation', model: 'Arc A770', busAddress: '03:00.0', vram: 16_384 },
    { vendor: 'Cirrus Logic' },
  ];
  const graphics = createGraphics(async () => controllers);
  expect(await combine(replay({}), graphics).look()).toMatchObject({
    devices: [{ id: 'INTEL-0000:03:00.0', vendor: 'intel', fault: expect.stringContaining('not sold') }],
  });
  expect((await combine(nvidia([{ id: A }]), graphics).look()).devices).toMatchObject([{ id: A }]);
  expect(parseControllers([{ vendor: 'Apple', model: 'M4 Max', vram: null }]).devices).toMatchObject([
    { vendor: 'apple', fault: expect.stringContaining('Metal') },
  ]);
});

test('a toolkit with known ways out of a container is refused, and so is one that is not there', async () => {
  const toolkit = (text: string) => readToolkit(replay({ 'nvidia-ctk': text }));
  expect(await toolkit('NVIDIA Container Toolkit CLI version 1.19.1\ncommit: 0123')).toEqual({
    version: '1.19.1',
    refusal: undefined,
  });
  expect((await toolkit('NVIDIA Container Toolkit CLI version 2.0.0')).refusal).toBeUndefined();
  expect((await toolkit('NVIDIA Container Toolkit CLI version 1.19.0')).refusal).toContain('CVE-2026-24260');
  expect((await toolkit('NVIDIA Container Toolkit CLI version 1.9.9')).refusal).toContain('install 1.19.1');
  expect(await readToolkit(replay({}))).toMatchObject({
    version: undefined,
    refusal: expect.stringContaining('not here'),
  });
  expect(parseToolkitVersion('cli-version: 1.17.8')).toBe('1.17.8');
});

test('no answer, however broken, makes a reader throw or an id that an engine would misread', () => {
  const xml = nvidiaXml([{ id: A, slices: [{ id: SLICE, profile: '3g.40gb', memory: '1 MiB' }] }, { id: B }]);
  const samples = [
    xml,
    listText([{ id: A }]),
    capabilityCsv([{ id: A }]),
    topologyText([[' X ']], ['0']),
    '{"card0":{}}',
  ];
  const mangled = fc
    .tuple(
      fc.constantFrom(...samples),
      fc.array(fc.tuple(fc.nat(4_000), fc.string({ maxLength: 4 })), { maxLength: 8 }),
      fc.nat(4_000),
    )
    .map(([sample, edits, end]) => {
      const text = edits.reduce((now, [at, put]) => now.slice(0, at) + put + now.slice(at + put.length), sample);
      return end % 3 === 0 ? text.slice(0, end) : text;
    });
  fc.assert(
    fc.property(fc.oneof(fc.string({ maxLength: 200 }), mangled, fc.json()), (text) => {
      const background = {
        capabilities: parseCapabilities(text),
        topology: parseTopology(text),
        slices: parseSlices(text),
      };
      const found = [
        parseNvidia(text, background),
        parseNvidia(xml, background),
        parseAmdSmi(text, text),
        parseRocmSmi(text),
      ];
      for (const device of found.flatMap((one) => one.devices)) {
        expect(device.id).toMatch(/^[A-Za-z0-9:./-]+$/);
        expect(device.model).toMatch(/^[\x20-\x7e]{1,40}$/);
        expect(Number.isSafeInteger(device.memoryBytes)).toBe(true);
      }
      parseToolkitVersion(text);
    }),
    { numRuns: 1_000 },
  );
});
