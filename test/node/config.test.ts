/** Goal: every setting has one meaning wherever it is given, and what is wrong is named. Method: the layers as data. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import {
  SETTINGS,
  SETTING_NAMES,
  engineSocket,
  environmentName,
  flagName,
  fromText,
  mergeSettings,
  nearestName,
  readConfigFile,
} from '../../node/config.ts';
import { nodeConfig } from '../../node/node-config.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { MoltError } from '../../protocol/errors.ts';

const key = keyPairFromSeed(new Uint8Array(32).fill(7));

function refusal(run: () => unknown): MoltError {
  try {
    run();
  } catch (error) {
    if (error instanceof MoltError) return error;
    throw error;
  }
  throw new Error('expected a refusal');
}

describe('layers', () => {
  it('takes a flag over the environment over the file over the default', () => {
    const file = { region: 'file', rpcUrl: 'http://file:1', priceBase: '3' };
    const environment = { MOLT_REGION: 'environment', MOLT_RPC_URL: 'http://environment:1' };
    const { settings, sources } = mergeSettings({ file, environment, flags: { region: 'flag' } });
    expect(settings).toMatchObject({ region: 'flag', rpcUrl: 'http://environment:1', priceBase: '3', mdns: true });
    expect(sources).toMatchObject({ region: 'flag', rpcUrl: 'environment', priceBase: 'config.json', mdns: 'default' });
  });

  it('has defaults that pass their own checks', () => {
    const { settings } = mergeSettings({});
    for (const name of SETTING_NAMES) expect(settings[name]).toEqual(SETTINGS[name].default);
  });

  it('reads lists, numbers, booleans and null from text', () => {
    const environment = {
      MOLT_LISTEN: '/ip4/1.2.3.4/tcp/1, /ip4/1.2.3.4/tcp/2',
      MOLT_MDNS: 'false',
      MOLT_CPU_MILLIS: '500',
    };
    expect(mergeSettings({ environment }).settings).toMatchObject({
      listen: ['/ip4/1.2.3.4/tcp/1', '/ip4/1.2.3.4/tcp/2'],
      mdns: false,
      cpuMillis: 500,
    });
    expect(fromText('cpuMillis', 'null')).toBeNull();
    expect(fromText('region', 'null')).toBe('null');
  });
});

describe('refusals', () => {
  it('names the nearest known key for an unknown one', () => {
    const error = refusal(() => mergeSettings({ file: { prizeBase: '1' } }));
    expect(error.code).toBe('config/invalid');
    expect(error.context['nearest']).toBe('priceBase');
  });

  it('suggests nothing when no key is near', () => {
    expect(nearestName('zzzzzzzzzzzz', SETTING_NAMES)).toBeUndefined();
  });

  it.each([
    ['rpcUrl', 'ftp://x'],
    ['listen', ['127.0.0.1:80']],
    ['priceBase', '-1'],
    ['priceBase', '0.0000000001'],
    ['cpuMillis', 1.5],
    ['mdns', 'yes'],
    ['runtimes', []],
    ['runtimes', ['java']],
    ['durationSecondsMax', 0],
    ['blockedBuyers', ['nobody']],
    ['wasmCompiler', 'fast'],
    ['egress', ['example.com']],
    ['egress', ['127.0.0.1:443']],
    ['egress', ['*']],
  ])('refuses %s = %j and says where it came from', (name, value) => {
    const error = refusal(() => mergeSettings({ file: { [name]: value } }));
    expect(error.code).toBe('config/invalid');
    expect(error.context).toMatchObject({ key: name, source: 'config.json' });
    expect(error.message).toContain(`"${name}"`);
  });

  it('names the environment variable that holds the bad value', () => {
    expect(refusal(() => mergeSettings({ environment: { MOLT_MDNS: 'maybe' } })).message).toContain('MOLT_MDNS');
  });

  it('refuses what only shows between settings', () => {
    const free = { priceBase: '0', pricePerCpu: '0', pricePerGib: '0', pricePerGpu: '0' };
    expect(refusal(() => mergeSettings({ file: free })).code).toBe('config/invalid');
    expect(mergeSettings({ file: { ...free, priceFloor: '1' } }).settings.priceFloor).toBe('1');
    expect(refusal(() => mergeSettings({ file: { bootstrap: ['/ip4/1.1.1.1/tcp/1'] } })).message).toContain('/p2p/');
    expect(refusal(() => mergeSettings({ file: { runtimes: ['wasm', 'wasm'] } })).code).toBe('config/invalid');
  });

  it('tells a file that is no JSON from one that is missing', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'molt-config-'));
    expect(await readConfigFile(join(directory, 'none.json'))).toEqual({});
    await writeFile(join(directory, 'bad.json'), '{');
    await expect(readConfigFile(join(directory, 'bad.json'))).rejects.toMatchObject({ code: 'config/invalid' });
    await writeFile(join(directory, 'list.json'), '[]');
    await expect(readConfigFile(join(directory, 'list.json'))).rejects.toMatchObject({ code: 'config/invalid' });
  });
});

describe('what a provider runs on', () => {
  it('has amounts in base units and a capacity in numbers', async () => {
    const file = { provider: key.address, priceBase: '0.5', priceFloor: '0.25', memoryBytes: 2 ** 30 };
    const config = await nodeConfig(tmpdir(), key, mergeSettings({ file }).settings);
    expect(config.policy.prices.base).toBe(500_000_000n);
    expect(config.policy.floorPerSecond).toBe(250_000_000n);
    expect(config.capacity.memoryBytes).toBe(2 ** 30);
    expect(config.capacity.cpuMillis).toBeGreaterThan(0);
    expect(config.capacity.diskBytes).toBeGreaterThan(0);
  });

  it('bounds what is relayed, and follows one region where it is told to', async () => {
    const provider = key.address;
    const told = { relayPeersMax: 8, relayConnectionBytes: 2 ** 20, relayBytesPerHour: 2 ** 21, followRegion: 'eu' };
    const config = await nodeConfig(tmpdir(), key, mergeSettings({ file: { provider, ...told } }).settings);
    expect(config.relayLimits).toEqual({
      relayReservationsMax: 8,
      relayCircuitsMax: 8,
      relayCircuitBytes: 2 ** 20,
      relayBytesPerHour: 2 ** 21,
    });
    expect(config.followRegion).toBe('eu');
    expect(() => mergeSettings({ file: { relayPeersMax: 0 } })).toThrow('relayPeersMax');
  });

  it('needs a provider account and says how to make one', async () => {
    await expect(nodeConfig(tmpdir(), key, mergeSettings({}).settings)).rejects.toMatchObject({
      code: 'config/invalid',
      message: expect.stringContaining('molt init --role provider'),
    });
  });

  it('finds the engine socket of the environment', () => {
    expect(engineSocket({ DOCKER_HOST: 'unix:///tmp/x.sock' })).toBe('/tmp/x.sock');
    expect(engineSocket({})).toBe('/var/run/docker.sock');
    expect(engineSocket({ DOCKER_HOST: 'tcp://elsewhere:1' })).toBe('/var/run/docker.sock');
  });
});

it('spells flags and environment names after the key', () => {
  expect(flagName('rpcUrl')).toBe('--rpc-url');
  expect(environmentName('rpcUrl')).toBe('MOLT_RPC_URL');
});
