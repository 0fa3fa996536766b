/**
 * The demo's network: a local chain and three providers as processes of their own, and a buyer's home.
 */
import { mkdir, mkdtemp, rm, rmdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { type Chain, connectChain } from '../../../chain/index.ts';
import type { Env } from '../../../protocol/env.ts';
import { assert } from '../../../protocol/errors.ts';
import { parseMolt } from '../../../protocol/units.ts';
import { type Home, homeAt } from '../../home.ts';
import { type Initialised, initialise } from '../init.ts';
import type { Parties } from './balances.ts';
import { type MoltChild, startMolt } from './child.ts';

/** Three sellers who differ in price and speed: the baseline compiler makes `laptop` really slower. */
const SELLERS = [
  { name: 'laptop', settings: { pricePerCpu: '0.0016', wasmCompiler: 'baseline', region: 'eu-north' } },
  { name: 'tower', settings: { pricePerCpu: '0.0012', wasmCompiler: 'optimizing', region: 'eu-west' } },
  { name: 'rack', settings: { pricePerCpu: '0.0020', wasmCompiler: 'optimizing', region: 'us-east' } },
] as const;
const STOP_GRACE_MS = 5_000;

export interface DemoNetwork extends AsyncDisposable {
  readonly directory: string;
  readonly rpcUrl: string;
  readonly chain: Chain;
  readonly buyer: Home;
  readonly parties: Parties;
  /** Multiaddrs of the providers. */
  readonly addresses: readonly string[];
}

export interface DemoNetworkOptions {
  readonly runtime: 'wasm' | 'container';
  /** Told when a part is up. */
  tell(title: string, detail: string): void;
  begin(title: string): void;
}

/** Starts everything below `.molt/`; disposing stops the processes and removes their files. */
export async function openDemoNetwork(env: Env, options: DemoNetworkOptions): Promise<DemoNetwork> {
  await using opened = new AsyncDisposableStack();
  const base = resolve('.molt');
  await mkdir(base, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(base, 'demo-'));
  opened.defer(async () => {
    await rm(directory, { recursive: true, force: true });
    // Only when nothing else is kept there.
    await rmdir(base).catch(() => undefined);
  });

  options.begin('chain up');
  const started = env.clock.monotonic();
  const devnet = startMolt(env, {
    name: 'local chain',
    args: ['devnet', '--port', '0', '--directory', join(directory, 'chain'), '--until-stdin-ends'],
  });
  opened.defer(() => devnet.stop(STOP_GRACE_MS));
  const rpcUrl = String((await devnet.first('listening'))['rpcUrl']);
  const chain = opened.use(await connectChain(env, { rpcUrl }));
  options.tell('chain up', `${rpcUrl}, network ${chain.network}, ${elapsed(env, started)}`);

  options.begin('accounts funded');
  const homes = SELLERS.map((seller) => homeAt(join(directory, seller.name)));
  const buyer = homeAt(join(directory, 'buyer'));
  const sellers = await Promise.all(
    SELLERS.map((seller, index) =>
      setUp(env, homes[index] ?? buyer, 'provider', {
        ...seller.settings,
        ...SELLER_SETTINGS,
        rpcUrl,
        runtimes: [options.runtime],
      }),
    ),
  );
  const owner = await setUp(env, buyer, 'buyer', { rpcUrl, mdns: false });
  options.tell('accounts funded', 'each provider staked 100 MOLT, the buyer has a budget of 50 MOLT');

  options.begin('providers up');
  const addresses = await startSellers(env, homes, opened);
  // The buyer's peers stand in its settings, so that later commands on this home need no flags.
  await setUp(env, buyer, 'buyer', { bootstrap: addresses });
  options.tell('providers up', SELLERS.map(({ name, settings }) => `${name} (${settings.region})`).join(', '));
  const resources = opened.move();
  return {
    directory,
    rpcUrl,
    chain,
    buyer,
    addresses,
    parties: {
      buyer: { wallet: owner.wallet, budget: owner.account },
      providers: sellers.map((seller, index) => ({
        name: SELLERS[index]?.name ?? '',
        wallet: seller.wallet,
        provider: seller.account,
      })),
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

const SELLER_SETTINGS = {
  mdns: false,
  listen: ['/ip4/127.0.0.1/tcp/0'],
  cpuMillis: 1_000,
  hostCpuMillis: 0,
  memoryBytes: 2 ** 30,
  diskBytes: 2 ** 30,
};

/** The first seller is the others' way into the mesh. */
async function startSellers(env: Env, homes: readonly Home[], opened: AsyncDisposableStack): Promise<string[]> {
  const start = (home: Home, more: readonly string[]): MoltChild => {
    const name = `provider ${home.directory}`;
    const child = startMolt(env, { name, args: ['up', '--home', home.directory, '--until-stdin-ends', ...more] });
    opened.defer(() => child.stop(STOP_GRACE_MS));
    return child;
  };
  const addressOf = async (child: MoltChild): Promise<string> => {
    const listening = await child.first('listening');
    return String((listening['addresses'] as unknown[])[0]);
  };
  const [first, ...others] = homes;
  assert(first !== undefined, 'the demo has sellers');
  const entry = start(first, []);
  const entryAddress = await addressOf(entry);
  const children = [entry, ...others.map((home) => start(home, ['--bootstrap', entryAddress]))];
  await Promise.all(children.map((child) => child.first('selling')));
  return Promise.all(children.map(addressOf));
}

function setUp(
  env: Env,
  home: Home,
  role: 'provider' | 'buyer',
  settings: Readonly<Record<string, unknown>>,
): Promise<Initialised> {
  const options = {
    role,
    settings,
    environment: {},
    stake: parseMolt('100'),
    deposit: parseMolt('50'),
    capPerLease: parseMolt('10'),
    capPerDay: parseMolt('50'),
    days: 30,
  };
  return initialise(env, home, options, () => undefined);
}

function elapsed(env: Env, since: number): string {
  return `${Math.round(env.clock.monotonic() - since)} ms`;
}
