/**
 * The local chain: the real Solana VM, the real SPL Token and the real Molt program behind Solana's JSON-RPC.
 *
 * Any Solana client speaks to it over HTTP and websocket; Molt's own code cannot tell it from a cluster. It keeps its
 * state on disk, gives away tokens, and can put its clock forward. The first start makes the mint and the Config.
 */
import { readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';

import { PublicKey, SystemProgram } from '@solana/web3.js';
import type { FastifyInstance } from 'fastify';

import type { Address } from '../../protocol/address.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, assert } from '../../protocol/errors.ts';
import { MOLT_DECIMALS, baseUnits } from '../../protocol/units.ts';
import { readConfig } from '../accounts.ts';
import { configAddress } from '../addresses.ts';
import { callInitialize } from '../calls.ts';
import type { Network, Parameters } from '../chain.ts';
import { LOCAL_PROGRAM_ID, buildDraft, wireTransaction } from '../instructions.ts';
import { MINT_SIZE, TOKEN_PROGRAM, initializeMint } from '../token.ts';
import { Ledger } from './ledger.ts';
import { createServer } from './server.ts';

/** Short windows, so that a test or a demo of the sad paths does not wait; fees and stake as a real market has them. */
export const LOCAL_PARAMETERS: Parameters = {
  stakeFeeBps: 100,
  burnFeeBps: 50,
  reserveBps: 1_000,
  noShowSlashBps: 1_000,
  disputeBondBps: 1_000,
  equivocationSlashBps: 2_500,
  minGraceMs: 1_000,
  minWindowMs: 1_000,
  maxLeaseMs: 14 * 86_400_000,
  unbondingMs: 10_000,
  voteMs: 60_000,
  revealMs: 60_000,
  minStake: baseUnits(1_000_000_000n),
  verifierPledge: baseUnits(1_000_000_000n),
};

const HISTORY_MAX = 100_000;

export interface DevnetOptions {
  /** Holds the state; made when missing. One process at a time. */
  readonly directory: string;
  /** HTTP and websocket; the websocket is also on the next port, where Solana's clients look for it. 0: any free pair. */
  readonly port: number;
  /** Default 127.0.0.1: the faucet is open to whoever can connect. */
  readonly host?: string;
  /** Transactions kept, at least; older ones are forgotten, accounts never. Default 100,000, about 200 MB. */
  readonly historyMax?: number;
}

export interface Devnet extends AsyncDisposable {
  readonly rpcUrl: string;
  readonly wsUrl: string;
  readonly network: Network;
  readonly programId: Address;
  readonly mint: Address;
  /** Stops serving; what was confirmed is on disk already. */
  close(): Promise<void>;
}

/** Starts or resumes a local chain. Throws `node/already-running` and `mesh/listen-failed`. */
export async function startDevnet(env: Env, options: DevnetOptions): Promise<Devnet> {
  const { directory, port, host = '127.0.0.1', historyMax = HISTORY_MAX } = options;
  const program = await readFile(new URL('../program/molt.so', import.meta.url));
  const ledger = await Ledger.open(env, { directory, program, historyMax });
  let servers: Servers;
  let mint: Address;
  try {
    mint = await establishMarket(ledger);
    servers = await listen(() => createServer(env, { ledger, mint }), host, port);
  } catch (error) {
    await ledger[Symbol.asyncDispose]();
    throw error;
  }
  const close = async (): Promise<void> => {
    await Promise.all(servers.list.map((server) => server.close()));
    await ledger[Symbol.asyncDispose]();
  };
  const name = host.includes(':') ? `[${host}]` : host;
  return {
    rpcUrl: `http://${name}:${servers.port}`,
    wsUrl: `ws://${name}:${servers.port + 1}`,
    network: ledger.genesis,
    programId: LOCAL_PROGRAM_ID,
    mint,
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Makes mint and Config in one transaction, unless a former start did. */
async function establishMarket(ledger: Ledger): Promise<Address> {
  const config = ledger.account(configAddress(LOCAL_PROGRAM_ID).address);
  if (config) return readConfig(config.data).mint;
  const { faucet } = ledger;
  // The mint's key signs once, here; it is derived, so that a start that was interrupted is repeated exactly.
  const mint = keyPairFromSeed(faucet.sign(Buffer.from('molt devnet mint')).subarray(0, 32));
  const create = SystemProgram.createAccount({
    fromPubkey: new PublicKey(faucet.address),
    newAccountPubkey: new PublicKey(mint.address),
    lamports: Number(ledger.minimumBalance(MINT_SIZE)),
    space: MINT_SIZE,
    programId: new PublicKey(TOKEN_PROGRAM),
  });
  const market = { programId: LOCAL_PROGRAM_ID, mint: mint.address };
  const draft = buildDraft(faucet.address, ledger.blockhash(), [
    create,
    initializeMint(mint.address, MOLT_DECIMALS, faucet.address),
    callInitialize(market, faucet.address, LOCAL_PARAMETERS, ledger.genesis),
  ]);
  const signers = [faucet, mint];
  const signatures = draft.signers.map((address) => {
    const signer = signers.find((candidate) => candidate.address === address);
    assert(signer, 'faucet and mint are the only signers');
    return signer.sign(draft.message);
  });
  await ledger.execute(wireTransaction(draft, signatures));
  return mint.address;
}

interface Servers {
  readonly port: number;
  readonly list: readonly FastifyInstance[];
}

/** Listens on `port` and on the next one. */
async function listen(create: () => Promise<FastifyInstance>, host: string, port: number): Promise<Servers> {
  const attempts = port === 0 ? 20 : 1;
  let last: unknown;
  for (let attempt = 0; attempt < attempts; attempt++) {
    const first = await create();
    const second = await create();
    try {
      await first.listen({ host, port });
      const chosen = (first.server.address() as AddressInfo).port;
      await second.listen({ host, port: chosen + 1 });
      return { port: chosen, list: [first, second] };
    } catch (error) {
      last = error;
      await Promise.all([first.close(), second.close()]);
    }
  }
  throw new MoltError(
    'mesh/listen-failed',
    `the local chain cannot listen on ${host}, ports ${port} and ${port + 1}: stop what uses them or choose another port`,
    { host, port },
    { cause: last },
  );
}
