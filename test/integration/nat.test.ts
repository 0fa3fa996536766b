/**
 * Goal: a provider that nobody can dial sells, and a buyer that nobody can dial buys from it. Method: real routers that
 * masquerade (network namespaces), the chain and two nodes on the public side, everything a process of its own.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { homeAt } from '../../node/home.ts';
import type { Reachability } from '../../node/mesh/index.ts';
import { openOperator } from '../../node/operator/index.ts';
import type { Address } from '../../protocol/address.ts';
import { meshName } from '../../protocol/wire.ts';
import { type Internet, type Molt, internetReason, openInternet } from '../fixtures/internet.ts';
import { type PublicHomes, type TestMarket, openMarket, publishMarket } from './market.ts';

const reason = internetReason();

let market: TestMarket;
let internet: Internet;
let newHome: PublicHomes;

beforeAll(async () => {
  if (reason !== '') return;
  market = await openMarket();
  internet = openInternet(market.directory);
  newHome = await publishMarket(market, internet);
});

afterAll(async () => {
  await internet?.[Symbol.asyncDispose]();
  await market?.[Symbol.asyncDispose]();
});

const SMALL = { runtimes: ['wasm'], cpuMillis: 1_000, hostCpuMillis: 0, memoryBytes: 2 ** 30, diskBytes: 2 ** 30 };

interface Node {
  readonly molt: Molt;
  readonly home: string;
  /** The first address that it told. */
  readonly address: string;
}

/** A node on the street. It sells, but nothing as long as these jobs. */
async function openStreetNode(number: number, settings: Readonly<Record<string, unknown>>): Promise<Node> {
  const listen = `/ip4/${internet.publicAddress(number)}/tcp/4170`;
  const home = await newHome(`street-${number}`, 'provider', {
    ...SMALL,
    listen: [listen],
    durationSecondsMax: 5,
    ...settings,
  });
  const molt = internet.street.molt(['up', '--home', home, '--log-level', 'debug']);
  const reached = await molt.line('the world reaches it', (line) => line['way'] === 'direct');
  await molt.line('it sells', (line) => line['type'] === 'selling');
  return { molt, home, address: String((reached['addresses'] as unknown[])[0]) };
}

/** What a running node says of itself, by the socket in its home. */
async function reachabilityOf(home: string): Promise<Reachability> {
  await using operator = await openOperator(market.env, homeAt(home));
  const status = await operator.status();
  if (status === undefined) throw new Error('it does not run');
  return status.reachability;
}

const relayedBytes = async (node: Node): Promise<number> => (await reachabilityOf(node.home)).relaying?.bytes ?? 0;

describe.skipIf(reason !== '')(`behind two NATs${reason === '' ? '' : ` (skipped: ${reason})`}`, () => {
  let streets: Node[];
  let selling: Molt;
  let seller: string;

  test('a provider holds places at two relays, one of which a peer had to find reachable first', async () => {
    const one = await openStreetNode(11, { announce: [`/ip4/${internet.publicAddress(11)}/tcp/4170`] });
    // Nobody vouches for this one: the first dials back.
    const two = await openStreetNode(12, { bootstrap: [one.address] });
    streets = [one, two];
    seller = await newHome('seller', 'provider', { ...SMALL, bootstrap: [one.address, two.address] });
    selling = internet.home(1).host.molt(['up', '--home', seller, '--log-level', 'debug']);
    const relayed = await selling.line('two relays hold a place for it', isRelayedBy(11, 12));
    for (const address of relayed['addresses'] as string[]) expect(address).toContain('/p2p-circuit/');
    await selling.line('it sells', (line) => line['type'] === 'selling');
    expect(await reachabilityOf(seller)).toMatchObject({ way: 'relayed' });
    // One more where the other relay took a place as well until it knew itself to be reached, on a slow machine.
    expect((await reachabilityOf(one.home)).relaying?.reservations).toBeGreaterThanOrEqual(1);
  });

  test('a peer that the world reaches and a provider that it does not leave the relay and connect directly', async () => {
    const told = (await reachabilityOf(seller)).addresses;
    const { node } = await selling.line('its key', (line) => line['type'] === 'listening');
    const listen = `/ip4/${internet.publicAddress(1)}/tcp/4999`;
    const given = { root, listen, told, node, network: meshName(market.chain.network) };
    const peer = internet.street.start(process.execPath, ['--input-type=module', '-e', PEER, JSON.stringify(given)]);
    const said: string[] = [];
    createInterface({ input: peer.stdout! }).on('line', (line) => said.push(line));
    await expect.poll(() => said.includes('true')).toBe(true);
    const circuits = async (): Promise<number> => {
      const all = await Promise.all(streets.map((street) => reachabilityOf(street.home)));
      return all.reduce((sum, { relaying }) => sum + (relaying?.circuits ?? 0), 0);
    };
    // They met over a circuit, which a direct connection has replaced.
    expect((await Promise.all(streets.map(relayedBytes))).some((bytes) => bytes > 1_000)).toBe(true);
    // A dial may fail on a machine that others use; the next comes soon after.
    await expect.poll(circuits, { timeout: 100_000 }).toBe(0);
    said.length = 0;
    await expect.poll(() => said.length > 2).toBe(true);
    expect(said).not.toContain('false');
    peer.kill('SIGKILL');
  });

  test('a paid job runs through a relay, and goes on over the second one when the first is killed', async () => {
    const bootstrap = streets.map((street) => street.address);
    const buyer = await newHome('buyer', 'buyer', { bootstrap });
    const before = await budgetOf(buyer);
    const earlier = await Promise.all(streets.map(relayedBytes));
    const buying = internet.home(2).host.molt(['run', '--home', buyer, ...stepsArguments(STEPS)]);
    await buying.line('output', (line) => line['type'] === 'log');
    // The input went from the buyer to the seller by one of them.
    const bytes = (await Promise.all(streets.map(relayedBytes))).map((now, index) => now - earlier[index]!);
    expect(Math.max(...bytes)).toBeGreaterThan(LARGE_BYTES);
    const carrier = bytes[0]! > bytes[1]! ? 0 : 1;
    await streets[carrier]!.molt.kill('SIGKILL');
    await buying.line('the break is noticed', (line) => line['type'] === 'provider-silent');
    const [left] = streets.splice(carrier, 1).length === 1 ? streets : [];
    // A relay that nobody named is found through the others.
    streets.push(await openStreetNode(13, { bootstrap: [left!.address] }));
    await selling.line('a new relay took the place of the lost one', isRelayedBy(13));

    expect(await buying.exited).toBe(0);
    const result = buying.lines.find((line) => line['type'] === 'result');
    expect(result).toMatchObject({ exitCode: 0, attempts: 1 });
    expect(readFileSync(join(market.directory, 'out/result.txt'), 'utf8')).toBe(`steps ${STEPS}`);
    expect(stepsOf(buying.lines)).toEqual(Array.from({ length: STEPS }, (_, step) => step));
    const after = await budgetOf(buyer);
    expect(after).toEqual({ free: before.free - BigInt(String(result?.['cost'])), locked: 0n });
    expect(selling.lines.some((line) => line['type'] === 'quoted')).toBe(true);
  });
});

const root = new URL('../../', import.meta.url).href;

/** Meets a peer at the addresses it tells, and says again and again whether they are connected. */
const PEER = `
const { root, listen, told, node, network } = JSON.parse(process.argv[1]);
const { openMesh } = await import(root + 'node/mesh/index.ts');
const { systemEnv, systemRandom } = await import(root + 'protocol/env.ts');
const { keyPairFromSeed } = await import(root + 'protocol/ed25519.ts');
const key = keyPairFromSeed(systemRandom.bytes(32));
const mesh = await openMesh(systemEnv(), { key, listen: [listen], announce: [listen], bootstrap: [], mdns: false, role: 'light', network });
// A busy machine may take longer for the handshakes of relay and circuit than a peer waits for one.
for (let isMet = false; !isMet; ) isMet = await mesh.connect(told).then(() => true, () => false);
setInterval(() => console.log(mesh.isConnected(node)), 200);
`;

describe.skipIf(reason !== '')(`behind a router with UPnP${reason === '' ? '' : ` (skipped: ${reason})`}`, () => {
  test('a provider has its port forwarded, tells the address once a peer came in, and takes it back when it stops', async () => {
    const street = await openStreetNode(14, { announce: [`/ip4/${internet.publicAddress(14)}/tcp/4170`] });
    const { host, router } = internet.home(3);
    const gateway = router.start(process.execPath, [
      '--input-type=module',
      '-e',
      GATEWAY,
      '192.168.3.1',
      router.address,
    ]);
    await once(gateway.stdout!, 'data');
    const home = await newHome('forwarded', 'provider', { ...SMALL, bootstrap: [street.address] });
    const molt = host.molt(['up', '--home', home, '--log-level', 'debug']);
    const direct = await molt.line('the world reaches it', (line) => line['way'] === 'direct');
    // 4170 belongs to another host of that network.
    expect((direct['addresses'] as string[])[0]).toMatch(new RegExp(`^/ip4/${router.address}/tcp/4171/p2p/`));
    expect(direct['addresses']).toHaveLength(1);
    expect(router.run('iptables', ['-t', 'nat', '-S', 'PREROUTING'])).toContain('--dport 4171');
    await molt.line('it sells', (line) => line['type'] === 'selling');
    expect(await reachabilityOf(home)).toMatchObject({ way: 'direct', relays: [] });
    await molt.kill('SIGTERM');
    expect(router.run('iptables', ['-t', 'nat', '-S', 'PREROUTING'])).not.toContain('--dport');
  });
});

/**
 * A router's UPnP (InternetGatewayDevice:1) beside hosts that answer rubbish: one that is no SSDP, one that sends elsewhere,
 * one whose description never ends.
 */
const GATEWAY = `
import { execFileSync } from 'node:child_process';
import dgram from 'node:dgram';
import http from 'node:http';
const [lan, wan] = process.argv.slice(1);
const base = 'http://' + lan + ':5000';
const forwarded = new Map();
const rules = (how, port, to) => {
  const at = ['-i', 'wan', '-p', 'tcp', '--dport', port, '-j', 'DNAT', '--to-destination', to];
  execFileSync('iptables', ['-w', '-t', 'nat', how === 'add' ? '-A' : '-D', 'PREROUTING', ...at]);
  const [host, inner] = to.split(':');
  const pass = ['-i', 'wan', '-p', 'tcp', '-d', host, '--dport', inner, '-j', 'ACCEPT'];
  execFileSync('iptables', ['-w', how === 'add' ? '-I' : '-D', 'FORWARD', ...pass]);
};
const DESCRIPTION = '<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceList><device><serviceList><service>' +
  '<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/control</controlURL>' +
  '</service></serviceList></device></deviceList></device></root>';
const field = (body, name) => new RegExp('<' + name + '>([^<]*)<').exec(body)?.[1] ?? '';
http.createServer((request, response) => {
  if (request.url === '/endless') return void setInterval(() => response.write('<a>'.repeat(10_000)), 1);
  if (request.url === '/description') return void response.end(DESCRIPTION);
  let body = '';
  request.on('data', (chunk) => (body += chunk));
  request.on('end', () => {
    const action = String(request.headers.soapaction).split('#')[1].replace('"', '');
    const answer = (text, status = 200) => response.writeHead(status).end('<s:Envelope xmlns:s="x"><s:Body>' + text + '</s:Body></s:Envelope>');
    const port = field(body, 'NewExternalPort');
    if (action === 'GetExternalIPAddress') return answer('<u:R xmlns:u="y"><NewExternalIPAddress>' + wan + '</NewExternalIPAddress></u:R>');
    if (action === 'DeletePortMapping') {
      rules('delete', port, forwarded.get(port));
      return answer('');
    }
    if (port === '4170') return answer('<e><errorCode>718</errorCode></e>', 500);
    if (field(body, 'NewLeaseDuration') !== '0') return answer('<e><errorCode>725</errorCode></e>', 500);
    const to = field(body, 'NewInternalClient') + ':' + field(body, 'NewInternalPort');
    forwarded.set(port, to);
    rules('add', port, to);
    answer('');
  });
}).listen(5000, lan);
const socket = dgram.createSocket('udp4');
socket.on('message', (bytes, from) => {
  if (!bytes.toString().includes('InternetGatewayDevice:1')) return;
  const say = (text) => socket.send(text, from.port, from.address);
  say('HTTP/1.1 200 OK');
  say('\\0\\0rubbish');
  say('HTTP/1.1 200 OK\\r\\nLOCATION: http://45.83.1.1:8899/\\r\\n\\r\\n');
  say('HTTP/1.1 200 OK\\r\\nLOCATION: ' + base + '/endless\\r\\n\\r\\n');
  say('HTTP/1.1 200 OK\\r\\nLOCATION: ' + base + '/description\\r\\nST: x\\r\\n\\r\\n');
});
socket.bind(1900, () => {
  socket.addMembership('239.255.255.250', lan);
  console.log('open');
});
`;

async function budgetOf(home: string): Promise<{ free: bigint; locked: bigint }> {
  const { budget } = JSON.parse(readFileSync(homeAt(home).config, 'utf8')) as { budget: Address };
  const account = await market.chain.budget(budget);
  if (account === undefined) throw new Error('the budget is gone');
  return { free: account.free, locked: account.locked };
}

/** True for a line that tells of circuits, among them those through these hosts of the street. */
const isRelayedBy =
  (...numbers: readonly number[]) =>
  (line: Readonly<Record<string, unknown>>): boolean =>
    line['way'] === 'relayed' &&
    numbers.every((number) =>
      (line['addresses'] as string[]).some((address) => address.startsWith(`/ip4/${internet.publicAddress(number)}/`)),
    );

const LARGE_BYTES = 40_000_000;
const STEPS = 40;

function stepsArguments(steps: number): readonly string[] {
  const script = join(market.directory, 'steps.py');
  writeFileSync(script, STEPS_SCRIPT);
  const large = join(market.directory, 'other.bin');
  writeFileSync(large, randomBytes(LARGE_BYTES));
  const files = ['--input', script, '--input', large, '--output', 'result.txt', '--out', join(market.directory, 'out')];
  return ['--image', 'python', ...files, '--timeout', '120', '--', 'python', '/in/steps.py', String(steps)];
}

/** The numbers of the steps, in the order and as often as they were printed. */
function stepsOf(lines: readonly Readonly<Record<string, unknown>>[]): readonly number[] {
  const texts = lines.filter((line) => line['type'] === 'log').map((line) => String(line['text']));
  return [...texts.join('').matchAll(/^step (\d+) /gm)].map(([, step]) => Number(step));
}

/** Prints a line a step, then writes /out/result.txt. */
const STEPS_SCRIPT = `import sys
steps = int(sys.argv[1])
for step in range(steps):
    total = 0
    for i in range(400000):
        total += i * i
    print("step", step, total, flush=True)
open("/out/result.txt", "w").write("steps " + str(steps))
`;
