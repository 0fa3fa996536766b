/**
 * Goal: a peer behind a broken line is noticed, and one that is merely quiet is kept. Method: two real peers with a relay
 * of TCP between them that stops passing anything on without closing; what takes seconds is told by a clock that ticks
 * ten times faster for the node under test.
 */
import { type Server, type Socket, connect, createServer } from 'node:net';
import { once } from 'node:events';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { type Mesh, openMesh } from '../../../node/mesh/index.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { type Env, systemEnv } from '../../../protocol/env.ts';
import { join } from './peers.ts';

const env = systemEnv();
const FASTER = 10;
const TICK_MS = 500;
/** Called for every tick of the node under test. */
let onTick = (): void => undefined;
const fast: Env = {
  ...env,
  clock: {
    ...env.clock,
    every: (ms, task) =>
      env.clock.every(ms / FASTER, () => {
        if (ms === TICK_MS) onTick();
        return task();
      }),
  },
};

let opened: AsyncDisposableStack;
let near: Mesh;
let far: Mesh;
let isCut = false;

beforeEach(async () => {
  opened = new AsyncDisposableStack();
  isCut = false;
  near = opened.use(await peer(fast, []));
  far = opened.use(await peer(env, ['/ip4/127.0.0.1/tcp/0']));
  const [address = ''] = far.addresses;
  const { line, port } = await openLine(Number(/tcp\/(\d+)/.exec(address)?.[1]));
  opened.defer(() => void line.close());
  await join(near, [address.replace(/tcp\/\d+/, `tcp/${port}`)]);
});
afterEach(() => opened.disposeAsync());

function peer(on: Env, listen: readonly string[]): Promise<Mesh> {
  const key = keyPairFromSeed(env.random.bytes(32));
  return openMesh(on, { key, listen, bootstrap: [], mdns: false, role: 'node', network: 'test' });
}

/** Passes everything on until it is cut. */
async function openLine(to: number): Promise<{ line: Server; port: number }> {
  const line = createServer((socket) => {
    const other = connect(to, '127.0.0.1');
    const pass = (from: Socket, into: Socket): void => {
      from.on('data', (bytes) => void (isCut || into.write(bytes)));
      from.on('error', () => into.destroy());
      from.on('close', () => into.destroy());
    };
    pass(socket, other);
    pass(other, socket);
  });
  line.listen(0, '127.0.0.1');
  await once(line, 'listening');
  const address = line.address();
  return { line, port: typeof address === 'object' && address !== null ? address.port : 0 };
}

test('a peer that answers no ping any more is dropped, though its connection never closes', async () => {
  const gone = new Promise<void>((resolve) => {
    opened.use(near.onPeer(({ type, peer: who }) => void (type === 'disconnected' && who === far.self && resolve())));
  });
  isCut = true;
  await gone;
  expect(near.isConnected(far.self)).toBe(false);
});

test('a peer that answers is kept however quiet it is', async () => {
  // Several times what a silent peer gets.
  await new Promise<void>((resolve) => {
    let ticks = 0;
    onTick = () => void (++ticks === 100 && resolve());
  });
  expect(near.isConnected(far.self)).toBe(true);
});
