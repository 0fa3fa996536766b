/**
 * An RPC endpoint between a client and a chain that fails as public endpoints do, on demand.
 *
 * There is no websocket behind it, so whatever works through it works by polling.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * `lose-request`: the connection breaks before the chain hears of it. `lose-answer`: the chain has done it, and the
 * connection breaks. `twice`: the chain gets it twice, the client hears the second answer. `never`: silence.
 */
export type Fault =
  | 'pass'
  | 'lose-request'
  | 'lose-answer'
  | 'twice'
  | 'busy'
  | 'unavailable'
  | 'nonsense'
  | 'late'
  | 'never';

export interface FlakyEndpoint extends AsyncDisposable {
  readonly url: string;
  /** Requests seen, by method. */
  readonly seen: ReadonlyMap<string, number>;
  /** Chooses what happens to the `count`-th request of a method, from 1. */
  faults: (method: string, count: number) => Fault;
  /** Results to give for methods instead of asking the chain. */
  readonly results: Map<string, unknown>;
}

const LATE_MS = 700;

export async function startFlakyEndpoint(upstream: string): Promise<FlakyEndpoint> {
  const seen = new Map<string, number>();
  const results = new Map<string, unknown>();
  const endpoint = { faults: (): Fault => 'pass' } as { faults: FlakyEndpoint['faults'] };
  const ask = async (body: string): Promise<string> => {
    const headers = { 'content-type': 'application/json' };
    return (await fetch(upstream, { method: 'POST', headers, body })).text();
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts).toString();
    const { method, id } = JSON.parse(body) as { method: string; id: unknown };
    const count = (seen.get(method) ?? 0) + 1;
    seen.set(method, count);
    const fault = endpoint.faults(method, count);
    if (fault === 'never') return;
    if (fault === 'lose-request') return void response.destroy();
    if (fault === 'busy') return void response.writeHead(429, { 'retry-after': '0' }).end('slow down');
    if (fault === 'unavailable') return void response.writeHead(503).end();
    if (fault === 'nonsense') return void response.end('<html>maintenance</html>');
    if (fault === 'late') await new Promise((resolve) => setTimeout(resolve, LATE_MS));
    const canned = results.has(method);
    let text = canned ? JSON.stringify({ jsonrpc: '2.0', id, result: results.get(method) }) : await ask(body);
    if (fault === 'lose-answer') return void response.destroy();
    if (fault === 'twice') text = await ask(body);
    response.setHeader('content-type', 'application/json').end(text);
  };
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return Object.assign(endpoint, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    results,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  });
}
