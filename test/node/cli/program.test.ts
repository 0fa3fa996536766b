/** Goal: the program teaches, and fails in ways a person and a program can act on. Method: it is run as users run it. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { createTranscript, makeProof } from '../../../attestation/index.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { encodeJobSpec, parseJobSpec, specDigest } from '../../../protocol/job-spec.ts';
import { costOf, parseMolt } from '../../../protocol/units.ts';

const program = join(import.meta.dirname, '../../../node/molt.js');
const directory = mkdtempSync(join(tmpdir(), 'molt-program-'));
const COMMANDS = [
  'demo',
  'devnet',
  'init',
  'wallet',
  'config',
  'up',
  'run',
  'offers',
  'verify',
  'budget',
  'lease',
  'providers',
  'stake',
  'unstake',
  'withdraw',
  'stakes',
  'slash',
  'verifier',
  'program',
];

function molt(args: readonly string[], options: { home?: string; nodeOptions?: readonly string[] } = {}) {
  const run = spawnSync(process.execPath, [...(options.nodeOptions ?? []), program, ...args], {
    encoding: 'utf8',
    cwd: directory,
    env: { PATH: process.env['PATH'], HOME: directory, MOLT_HOME: options.home ?? join(directory, 'home') },
  });
  return { code: run.status, out: run.stdout, err: run.stderr };
}

interface Failure {
  readonly error: { readonly code: string; readonly message: string; readonly context: Record<string, unknown> };
}

describe('help', () => {
  it('names every command', () => {
    const { code, out } = molt(['--help']);
    expect(code).toBe(0);
    for (const name of COMMANDS) expect(out).toContain(name);
  });

  it.each(COMMANDS)('of %s shows examples that call it', (name) => {
    const { code, out } = molt([name, '--help']);
    expect(code).toBe(0);
    expect(out.split('Examples:')[1]).toContain(`molt ${name}`);
  });
});

describe('a command line that is not understood', () => {
  it.each([
    ['an unknown command', ['fly']],
    ['an unknown option', ['run', '--fast']],
    ['a missing argument', ['verify']],
    ['too many words', ['offers', 'all']],
    ['a choice that does not exist', ['init', '--role', 'judge']],
    ['a number that is none', ['init', '--days', 'many']],
    ['nothing to run', ['run', '--', 'ls']],
    ['an action that does not exist', ['wallet', 'burn']],
    ['a history that is no number', ['devnet', '--history', 'long']],
    ['a stake without an amount', ['stake', 'PROVIDER']],
    ['a passphrase from nowhere', ['--passphrase-fd', 'stdin', 'wallet']],
  ])('ends with code 2: %s', (_what, args) => {
    const { code, out, err } = molt(args);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toContain('✖');
  });

  it('is one JSON object with --json', () => {
    const { code, err } = molt(['--json', 'fly']);
    expect(code).toBe(2);
    expect((JSON.parse(err) as Failure).error.code).toBe('config/usage');
  });

  it('leaves alone what stands after --', () => {
    const { code, err } = molt(['run', '--', 'ls', '--json', '--help']);
    expect(code).toBe(2);
    expect(err).toContain('nothing to run');
  });
});

describe('settings', () => {
  it('are listed with their source', () => {
    const home = mkdtempSync(join(directory, 'settings-'));
    writeFileSync(join(home, 'config.json'), '{"region":"eu-west"}');
    const { out } = molt(['config', '--json'], { home });
    const { settings } = JSON.parse(out) as { settings: Record<string, { value: unknown; source: string }> };
    expect(settings['region']).toEqual({ value: 'eu-west', source: 'config.json' });
    expect(settings['mdns']).toEqual({ value: true, source: 'default' });
  });

  it('with a misspelt key are refused with the nearest one', () => {
    const home = mkdtempSync(join(directory, 'settings-'));
    writeFileSync(join(home, 'config.json'), '{"regoin":"eu-west"}');
    const { code, err } = molt(['config', '--json'], { home });
    expect(code).toBe(1);
    expect((JSON.parse(err) as Failure).error).toMatchObject({
      code: 'config/invalid',
      context: { nearest: 'region' },
    });
  });
});

describe('wallet', () => {
  it('is made once, readable by its owner alone, and never overwritten', () => {
    const home = join(directory, 'wallet-home');
    expect(molt(['wallet', 'new'], { home }).code).toBe(0);
    const before = readFileSync(join(home, 'wallet.json'), 'utf8');
    expect(statSync(join(home, 'wallet.json')).mode & 0o777).toBe(0o600);
    expect(statSync(home).mode & 0o777).toBe(0o700);
    expect(molt(['wallet', 'new'], { home }).code).toBe(1);
    expect(readFileSync(join(home, 'wallet.json'), 'utf8')).toBe(before);
  });

  it('that is missing gives the command that makes one', () => {
    const { code, err } = molt(['wallet', '--json'], { home: join(directory, 'none') });
    expect(code).toBe(1);
    const { error } = JSON.parse(err) as Failure;
    expect(error.code).toBe('wallet/missing');
    expect(error.message).toContain('molt wallet new');
  });
});

describe('a chain that does not answer', () => {
  it('is named, with what to start', () => {
    const { code, err } = molt(['init', '--rpc', 'http://127.0.0.1:1', '--json'], { home: join(directory, 'alone') });
    expect(code).toBe(1);
    expect((JSON.parse(err) as Failure).error).toMatchObject({ code: 'chain/unreachable' });
  });
});

describe('an old Node', () => {
  const pretend = 'data:text/javascript,Object.defineProperty(process.versions, "node", { value: "20.20.2" })';

  it('is told in one line which one is needed and how to get it', () => {
    const { code, out, err } = molt(['--help'], { nodeOptions: ['--import', pretend] });
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err.trim().split('\n')).toHaveLength(1);
    expect(err).toMatch(/Node 24.*20\.20\.2.*npx/);
  });

  it('can read the door of the program, which uses no syntax newer than ES2015', () => {
    const text = readFileSync(program, 'utf8').replace(/\/\/.*$/gm, '');
    expect(text).not.toMatch(/=>|\?\.|\?\?|\bawait\b|\basync\b|\blet\b|`[^`]*\$\{/);
  });
});

describe('molt verify', () => {
  const signer = keyPairFromSeed(new Uint8Array(32).fill(9));
  const other = keyPairFromSeed(new Uint8Array(32).fill(10)).address;
  const spec = parseJobSpec({
    runtime: 'container',
    image: `busybox@sha256:${'ab'.repeat(32)}`,
    outputs: [{ name: 'out.txt', path: 'out.txt' }],
  });
  const digest = Buffer.from(specDigest(encodeJobSpec(spec))).toString('hex');
  const price = parseMolt('0.001');
  const locked = parseMolt('1');
  const subject = { network: signer.address, lease: other, attempt: 1, specDigest: digest };
  const transcript = createTranscript(subject);
  const sha256 = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';
  const cid = 'bafkreif2pall7dybz7vecqka3zo24irdwabwdi4wc55jznaq75q7eaavvu';
  const { logRoot, logLeaves, meterHead, samples, stdoutSha256 } = transcript.finish();
  const { envelope } = makeProof({
    signer,
    facts: {
      ...subject,
      termsDigest: '00'.repeat(32),
      budget: other,
      buyer: other,
      provider: other,
      operator: signer.address,
      runtime: { kind: 'container', version: '1' },
      image: { reference: spec.image, digest: `sha256:${'ab'.repeat(32)}` },
      inputs: [],
      outputs: [{ name: 'out.txt', path: 'out.txt', cid, sha256, sizeBytes: 3 }],
      exit: { reason: 'exited', exitCode: 0, detail: '' },
      startedAtMs: 1_000,
      finishedAtMs: 3_500,
      billedMs: 2_500,
      pricePerSecond: price.toString(),
      locked: locked.toString(),
      claimed: costOf(2_500, price, locked).toString(),
      usage: { cpuMs: 1, memoryPeakBytes: 1 },
      logs: { root: logRoot, leaves: logLeaves, stdoutBytes: 0, stderrBytes: 0, stdoutSha256 },
      metering: { head: meterHead, samples },
      software: '0.1.0',
    },
  });
  const folder = mkdtempSync(join(directory, 'proof-'));
  const file = join(folder, 'proof.json');
  writeFileSync(file, envelope);
  writeFileSync(join(folder, 'spec.json'), JSON.stringify(spec));
  writeFileSync(join(folder, 'out.txt'), 'abc');

  it('accepts a good proof offline, and says what it does not show', () => {
    const { code, out } = molt([
      'verify',
      file,
      '--lease',
      other,
      '--spec',
      join(folder, 'spec.json'),
      '--outputs',
      folder,
    ]);
    expect(code).toBe(0);
    expect(out).toContain(sha256);
    expect(out).toContain('0.0025 MOLT of 1 MOLT');
    expect(out).toMatch(/not shown by it:\n.*nobody computed them again/);
  });

  it.each([
    ['another lease', ['--lease', signer.address], 'proof/wrong-binding'],
    ['another signer', ['--operator', other], 'proof/wrong-binding'],
  ])('refuses %s', (_what, options, code) => {
    const run = molt(['verify', file, '--json', ...options]);
    expect(run.code).toBe(1);
    expect((JSON.parse(run.err) as Failure).error.code).toBe(code);
  });

  it('refuses an output that was changed afterwards', () => {
    const changed = mkdtempSync(join(directory, 'changed-'));
    writeFileSync(join(changed, 'out.txt'), 'abd');
    const run = molt(['verify', file, '--json', '--outputs', changed]);
    expect(run.code).toBe(1);
    expect((JSON.parse(run.err) as Failure).error.code).toBe('proof/wrong-binding');
  });

  it('refuses a proof whose bytes were changed', () => {
    const text = Buffer.from(envelope).toString('utf8');
    const dsse = JSON.parse(text) as { payload: string };
    const payload = Buffer.from(dsse.payload, 'base64').toString('utf8').replace('2500', '9500');
    const forged = join(folder, 'forged.json');
    writeFileSync(forged, JSON.stringify({ ...dsse, payload: Buffer.from(payload).toString('base64') }));
    const run = molt(['verify', forged, '--json']);
    expect(run.code).toBe(1);
    expect((JSON.parse(run.err) as Failure).error.code).toMatch(/^proof\//);
  });

  it('refuses a file that is no proof, and one that is missing', () => {
    expect(molt(['verify', join(folder, 'spec.json')]).code).toBe(1);
    expect(molt(['verify', join(folder, 'nothing.json')]).code).toBe(2);
  });
});
