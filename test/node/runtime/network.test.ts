/**
 * Goal: from inside a job's network nothing is reachable but what was named, and what is named works like a socket.
 * Method: a real namespace with nothing but its loopback; programs inside it that try; servers on this machine stand in
 * for the internet, which only this test's own way out can reach.
 */
import { type AddressInfo, type Server, type Socket, createServer } from 'node:net';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import type { Outside } from '../../../node/outside.ts';
import { Namespace } from '../../../node/runtime/container/namespace.ts';
import {
  JobNetwork,
  extraHosts,
  parseConnect,
  pinHosts,
  proxyVariables,
} from '../../../node/runtime/container/network.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { type TestNamespace, namespaceReason, openTestNamespace } from '../../fixtures/namespace.ts';

const env = systemEnv();
const reason = namespaceReason();

describe('the plan of a network', () => {
  const outside: Outside = {
    resolve: async (host) => [host === 'inner.test.org' ? '10.0.0.1' : '1.1.1.1'],
    mayReach: (address) => address === '1.1.1.1',
  };

  test('each named host has one line in the hosts file, and only suffixes need the proxy', async () => {
    const egress = ['a.org:443', 'b.org:443', 'a.org:80'];
    const terms = await pinHosts(outside, { egress, services: [] });
    expect(terms.pins).toEqual({ 'a.org': ['1.1.1.1'], 'b.org': ['1.1.1.1'] });
    expect(extraHosts(terms)).toEqual(['a.org:127.77.0.2', 'b.org:127.77.0.3']);
    expect(proxyVariables(terms)).toEqual({});
    const wide = await pinHosts(outside, { egress: [...egress, '*.c.org:443'], services: [] });
    expect(proxyVariables(wide)).toMatchObject({
      HTTPS_PROXY: 'http://127.77.0.1:3128',
      NO_PROXY: 'localhost,127.0.0.1,a.org,b.org',
    });
  });

  test('a host that points into a private network is refused by name before anything starts', async () => {
    await expect(pinHosts(outside, { egress: ['inner.test.org:443'], services: [] })).rejects.toMatchObject({
      code: 'job/egress-refused',
      message: expect.stringContaining('inner.test.org'),
    });
  });

  test('a request to the proxy is CONNECT to a name and a port, or it is nothing', () => {
    expect(parseConnect('CONNECT Files.Example.org:443 HTTP/1.1\r\nHost: other')).toEqual({
      host: 'files.example.org',
      port: 443,
    });
    for (const head of [
      'GET http://a.org/ HTTP/1.1',
      'CONNECT a.org HTTP/1.1',
      'CONNECT a.org:0 HTTP/1.1',
      'CONNECT a.org:65536 HTTP/1.1',
      'CONNECT [::1]:443 HTTP/1.1',
      'CONNECT a.org:443 HTTP/2',
      'CONNECT  a.org:443 HTTP/1.1',
      'CONNECT user@a.org:443 HTTP/1.1',
      'connect a.org:443 HTTP/1.1',
      ' CONNECT a.org:443 HTTP/1.1',
      'CONNECT a.org:443 HTTP/1.1\nX: y',
      'CONNECT a.org:443\0 HTTP/1.1',
    ]) {
      expect(parseConnect(head), head).toBeUndefined();
    }
  });
});

describe.skipIf(reason !== '')(`the network of a job${reason === '' ? '' : ` (${reason})`}`, () => {
  let inside: TestNamespace;
  let world: Server;
  let port: number;
  let serve: (socket: Socket) => void;
  let answers: Record<string, readonly string[]>;
  let network: JobNetwork;
  const outside: Outside = {
    resolve: async (host) => answers[host] ?? [],
    // 127.0.0.1 is the internet of this test; everything else is as private as it always is.
    mayReach: (address) => address === '127.0.0.1',
  };

  beforeAll(async () => {
    inside = await openTestNamespace();
    world = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      serve(socket);
    });
    await new Promise<void>((resolve) => world.listen(0, '127.0.0.1', resolve));
    ({ port } = world.address() as AddressInfo);
  });
  afterAll(async () => {
    world?.close();
    await inside?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    answers = { 'host.test.org': ['127.0.0.1'], 'a.wide.test.org': ['127.0.0.1'], 'evil.wide.test.org': ['10.0.0.1'] };
    serve = (socket) => socket.end('hello');
  });
  afterEach(() => network?.[Symbol.asyncDispose]());

  const openNetwork = async (egress: readonly string[], services: readonly number[] = []): Promise<void> => {
    const terms = await pinHosts(outside, { egress, services });
    const namespace = await Namespace.of(env, inside.pid, () => inside.isAlive());
    network = await JobNetwork.open(env, namespace, terms, outside);
  };
  /** What a connection says until it ends, or the code of its error. */
  const ask = (host: string, at: number, send = ''): Promise<string> =>
    inside.run(`
      const socket = net.connect(${at}, ${JSON.stringify(host)});
      socket.setTimeout(20_000, () => socket.destroy(new Error('silent')));
      let text = '';
      socket.on('data', (bytes) => { text += bytes; }).on('error', (error) => { text += error.code ?? error.message; });
      socket.on('close', () => console.log(text));
      ${send === '' ? '' : `socket.write(${JSON.stringify(send)});`}
    `);
  const viaProxy = (target: string, more = ''): Promise<string> =>
    ask('127.77.0.1', 3128, `CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${more}\r\n`);

  test('a named host is reached through its loopback address, and nothing else is', async () => {
    await openNetwork([`host.test.org:${port}`]);
    expect(await ask('127.77.0.2', port)).toBe('hello\n');
    const own = Object.values((await import('node:os')).networkInterfaces()).flatMap((each) => each ?? []);
    const elsewhere = ['169.254.169.254', '10.0.0.1', '192.168.1.1', '1.1.1.1', ...own.map(({ address }) => address)];
    const script = `
      for (const host of ${JSON.stringify(elsewhere)}) {
        const socket = net.connect({ host, port: ${port} });
        await Promise.race([once(socket, 'connect').then(() => console.log('REACHED', host)), once(socket, 'error')]).catch(() => undefined);
        socket.destroy();
      }
      console.log('done');`;
    expect(await inside.run(script)).toBe('done\n');
  });

  test('a name keeps its first address, whatever it points to later', async () => {
    await openNetwork([`host.test.org:${port}`, `*.wide.test.org:${port}`]);
    answers['host.test.org'] = ['10.0.0.1'];
    expect(await ask('127.77.0.2', port)).toBe('hello\n');
    expect(await viaProxy(`a.wide.test.org:${port}`)).toContain('hello');
    answers['a.wide.test.org'] = ['10.0.0.1'];
    expect(await viaProxy(`a.wide.test.org:${port}`)).toContain('hello');
  });

  test('the proxy connects to what the rules name and refuses the rest with the reason', async () => {
    await openNetwork([`*.wide.test.org:${port}`]);
    expect(await viaProxy(`a.wide.test.org:${port}`)).toMatch(/^HTTP\/1\.1 200 .*\r\n\r\nhello/);
    for (const [target, status, words] of [
      ['other.org:443', 403, 'not among the egress rules'],
      ['a.wide.test.org:22', 403, 'not among the egress rules'],
      ['wide.test.org:443', 403, 'not among the egress rules'],
      [`127.0.0.1:${port}`, 403, 'not among the egress rules'],
      [`2130706433:${port}`, 403, 'not among the egress rules'],
      ['[::1]:443', 405, 'only "CONNECT'],
      [`evil.wide.test.org:${port}`, 403, 'no public address'],
      [`unknown.wide.test.org:${port}`, 403, 'has no address'],
    ] as const) {
      const answer = await viaProxy(target);
      expect(answer, target).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
      expect(answer, target).toContain(words);
    }
  });

  test('plain proxy requests, smuggled ones and giant heads reach nobody', async () => {
    const seen: string[] = [];
    serve = (socket) => socket.on('data', (bytes) => seen.push(String(bytes)));
    await openNetwork([`*.wide.test.org:${port}`]);
    const proxy = (send: string): Promise<string> => ask('127.77.0.1', 3128, send);
    const target = `a.wide.test.org:${port}`;
    expect(await proxy(`GET http://${target}/ HTTP/1.1\r\nHost: ${target}\r\n\r\n`)).toContain(' 405 ');
    expect(await proxy(`CONNECT other.org:443 HTTP/1.1\r\n\r\nCONNECT ${target} HTTP/1.1\r\n\r\n`)).toContain(' 403 ');
    expect(await proxy(`CONNECT ${target} HTTP/1.1\r\nX: ${'y'.repeat(9_000)}\r\n\r\n`)).toContain(' 400 ');
    expect(await proxy('z'.repeat(100_000))).toContain(' 400 ');
    // Whoever sends on and on reads the answer all the same.
    const sending = `
      const socket = net.connect(3128, '127.77.0.1');
      let text = '';
      socket.on('data', (bytes) => { text += bytes; }).on('error', (error) => { text += error.code; });
      socket.on('close', () => console.log(text));
      socket.end(Buffer.alloc(32 << 20));`;
    expect(await inside.run(sending)).toMatch(/^HTTP\/1\.1 400 .*\n$/s);
    expect(seen).toEqual([]);
  });

  test('what follows the request head belongs to the connection', async () => {
    serve = (socket) => socket.once('data', (bytes) => socket.end(`got ${String(bytes)}`));
    await openNetwork([`*.wide.test.org:${port}`]);
    const target = `a.wide.test.org:${port}`;
    expect(await ask('127.77.0.1', 3128, `CONNECT ${target} HTTP/1.1\r\n\r\nearly`)).toContain('got early');
  });

  test('an end in one direction leaves the other open, and bytes are counted', async () => {
    serve = (socket) => {
      let count = 0;
      socket.on('data', (bytes) => (count += bytes.length)).on('end', () => socket.end(`${count} bytes`));
    };
    await openNetwork([`host.test.org:${port}`]);
    const script = `
      const socket = net.connect({ host: '127.77.0.2', port: ${port}, allowHalfOpen: true });
      socket.end(Buffer.alloc(3_000_000));
      socket.on('data', (bytes) => console.log(String(bytes)));`;
    expect(await inside.run(script)).toBe('3000000 bytes\n');
    await expect.poll(() => network.traffic()).toEqual({ receivedBytes: 13, sentBytes: 3_000_000 });
  });

  test('a connection that breaks outside breaks inside, so that a part is not taken for the whole', async () => {
    serve = (socket) => void socket.write('a part', () => setTimeout(() => socket.resetAndDestroy(), 100));
    await openNetwork([`host.test.org:${port}`]);
    // A reset overtakes what is still on its way.
    expect(await ask('127.77.0.2', port)).toMatch(/^(a part)?ECONNRESET\n$/);
  });

  test('a reader that takes nothing slows the sender down instead of filling the node', async () => {
    let sent = 0;
    serve = (socket) => {
      const chunk = Buffer.alloc(64 * 1024);
      const write = (): void => {
        while (sent < 512 * 2 ** 20 && !socket.destroyed) {
          sent += chunk.length;
          if (!socket.write(chunk)) break;
        }
      };
      socket.on('drain', write);
      write();
    };
    await openNetwork([`host.test.org:${port}`]);
    await inside.run(`
      const socket = net.connect(${port}, '127.77.0.2');
      await once(socket, 'data');
      socket.pause();
      setTimeout(() => process.exit(), 1500);`);
    expect(sent).toBeGreaterThan(0);
    expect(sent).toBeLessThan(64 * 2 ** 20);
  });

  test('of a thousand connections the first 256 are kept and the others are turned away', async () => {
    serve = (socket) =>
      void socket
        .on('end', () => socket.end())
        .resume()
        .write('held');
    await openNetwork([`host.test.org:${port}`]);
    const script = `
      let held = 0, refused = 0, opened = 0;
      const open = () => {
        if (opened++ >= 1000) return;
        const socket = net.connect(${port}, '127.77.0.2');
        socket.once('data', () => { held++; look(); });
        socket.once('error', () => { refused++; look(); });
      };
      const look = () => {
        if (held + refused === 1000) { console.log(held, refused); process.exit(); }
        open();
      };
      // Fewer at a time than wait to be taken: the kernel forgets what finds that queue full, for longer and longer.
      for (let count = 0; count < 400; count++) open();`;
    expect(await inside.run(script)).toBe('256 744\n');
    const again = `
      const socket = net.connect(${port}, '127.77.0.2');
      socket.on('data', () => { console.log('held'); process.exit(); }).on('error', () => undefined);`;
    await expect.poll(() => inside.run(again)).toBe('held\n');
  });

  test('a service is reached on the job’s loopback, another port is not, and a silent one is told as such', async () => {
    await openNetwork([], [8080]);
    await expect(network.connect(22, AbortSignal.timeout(10_000))).rejects.toMatchObject({ code: 'job/impossible' });
    await expect(network.connect(8080, AbortSignal.timeout(10_000))).rejects.toMatchObject({
      code: 'mesh/unreachable',
    });
    const served = inside.run(`
      const server = net.createServer({ allowHalfOpen: true }, (socket) => {
        let text = '';
        socket.on('data', (bytes) => { text += bytes; }).on('end', () => { socket.end('heard ' + text); server.close(); });
      });
      server.listen(8080, '127.0.0.1');`);
    let socket: Socket | undefined;
    const connected = async (): Promise<boolean> => {
      socket = await network.connect(8080, AbortSignal.timeout(10_000)).catch(() => undefined);
      return socket !== undefined;
    };
    await expect.poll(connected).toBe(true);
    socket?.end('a request');
    const chunks: Buffer[] = [];
    for await (const chunk of socket ?? []) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).toString()).toBe('heard a request');
    await network[Symbol.asyncDispose]();
    await served;
  });

  test('the end of the job closes every connection and both doors', async () => {
    serve = (socket) => socket.write('held');
    await openNetwork([`host.test.org:${port}`]);
    const held = ask('127.77.0.2', port);
    await expect.poll(() => network.traffic().receivedBytes).toBe(4);
    await network[Symbol.asyncDispose]();
    // A reset overtakes what is still on its way to the program.
    expect(await held).toMatch(/^(held)?ECONNRESET\n$/);
    expect(await ask('127.77.0.2', port)).toBe('ECONNREFUSED\n');
    await expect(network.connect(8080, AbortSignal.timeout(1_000))).rejects.toThrow();
  });

  test('this node’s own namespace, and that of a process that is gone, are refused', async () => {
    await expect(Namespace.of(env, process.pid, async () => true)).rejects.toMatchObject({
      code: 'runtime/engine-failed',
      message: expect.stringContaining("node's own"),
    });
    await expect(Namespace.of(env, inside.pid, async () => false)).rejects.toThrow('is gone');
    await expect(Namespace.of(env, 2 ** 30, async () => true)).rejects.toThrow('is gone');
  });
});
