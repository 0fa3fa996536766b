/** How many transfers a second the local chain takes through JSON-RPC, beside the same transfers put into its VM. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { PublicKey, SystemProgram } from '@solana/web3.js';
import { LiteSvm } from 'litesvm/dist/internal.js';

import { buildDraft, wireTransaction } from '../../chain/instructions.ts';
import { type KeyPair, keyPairFromSeed } from '../../protocol/ed25519.ts';
import { systemEnv } from '../../protocol/env.ts';
import { type Group, quantile } from './row.ts';

const PAYERS = 16;
const TRANSFERS = 6_000;
const WARM_UP = 2_000;
/** Requests under way at once. */
const CLIENTS = 64;
const PER_BATCH = 50;

const env = systemEnv();

export const devnet: Group = {
  name: 'devnet',
  about: `local chain process, ${TRANSFERS} signed transfers, preflight on, each on disk before it is answered; the client shares the cores`,
  run: async (tell) => {
    const payers = Array.from({ length: PAYERS }, () => keyPairFromSeed(env.random.bytes(32)));
    const baseline = directly(payers);
    await using chain = await startChain();
    for (const { address } of payers) await chain.call('requestAirdrop', [address, 10 ** 12]);
    await sendAll(chain, await chain.transfers(payers, WARM_UP), 1);
    const bare = {
      unit: '1/s',
      bound: 'at-least' as const,
      baseline,
      baselineIs: 'same transfers into LiteSVM directly',
    };
    const single = await sendAll(chain, await chain.transfers(payers, TRANSFERS), 1);
    tell({ name: 'transactions, one request each', value: single.perSecond, ...bare, target: 1_000 });
    const batched = await sendAll(chain, await chain.transfers(payers, TRANSFERS), PER_BATCH);
    tell({ name: `transactions, ${PER_BATCH} in a request`, value: batched.perSecond, ...bare, target: 1_000 });
    const alone: number[] = [];
    for (const wire of await chain.transfers(payers, 200)) {
      const startedMs = performance.now();
      await chain.call('sendTransaction', [wire, { encoding: 'base64' }]);
      alone.push(performance.now() - startedMs);
    }
    const one = { unit: 'ms', baseline: await syncTime(), baselineIs: 'a write of 4 KiB and its sync' };
    tell({ name: 'one transaction alone, sent to on disk, p50', value: quantile(alone, 0.5), ...one, target: 10 });
    tell({ name: 'one transaction alone, p99', value: quantile(alone, 0.99), ...one, target: 50 });
  },
};

/** Base64 wires of distinct transfers. */
function transfers(payers: readonly KeyPair[], blockhash: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const payer = payers[index % payers.length] as KeyPair;
    const to = new PublicKey((payers[(index + 1) % payers.length] as KeyPair).publicKey);
    const draft = buildDraft(payer.address, blockhash, [
      SystemProgram.transfer({ fromPubkey: new PublicKey(payer.publicKey), toPubkey: to, lamports: 1_000 + index }),
    ]);
    return Buffer.from(wireTransaction(draft, [payer.sign(draft.message)])).toString('base64');
  });
}

/** Transfers a second of the bare VM, signatures checked. */
function directly(payers: readonly KeyPair[]): number {
  const vm = new LiteSvm();
  vm.setBlockhashCheck(false);
  vm.setTransactionHistory(0n);
  for (const { publicKey } of payers) vm.airdrop(publicKey, 10n ** 12n);
  const wires = transfers(payers, payers[0]?.address ?? '', TRANSFERS).map((wire) => Buffer.from(wire, 'base64'));
  const startedMs = performance.now();
  for (const wire of wires) vm.sendLegacyTransaction(wire);
  return (1_000 * wires.length) / (performance.now() - startedMs);
}

/** Median of 50, ms. */
async function syncTime(): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'molt-bench-'));
  const file = await open(join(directory, 'file'), 'w');
  const times: number[] = [];
  for (let round = 0; round < 50; round++) {
    const startedMs = performance.now();
    await file.write(Buffer.alloc(4_096));
    await file.datasync();
    times.push(performance.now() - startedMs);
  }
  await file.close();
  await rm(directory, { recursive: true });
  return quantile(times, 0.5);
}

interface BenchChain extends AsyncDisposable {
  call(method: string, params: readonly unknown[]): Promise<unknown>;
  post(body: string): Promise<string>;
  transfers(payers: readonly KeyPair[], count: number): Promise<string[]>;
}

async function startChain(): Promise<BenchChain> {
  const directory = await mkdtemp(join(tmpdir(), 'molt-bench-'));
  const program = new URL('../../node/molt.js', import.meta.url).pathname;
  const args = ['--json', 'devnet', '--port', '0', '--directory', directory, '--until-stdin-ends'];
  const child = spawn(process.execPath, [program, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const { rpcUrl } = JSON.parse(line) as { rpcUrl: string };
  const agent = new Agent({ keepAlive: true, maxSockets: CLIENTS });
  const post = (body: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
      const asked = request(rpcUrl, { method: 'POST', agent, headers }, (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('end', () => resolve(Buffer.concat(parts).toString()));
      });
      asked.on('error', reject);
      asked.end(body);
    });
  const call = async (method: string, params: readonly unknown[]): Promise<unknown> => {
    const answer = JSON.parse(await post(JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }))) as {
      result?: unknown;
      error?: { message: string };
    };
    if (answer.error) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result;
  };
  return {
    call,
    post,
    transfers: async (payers, count) => {
      const { value } = (await call('getLatestBlockhash', [])) as { value: { blockhash: string } };
      return transfers(payers, value.blockhash, count);
    },
    [Symbol.asyncDispose]: async () => {
      agent.destroy();
      child.stdin.end();
      await once(child, 'exit');
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Sends all, so many a request, CLIENTS requests at once; every answer must be a signature. */
async function sendAll(
  chain: BenchChain,
  wires: readonly string[],
  perRequest: number,
): Promise<{ readonly perSecond: number }> {
  const bodies: string[] = [];
  for (let start = 0; start < wires.length; start += perRequest) {
    const calls = wires.slice(start, start + perRequest).map((wire, id) => ({
      jsonrpc: '2.0',
      id,
      method: 'sendTransaction',
      params: [wire, { encoding: 'base64' }],
    }));
    bodies.push(JSON.stringify(perRequest === 1 ? calls[0] : calls));
  }
  let next = 0;
  const startedMs = performance.now();
  const client = async (): Promise<void> => {
    for (let body = bodies[next++]; body !== undefined; body = bodies[next++]) {
      const text = await chain.post(body);
      if (text.includes('"error"')) throw new Error(text.slice(0, 300));
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  return { perSecond: (1_000 * wires.length) / (performance.now() - startedMs) };
}
