/**
 * Goal: a buyer reaches a service of its job through the mesh, hears when it is ready, and nobody else gets in. Method:
 * provider processes on a real engine; a web server in a container; fetch through the forwarded port.
 */
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type Address, parseAddress } from '../../protocol/address.ts';
import type { JobSpecInput } from '../../protocol/job-spec.ts';
import type { Job, JobEvent, MoltError } from '../../sdk/index.ts';
import { findEngine, openBusyboxRegistry } from '../fixtures/engine.ts';
import { UNTIL_LET_GO, letGo } from '../fixtures/let-go.ts';
import { namespaceReason } from '../fixtures/namespace.ts';
import type { Registry } from '../fixtures/registry.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket } from './market.ts';

const engine = await findEngine();
const reason = engine.socketPath === undefined ? engine.reason : namespaceReason();

const SERVE =
  'mkdir /tmp/www; echo hello > /tmp/www/index.html; seq 500000 > /tmp/www/big; exec busybox httpd -f -p 8080 -h /tmp/www';

describe.skipIf(reason !== '')(`a service of a job${reason === '' ? '' : ` (${reason})`}`, () => {
  let market: TestMarket;
  let provider: TestProvider;
  let registry: Registry;

  beforeAll(async () => {
    registry = await openBusyboxRegistry();
    market = await openMarket();
    provider = await market.provider({
      runtimes: ['container'],
      containerSocket: engine.socketPath,
      egress: ['*:443'],
    });
  });

  afterAll(async () => {
    await market?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  const job = (script: string, more: Partial<JobSpecInput> = {}): JobSpecInput => ({
    runtime: 'container',
    image: registry.reference,
    command: ['sh', '-c', script],
    resources: { memoryBytes: 64 * 2 ** 20, diskBytes: 32 * 2 ** 20, cpuMillis: 200 },
    maxDurationSeconds: 120,
    services: [{ name: 'web', port: 8080 }],
    ...more,
  });
  const health = { service: 'web', path: '/index.html', intervalSeconds: 1, startSeconds: 30, failures: 2 };

  /** Status and length or text of an answer; rejects when the connection breaks. */
  const get = (port: number, path: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const asked = request({ host: '127.0.0.1', port, path, agent: false, timeout: 20_000 }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', reject);
        response.on('end', () => resolve(`${response.statusCode} ${Buffer.concat(chunks).toString()}`));
      });
      asked
        .on('error', reject)
        .on('timeout', () => asked.destroy(new Error('silent')))
        .end();
    });
  const until = async (started: Job, matches: (event: JobEvent) => boolean): Promise<JobEvent> => {
    for await (const event of started.events) if (matches(event)) return event;
    await started.result;
    throw new Error('the job ended without that event');
  };

  /** Ends a job whose own process is gone for good, as its buyer may at any time. */
  const cancel = async (buyer: TestBuyer, address: Address): Promise<void> => {
    const lease = await market.chain.lease(address);
    if (lease === undefined) throw new Error('the lease is gone');
    await market.chain.cancelByDelegate(buyer.key, lease);
    await provider.line((line) => line['type'] === 'lease-closed' && line['lease'] === address, 'the end of the lease');
  };

  test('is told ready, answers through the forwarded port, and is gone with the job', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    const started = molt.start(job(SERVE, { health }), { maxPrice: '2' });
    const forward = await started.forward('web');
    expect(await until(started, ({ type }) => type === 'ready')).toEqual({
      type: 'ready',
      service: 'web',
      ready: true,
      reason: '',
    });
    expect(await get(forward.port, '/index.html')).toBe('200 hello\n');
    const bodies = await Promise.all(Array.from({ length: 8 }, () => get(forward.port, '/big')));
    expect(new Set(bodies)).toEqual(
      new Set([`200 ${Array.from({ length: 500_000 }, (_, n) => `${n + 1}\n`).join('')}`]),
    );
    // The port stands on the buyer's side only.
    await expect(get(8080, '/index.html')).rejects.toThrow();
    started.cancel();
    await expect(started.result).rejects.toMatchObject({ code: 'job/cancelled' });
    expect(forward.closed.aborted).toBe(true);
    await expect(get(forward.port, '/index.html')).rejects.toThrow();
  });

  test('is for its buyer alone, at the declared port alone', async () => {
    const [buyer, stranger] = [await market.buyer(), await market.buyer()];
    await using molt = await buyer.connect();
    await using other = await stranger.connect();
    const started = molt.start(job(SERVE, { health }), { maxPrice: '2' });
    const opened = await until(started, ({ type }) => type === 'lease-opened');
    const lease = opened.type === 'lease-opened' ? opened.lease : undefined;
    if (lease === undefined) throw new Error('no lease');
    await until(started, ({ type }) => type === 'ready');
    const refusals: MoltError[] = [];
    const onRefused = (error: MoltError): unknown => refusals.push(error);
    await using own = await molt.forward(lease, 8080, { onRefused });
    expect(await get(own.port, '/index.html')).toBe('200 hello\n');
    await using wrong = await molt.forward(lease, 22, { onRefused });
    await expect(get(wrong.port, '/')).rejects.toThrow();
    await using strange = await other.forward(lease, 8080, { onRefused });
    await expect(get(strange.port, '/index.html')).rejects.toThrow();
    expect(refusals.map(({ code }) => code)).toEqual(['job/impossible', 'job/unknown']);
    await expect(started.forward('database')).rejects.toMatchObject({ code: 'job/impossible' });
    started.cancel();
    await started.result.catch(() => undefined);
  });

  test('that never comes up is stopped with the reason, and costs what it ran', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    const spec = job('sleep 100', { health: { ...health, startSeconds: 2 } });
    await expect(molt.run(spec, { maxPrice: '2' })).rejects.toMatchObject({
      code: 'job/never-ready',
      result: { reason: 'never-ready', attempts: 1 },
    });
    expect(await market.chain.budget(buyer.budget)).toMatchObject({ locked: 0n });
  });

  test('that stops answering is told unready, and the job goes on', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    const stop = `${UNTIL_LET_GO}; kill $!; rm /tmp/let-go`;
    const script = `${SERVE.replace('exec ', '')} & ${stop}; ${UNTIL_LET_GO}; echo still here`;
    const started = molt.start(job(script, { health }), { maxPrice: '2' });
    await until(started, (event) => event.type === 'ready' && event.ready);
    await letGo(engine.socketPath ?? '', registry.reference);
    expect(await until(started, (event) => event.type === 'ready' && !event.ready)).toMatchObject({ service: 'web' });
    await letGo(engine.socketPath ?? '', registry.reference);
    expect((await started.result).stdout).toContain('still here');
  });

  test('is reached again after its node was killed and came back', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    const started = molt.start(job(SERVE, { health }), { maxPrice: '2', reconnectMs: 150_000 });
    const forward = await started.forward(8080);
    await until(started, ({ type }) => type === 'ready');
    await provider.kill();
    await expect(get(forward.port, '/index.html')).rejects.toThrow();
    await provider.start();
    await expect.poll(() => get(forward.port, '/index.html').catch(() => '')).toBe('200 hello\n');
    started.cancel();
    await started.result.catch(() => undefined);
  });

  test('is forwarded by molt run, by molt forward beside it, and by molt forward after molt run was killed', async () => {
    const buyer = await market.buyer();
    const file = join(market.directory, 'service.json');
    writeFileSync(file, JSON.stringify(job(SERVE, { health })));
    const home = ['--home', buyer.home.directory];
    const running = market.spawn(['run', '--spec', file, '--forward', '8080', '--out', market.directory, ...home]);
    const own = Number((await running.first('listening'))['port']);
    const { lease } = await running.first('lease-opened');
    expect(await running.first('ready')).toMatchObject({ service: 'web', ready: true });
    expect(await get(own, '/index.html')).toBe('200 hello\n');

    const beside = market.spawn(['forward', String(lease).slice(0, 8), '8080', ...home]);
    expect(await get(Number((await beside.first('listening'))['port']), '/index.html')).toBe('200 hello\n');
    const wrong = market.spawn(['forward', 'zzzz', '8080', ...home]);
    await expect(wrong.first('listening')).rejects.toMatchObject({ code: 'job/unknown' });

    if (running.pid !== undefined) process.kill(running.pid, 'SIGKILL');
    await Promise.all([running.exited, beside.exited]);
    const alone = market.spawn(['forward', String(lease).slice(0, 8), '8080', ...home]);
    const listening = await alone.first('listening');
    expect(listening).toMatchObject({ lease, host: '127.0.0.1', servicePort: 8080 });
    expect(await get(Number(listening['port']), '/index.html')).toBe('200 hello\n');
    if (alone.pid !== undefined) process.kill(alone.pid, 'SIGTERM');
    await alone.exited;
    await cancel(buyer, parseAddress(String(lease)));
  });

  test('a host beyond the provider’s policy is declined by name, and one that is no public host as well', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    const before = await market.chain.budget(buyer.budget);
    const network = { egress: ['example.com:80'] };
    await expect(molt.run(job('true', { network }), { maxPrice: '2', attempts: 1 })).rejects.toMatchObject({
      code: 'market/egress-refused',
      message: expect.stringContaining('example.com:80'),
    });
    const unknown = { egress: ['nothing.invalid:443'] };
    await expect(molt.run(job('true', { network: unknown }), { maxPrice: '2' })).rejects.toMatchObject({
      // The second where no name server answers.
      code: expect.stringMatching(/^(?:job\/egress-refused|market\/declined)$/),
      message: expect.stringContaining('nothing.invalid'),
    });
    await expect.poll(() => market.chain.budget(buyer.budget)).toMatchObject({ locked: 0n, free: before?.free });
  });
});
