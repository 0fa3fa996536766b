/**
 * Goal: a job reaches the hosts of the internet that its provider lets it, whether the provider fetches an input by URL or
 * the job asks itself, and what came is in the proof. Method: a provider, a buyer, a name server and a web server as hosts
 * of a small internet of namespaces, with public addresses and a certificate; everything on it is the real thing.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { type Server, createServer } from 'node:http';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { verifyProof } from '../../attestation/index.ts';
import { findEngine, openBusyboxRegistry } from '../fixtures/engine.ts';
import { type Internet, type Molt, internetReason, openInternet } from '../fixtures/internet.ts';
import { type TestWeb, openWeb } from '../fixtures/web.ts';
import { type TestMarket, openMarket, publishMarket } from './market.ts';

const reason = internetReason();
const engine = await findEngine();
const DATA = randomBytes(300_000);
const digest = createHash('sha256').update(DATA).digest('hex');

async function openPlain(): Promise<{ readonly port: number; readonly server: Server }> {
  const server = createServer((_request, response) => response.end(DATA));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { port: address.port, server };
}

/** Knows `data.example.com`, `inside.example.com`, which points into a private network, and nothing else. */
const NAMES = `
import dgram from 'node:dgram';
const known = { 'data.example.com': process.argv[1], 'inside.example.com': '10.0.0.1' };
const socket = dgram.createSocket('udp4');
socket.on('message', (query, from) => {
  const labels = [];
  let at = 12;
  for (; query[at] !== 0; at += query[at] + 1) labels.push(query.toString('latin1', at + 1, at + 1 + query[at]));
  const question = query.subarray(12, at + 5);
  const address = known[labels.join('.').toLowerCase()];
  const isA = query.readUInt16BE(at + 1) === 1;
  const head = Buffer.from(query.subarray(0, 12));
  head.writeUInt16BE(address === undefined ? 0x8183 : 0x8180, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(address !== undefined && isA ? 1 : 0, 6);
  head.writeUInt32BE(0, 8);
  const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...(address ?? '0.0.0.0').split('.').map(Number)]);
  socket.send(Buffer.concat(address !== undefined && isA ? [head, question, answer] : [head, question]), from.port, from.address);
});
socket.bind(53, () => console.log('open'));
`;

describe.skipIf(reason !== '')(`what jobs reach${reason === '' ? '' : ` (skipped: ${reason})`}`, () => {
  let market: TestMarket;
  let internet: Internet;
  let web: TestWeb;
  /** Of plain HTTP, which is what busybox speaks. */
  let plain: { readonly port: number; readonly server: Server };
  let selling: Molt | undefined;
  let buyer: string;

  beforeAll(async () => {
    market = await openMarket();
    internet = openInternet(market.directory);
    const newHome = await publishMarket(market, internet);
    web = await openWeb((request, response) => {
      if (request.url === '/away') response.writeHead(302, { location: 'https://elsewhere.example.org/' }).end();
      else response.writeHead(200, { 'content-length': DATA.length }).end(DATA);
    });
    plain = await openPlain();
    const place = internet.place(21);
    for (const { port } of [web, plain]) await internet.publish(place.address, port);
    const names = place.start(process.execPath, ['--input-type=module', '-e', NAMES, place.address]);
    await new Promise((resolve) => names.stdout?.once('data', resolve));
    internet.setNameServer(place.address);
    const authority = join(market.directory, 'authority.pem');
    writeFileSync(authority, web.authority);

    const listen = `/ip4/${internet.publicAddress(11)}/tcp/4170`;
    const seller = await newHome('seller', 'provider', {
      runtimes: engine.socketPath === undefined ? ['wasm'] : ['wasm', 'container'],
      ...(engine.socketPath === undefined ? {} : { containerSocket: engine.socketPath }),
      cpuMillis: 1_000,
      hostCpuMillis: 0,
      memoryBytes: 2 ** 30,
      diskBytes: 2 ** 30,
      listen: [listen],
      announce: [listen],
      egress: [`*.example.com:${web.port}`, `*.example.com:${plain.port}`],
    });
    // What the machine's authorities are to a provider, this one is here.
    const environment = { NODE_EXTRA_CA_CERTS: authority };
    selling = internet.street.molt(['up', '--home', seller, '--log-level', 'debug'], environment);
    const reached = await selling.line('the world reaches it', (line) => line['way'] === 'direct');
    await selling.line('it sells', (line) => line['type'] === 'selling');
    buyer = await newHome('buyer', 'buyer', { bootstrap: [String((reached['addresses'] as unknown[])[0])] });
  });

  afterAll(async () => {
    // In order, so that it takes its disks with it.
    await selling?.kill('SIGTERM');
    await internet?.[Symbol.asyncDispose]();
    await web?.[Symbol.asyncDispose]();
    plain?.server.close();
    await market?.[Symbol.asyncDispose]();
  });

  let count = 0;
  const buy = async (args: readonly string[]): Promise<{ readonly said: Molt['lines']; readonly out: string }> => {
    const out = join(market.directory, `out-${++count}`);
    const running = internet.street.molt(['run', '--home', buyer, '--out', out, '--timeout', '60', ...args]);
    await running.exited;
    return { said: running.lines, out };
  };
  const textOf = (lines: Molt['lines']): string =>
    lines.map((line) => (line['type'] === 'log' ? String(line['text']) : '')).join('');

  const HASH = "import hashlib; print(hashlib.sha256(open('/in/x', 'rb').read()).hexdigest())";
  const python = ['--', 'python', '-c', HASH];

  test('an input by URL is fetched by the provider, its content is the job’s, and the proof names both', async () => {
    const url = `https://data.example.com:${web.port}/set?signature=hidden`;
    const { said, out } = await buy([
      '--image',
      'python',
      '--input',
      `${url.replace('?', ':x?')}#sha256=${digest}`,
      ...python,
    ]);
    expect(textOf(said)).toBe(`${digest}\n`);
    expect(said).toContainEqual(expect.objectContaining({ type: 'result', exitCode: 0 }));
    expect(web.asked).toEqual(['data.example.com /set?signature=hidden']);
    const proof = readFileSync(join(out, 'proof.json'));
    expect(verifyProof(proof).inputs).toMatchObject([
      { path: 'x', url: url.replace(/\?.*/, ''), cid: expect.any(String) },
    ]);
    expect(
      Buffer.from((JSON.parse(proof.toString()) as { payload: string }).payload, 'base64').toString(),
    ).not.toContain('hidden');
  });

  test.each([
    ['beyond the policy, before a lease is open', 'https://elsewhere.example.org/x', 'market/egress-refused', false],
    ['beyond the policy by a redirect', 'https://data.example.com:PORT/away:x', 'market/egress-refused', true],
    ['in a private network', 'https://inside.example.com:PORT/x', 'job/egress-refused', true],
    ['that no name server knows', 'https://nobody.example.com:PORT/x', 'job/egress-refused', true],
  ])('a host %s is refused', async (_what, input, code, opens) => {
    const { said } = await buy(['--image', 'python', '--input', input.replace('PORT', String(web.port)), ...python]);
    expect(said).toContainEqual(expect.objectContaining({ type: 'provider-failed', code }));
    expect(said.some((line) => line['type'] === 'lease-opened')).toBe(opens);
  });

  test.skipIf(engine.socketPath === undefined)(
    `a container reaches the host of its rule and no other${engine.reason === '' ? '' : ` (${engine.reason})`}`,
    async () => {
      await using registry = await openBusyboxRegistry();
      const get = (host: string): string => `wget -q -O - http://${host}:${plain.port}/x | sha256sum`;
      const rule = `data.example.com:${plain.port}`;
      const script = `${get('data.example.com')}; ${get('other.example.com')}; ${get(internet.publicAddress(21))}`;
      const { said } = await buy(['--image', registry.reference, '--egress', rule, '--', 'sh', '-c', script]);
      const empty = createHash('sha256').digest('hex');
      expect(textOf(said).match(/[0-9a-f]{64}/g)).toEqual([digest, empty, empty]);
      expect(said).toContainEqual(expect.objectContaining({ type: 'result', exitCode: 0 }));
    },
  );
});
