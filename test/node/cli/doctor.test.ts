/** Goal: every check of `molt doctor` says ok, warns and fails on the facts it should, with a way to mend it. Method: facts. */
import { expect, test } from 'vitest';

import { type Check, type Facts, diagnose, worst } from '../../../node/cli/doctor/checks.ts';
import { encodeAddress } from '../../../protocol/address.ts';

const [node, account, network] = [1, 2, 3].map((byte) => encodeAddress(new Uint8Array(32).fill(byte)));
if (node === undefined || account === undefined || network === undefined) throw new Error('three addresses');
const MOLT = 10n ** 9n;
const DAY = 86_400_000;

/** A home that sells and buys, and lacks nothing. */
const GOOD = {
  molt: 'molt',
  home: '/home/a/.molt',
  nodeVersion: '24.1.0',
  files: [
    { path: '/home/a/.molt', mode: 0o700, isDirectory: true },
    { path: '/home/a/.molt/node-key.json', mode: 0o600, isDirectory: false },
  ],
  roles: ['provider', 'buyer'],
  running: { pid: 7, draining: false, unfinished: 0 },
  disk: { freeBytes: 10 ** 11, soldBytes: 10 ** 10 },
  clock: { chainLagMs: 300, jumpedMs: 1 },
  runtimes: [
    { kind: 'wasm', available: true, reason: '', details: { engine: 'v8', version: '13' }, gaps: [] },
    { kind: 'container', available: true, reason: '', details: { engine: 'docker', version: '20' }, gaps: ['x'] },
  ],
  tools: [{ name: 'bwrap', path: '/usr/bin/bwrap', use: 'fence' }],
  ports: [{ what: '/ip4/0.0.0.0/tcp/4170', state: 'ours', reason: '' }],
  reach: { addresses: [{ address: '/ip4/8.8.8.8/tcp/4170', reach: 'public' }], announced: [], isRunning: true },
  bootstrap: { mdns: false, peers: [{ address: '/ip4/8.8.4.4/tcp/1/p2p/a', refused: undefined }] },
  chain: { rpcUrl: 'http://127.0.0.1:8899', network },
  provider: {
    account,
    operator: node,
    nodeKey: node,
    stake: 100n * MOLT,
    reserved: 0n,
    minStake: 10n * MOLT,
    slashDue: 0n,
    jailedForMs: 0,
  },
  budget: { account, isDelegate: true, free: 5n * MOLT, locked: 0n, expiresInMs: 30 * DAY, leftToday: 5n * MOLT },
  fees: { nodeKey: node, lamports: 50_000_000n },
} as const satisfies Facts;

const refused = { code: 'chain/unreachable', message: 'it does not answer' } as const;
const { provider, budget, reach } = GOOD;
const [wasm, container] = GOOD.runtimes;
const noEngine = { ...container, available: false, reason: 'no engine answers' };

/** What differs from the good home, the check that tells, its verdict, and what it says or advises. */
const CASES: readonly [Partial<Facts>, string, Check['verdict'], RegExp][] = [
  [{ leftovers: 0 }, 'left of jobs', 'ok', /no container/],
  [{ leftovers: 1 }, 'left of jobs', 'warn', /of 1 job are there.*molt up takes up/s],
  [{ leftovers: 3 }, 'left of jobs', 'warn', /of 3 jobs/],
  [{ nodeVersion: '22.9.0' }, 'node', 'fail', /Node 24/],
  [{ files: [] }, 'home', 'fail', /molt init/],
  [{ files: [{ path: '/k', mode: 0o644, isDirectory: false }] }, 'home', 'fail', /0644.*chmod 600 \/k/s],
  [{ files: [{ path: '/d', mode: 0o755, isDirectory: true }] }, 'home', 'fail', /chmod 700 \/d/],
  [{ settings: { code: 'config/invalid', message: 'bad setting' } }, 'settings', 'fail', /bad setting.*molt config/s],
  [{ roles: [] }, 'settings', 'fail', /molt init/],
  [{ running: { pid: 7, draining: true, unfinished: 2 } }, 'running node', 'warn', /drain --undo/],
  [{ mute: { code: 'node/already-running', message: 'held' } }, 'running node', 'warn', /held/],
  [{ disk: { freeBytes: 10 ** 8, soldBytes: null } }, 'disk', 'fail', /free some/],
  [{ disk: { freeBytes: 10 ** 10, soldBytes: 10 ** 11 } }, 'disk', 'fail', /lower diskBytes/],
  [{ disk: { freeBytes: 10 ** 11, soldBytes: null } }, 'disk', 'ok', /half/],
  [{ clock: { chainLagMs: -20_000, jumpedMs: 0 } }, 'clock', 'warn', /behind.*NTP/s],
  [{ clock: { chainLagMs: 90_000, jumpedMs: 0 } }, 'clock', 'fail', /ahead.*refuse/s],
  [{ clock: { chainLagMs: 0, jumpedMs: 60_000 } }, 'clock', 'fail', /moved/],
  [{ runtimes: [wasm, noEngine] }, 'container runtime', 'warn', /no engine answers.*Docker or Podman/s],
  [{ runtimes: [noEngine] }, 'container runtime', 'fail', /no engine answers/],
  [{ runtimes: [{ ...wasm, available: false, reason: 'no' }] }, 'wasm runtime', 'fail', /no/],
  [{ gpus: { isOff: true, devices: [], problems: [], toolkit: undefined } }, 'GPUs', 'ok', /the setting gpus/],
  [{ gpus: { isOff: false, devices: [], problems: [], toolkit: undefined } }, 'GPUs', 'ok', /none on this machine/],
  [
    { gpus: { isOff: false, devices: [], problems: ['nvidia-smi hangs'], toolkit: undefined } },
    'GPUs',
    'warn',
    /nvidia-smi hangs/,
  ],
  [
    {
      gpus: { isOff: false, devices: [{ id: 'GPU-1', model: 'H200', reason: 'busy' }], problems: [], toolkit: '1.19' },
    },
    'GPU',
    'warn',
    /H200 \(GPU-1\) is not sold: busy.*setting gpus/s,
  ],
  [
    {
      gpus: {
        isOff: false,
        devices: [{ id: 'GPU-1', model: 'H200', reason: undefined }],
        problems: [],
        toolkit: '1.19',
      },
    },
    'GPU',
    'ok',
    /saw exactly this one, NVIDIA Container Toolkit 1.19/,
  ],
  [{ tools: [{ name: 'bwrap', path: undefined, use: 'fence' }] }, 'tools', 'warn', /fence.*install bwrap/s],
  [{ ports: [{ what: '4170', state: 'free', reason: '' }] }, 'port', 'ok', /free/],
  [{ ports: [{ what: '4170', state: 'taken', reason: '' }] }, 'port', 'fail', /another program.*ss -ltnp/s],
  [{ ports: [{ what: '80', state: 'refused', reason: 'EACCES' }] }, 'port', 'fail', /EACCES/],
  [{ reach: { ...reach, announced: ['/ip4/8.8.8.8/tcp/4170'] } }, 'reachability', 'ok', /no peer was asked/],
  [
    { reach: { ...reach, addresses: [{ address: 'x', reach: 'local' }] } },
    'reachability',
    'warn',
    /local network.*announce/s,
  ],
  [{ reach: { ...reach, addresses: [{ address: 'x', reach: 'loopback' }] } }, 'reachability', 'warn', /this machine/],
  [
    { reach: { ...reach, addresses: [{ address: 'x', reach: 'relayed' }] } },
    'reachability',
    'warn',
    /only one relay.*bootstrap/s,
  ],
  [
    {
      reach: {
        ...reach,
        addresses: [
          { address: 'x', reach: 'relayed' },
          { address: 'y', reach: 'relayed' },
        ],
      },
    },
    'reachability',
    'ok',
    /through 2 relays/,
  ],
  [
    { reach: { addresses: [{ address: 'x', reach: 'any' }], announced: [], isRunning: false } },
    'reachability',
    'ok',
    /shows while the node runs/,
  ],
  [{ bootstrap: { mdns: true, peers: [] } }, 'bootstrap peers', 'ok', /mDNS/],
  [{ bootstrap: { mdns: false, peers: [] } }, 'bootstrap peers', 'warn', /set bootstrap/],
  [{ bootstrap: { mdns: true, peers: [{ address: 'a', refused }] } }, 'bootstrap peers', 'fail', /does not answer/],
  [
    {
      bootstrap: {
        mdns: true,
        peers: [
          { address: 'a', refused },
          { address: 'b', refused: undefined },
        ],
      },
    },
    'bootstrap peers',
    'warn',
    /1 of 2/,
  ],
  [{ chain: { rpcUrl: 'http://x', ...refused } }, 'chain', 'fail', /molt devnet/],
  [{ chain: { rpcUrl: 'http://x', code: 'chain/not-deployed', message: 'no' } }, 'chain', 'fail', /programId/],
  [{ provider: { code: 'chain/account-missing', message: 'none' } }, 'provider account', 'fail', /molt init/],
  [{ provider: { ...provider, operator: account } }, 'provider account', 'fail', /its operator is/],
  [{ provider: { ...provider, stake: MOLT } }, 'stake', 'fail', /asks for 10 MOLT.*molt stake/s],
  [{ provider: { ...provider, reserved: 100n * MOLT } }, 'stake', 'warn', /none is left/],
  [{ provider: { ...provider, jailedForMs: 60_000 } }, 'standing', 'fail', /jailed for 1 min/],
  [{ provider: { ...provider, slashDue: MOLT } }, 'standing', 'fail', /1 MOLT of slashed stake/],
  [{ budget: { code: 'chain/account-missing', message: 'none' } }, 'budget', 'fail', /molt init/],
  [{ budget: { ...budget, isDelegate: false } }, 'budget', 'fail', /delegate/],
  [{ budget: { ...budget, expiresInMs: -1 } }, 'budget', 'fail', /expired.*--days/s],
  [{ budget: { ...budget, expiresInMs: DAY } }, 'budget', 'warn', /expires in 1 d/],
  [{ budget: { ...budget, free: 0n } }, 'budget', 'fail', /deposit/],
  [{ budget: { ...budget, leftToday: 0n } }, 'budget', 'warn', /cap-per-day/],
  [{ fees: { nodeKey: node, lamports: 0n } }, 'network fees', 'fail', /send some SOL/],
  [{ fees: { nodeKey: node, lamports: 5_000_000n } }, 'network fees', 'warn', /0.005 SOL/],
];

test('a home that lacks nothing passes every check', () => {
  const checks = diagnose(GOOD);
  expect(checks.filter((check) => check.verdict !== 'ok' || check.mend !== '')).toEqual([]);
  expect(worst(checks)).toBe('ok');
});

test.each(CASES)('what is wrong is told: %#, %o in %s', (change, name, verdict, text) => {
  const checks = diagnose({ ...GOOD, ...change });
  const found = checks.find((check) => check.name === name);
  expect(found).toMatchObject({ verdict });
  expect(`${found?.found}\n${found?.mend}`).toMatch(text);
  // Nothing else changes its mind.
  const others = checks.filter((check) => check.name !== name && check.verdict !== 'ok');
  expect(others).toEqual([]);
  expect(worst(checks)).toBe(verdict);
  if (verdict !== 'ok') expect(found?.mend).not.toBe('');
});

test('a home that is not there gets one advice, not ten', () => {
  const { molt, home, nodeVersion } = GOOD;
  const checks = diagnose({ molt, home, nodeVersion, files: [], roles: [] });
  expect(checks.map(({ name, verdict }) => `${name} ${verdict}`)).toEqual(['node ok', 'home fail']);
});
