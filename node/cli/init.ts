/**
 * `molt init`: from nothing to a home that can sell or buy.
 *
 * Every step looks first whether its result is there, so running it again does what is missing and nothing twice. Keys
 * are never overwritten.
 */
import { type AskPassphrase, type Chain, connectChain, createWallet, readWallet } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { type BaseUnits, baseUnits, formatMolt, parseMolt } from '../../protocol/units.ts';
import { SETTING_NAMES, mergeSettings, readConfigFile } from '../config.ts';
import { type Home, createHome, writeHomeFile } from '../home.ts';
import { askPassphrase } from './ask.ts';
import { type CommandContext, moltCommand, printResult } from './command.ts';
import { requestFaucet } from './faucet.ts';
import { createLiveList } from './live-list.ts';
import { formatSol } from './wallet.ts';

const DAY_MS = 86_400_000;
/** Fees of a few hundred transactions and the rent of open leases. */
const NODE_KEY_LAMPORTS = 50_000_000n;
/** Rent of the accounts that init makes, and fees. */
const WALLET_LAMPORTS = 50_000_000n;
const BUDGET_ID = 0n;

export interface InitOptions {
  readonly role: 'provider' | 'buyer';
  /** Settings to keep in config.json, over those that are there. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Provider: base units to have staked at least. */
  readonly stake: BaseUnits;
  /** Buyer: base units to have in the budget at least. */
  readonly deposit: BaseUnits;
  readonly capPerLease: BaseUnits;
  readonly capPerDay: BaseUnits;
  readonly days: number;
  /** For a wallet that is encrypted. */
  readonly ask?: AskPassphrase;
}

export interface Initialised {
  readonly role: 'provider' | 'buyer';
  readonly wallet: Address;
  readonly nodeKey: Address;
  /** The provider or the budget account. */
  readonly account: Address;
}

/** Told for every step: what it is, what came of it, and whether anything had to be made. */
export type TellStep = (title: string, detail: string, made: boolean) => void;

/** Does what is missing. Throws `chain/unreachable`, `chain/insufficient-funds` and what the chain refuses. */
export async function initialise(env: Env, home: Home, options: InitOptions, tell: TellStep): Promise<Initialised> {
  await createHome(home);
  const wallet = await keyAt({ env, path: home.wallet, title: 'wallet', ask: options.ask }, tell);
  const node = await keyAt({ env, path: home.nodeKey, title: 'node key', ask: undefined }, tell);
  const file = { ...(await readConfigFile(home.config)), ...given(options.settings) };
  const { settings } = mergeSettings({ environment: options.environment, file });
  await using chain = await connectChain(env, {
    rpcUrl: settings.rpcUrl,
    ...(settings.programId === null ? {} : { programId: settings.programId as Address }),
  });
  tell('chain', `${settings.rpcUrl}, network ${chain.network}`, true);
  const need = options.role === 'provider' ? options.stake : options.deposit;
  const party: Party = { env, chain, wallet, node, rpcUrl: settings.rpcUrl };
  const account = options.role === 'provider' ? await provider(party, need, tell) : await budget(party, options, tell);
  await fundNodeKey(party, tell);
  // Endpoint and peers are always written: config.json with the node key is all that the SDK's `connect` takes.
  const { rpcUrl, bootstrap } = settings;
  const content = { ...file, rpcUrl, bootstrap, [options.role === 'provider' ? 'provider' : 'budget']: account };
  await writeHomeFile(home.config, `${JSON.stringify(content, null, 2)}\n`);
  tell('settings', home.config, true);
  return { role: options.role, wallet: wallet.address, nodeKey: node.address, account };
}

interface Party {
  readonly env: Env;
  readonly chain: Chain;
  readonly wallet: KeyPair;
  readonly node: KeyPair;
  readonly rpcUrl: string;
}

interface KeyFile {
  readonly env: Env;
  readonly path: string;
  readonly title: string;
  readonly ask: AskPassphrase | undefined;
}

async function keyAt({ env, path, title, ask }: KeyFile, tell: TellStep): Promise<KeyPair> {
  try {
    const key = await readWallet(path, ask);
    tell(title, key.address, false);
    return key;
  } catch (error) {
    if (!hasCode(error, 'wallet/missing')) throw error;
  }
  const key = await createWallet(env, path);
  tell(title, `${key.address}, written to ${path}`, true);
  return key;
}

/** Makes sure that the wallet has so much; a local chain's faucet gives what lacks. */
async function fundWallet(party: Party, tokens: bigint, tell: TellStep): Promise<void> {
  const { chain, wallet } = party;
  const balance = await chain.balances(wallet.address);
  const lacksTokens = balance.tokens < tokens ? tokens - balance.tokens : 0n;
  const lacksLamports = balance.lamports < WALLET_LAMPORTS ? WALLET_LAMPORTS * 2n : 0n;
  if (lacksTokens === 0n && lacksLamports === 0n) return;
  await fromFaucet(party, wallet.address, lacksTokens, lacksLamports);
  tell('faucet', `${formatMolt(lacksTokens)} and ${formatSol(lacksLamports)} for the wallet`, true);
}

async function fundNodeKey(party: Party, tell: TellStep): Promise<void> {
  const { lamports } = await party.chain.balances(party.node.address);
  if (lamports >= NODE_KEY_LAMPORTS / 5n) {
    tell('node key fees', formatSol(lamports), false);
    return;
  }
  await fromFaucet(party, party.node.address, 0n, NODE_KEY_LAMPORTS);
  tell('node key fees', formatSol(NODE_KEY_LAMPORTS), true);
}

async function fromFaucet(party: Party, owner: Address, tokens: bigint, lamports: bigint): Promise<void> {
  try {
    await requestFaucet(party.rpcUrl, { owner, tokens, lamports });
  } catch (cause) {
    if (!hasCode(cause, 'chain/insufficient-funds')) throw cause;
    throw new MoltError(
      'chain/insufficient-funds',
      `${owner} needs ${formatMolt(tokens)} and ${formatSol(lamports)} more, and ${party.rpcUrl} has no faucet; send them there, then run molt init again`,
      { owner, baseUnits: tokens.toString(), lamports: lamports.toString() },
      { cause },
    );
  }
}

async function provider(party: Party, stake: BaseUnits, tell: TellStep): Promise<Address> {
  const { chain, wallet, node } = party;
  const address = chain.providerAddress(wallet.address);
  const found = await chain.provider(address);
  const has = found?.own.stake ?? 0n;
  const lacks = stake > has ? stake - has : 0n;
  await fundWallet(party, lacks, tell);
  if (found === undefined) {
    await chain.registerProvider(wallet, { operator: node.address });
    tell('provider', `${address}, operated by this node key`, true);
  } else if (found.operator !== node.address) {
    await chain.updateProvider(wallet, { operator: node.address });
    tell('provider', `${address}, now operated by this node key`, true);
  } else {
    tell('provider', address, false);
  }
  if (lacks > 0n) await chain.stake(wallet, address, baseUnits(lacks));
  tell('stake', formatMolt(has + lacks), lacks > 0n);
  return address;
}

async function budget(party: Party, options: InitOptions, tell: TellStep): Promise<Address> {
  const { chain, wallet, node, env } = party;
  const address = chain.budgetAddress(wallet.address, BUDGET_ID);
  const found = await chain.budget(address);
  const has = (found?.free ?? 0n) + (found?.locked ?? 0n);
  const lacks = options.deposit > has ? options.deposit - has : 0n;
  await fundWallet(party, lacks, tell);
  const limits = {
    delegates: [...new Set([node.address, ...(found?.delegates ?? [])])].slice(0, 4),
    capPerLease: options.capPerLease,
    capPerDay: options.capPerDay,
    expiresAtMs: env.clock.now() + options.days * DAY_MS,
  };
  const text = `at most ${formatMolt(limits.capPerLease)} a lease and ${formatMolt(limits.capPerDay)} a day, for ${options.days} days`;
  if (found === undefined) {
    await chain.createBudget(wallet, BUDGET_ID, limits, lacks > 0n ? baseUnits(lacks) : undefined);
    tell('budget', `${address}, ${text}`, true);
  } else {
    const usable = found.delegates.includes(node.address) && found.expiresAtMs > env.clock.now();
    if (!usable) await chain.setDelegates(wallet, address, limits);
    tell('budget', usable ? address : `${address}, ${text}`, !usable);
    if (lacks > 0n) await chain.deposit(wallet, address, baseUnits(lacks));
  }
  tell('money in it', formatMolt(has + lacks), lacks > 0n);
  return address;
}

function given(settings: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const known = SETTING_NAMES.filter((name) => settings[name] !== undefined);
  return Object.fromEntries(known.map((name) => [name, settings[name]]));
}

export async function initCommand(context: CommandContext, flags: Readonly<Record<string, unknown>>): Promise<void> {
  const options = initOptions(context, flags);
  const { terminal, env, home } = context;
  using list = createLiveList(terminal, env.clock);
  const tell: TellStep = (title, detail, made) => {
    if (!context.json) list.end('done', title, made ? detail : `${detail} ${terminal.style('dim', '(was there)')}`);
  };
  if (!context.json) list.begin('setting up', home.directory);
  const made = await initialise(env, home, options, tell);
  list[Symbol.dispose]();
  const suffix = flags['home'] === undefined ? '' : ` --home ${home.directory}`;
  const next = options.role === 'provider' ? `${moltCommand()} up${suffix}` : `${moltCommand()} offers${suffix}`;
  printResult(context, { ...made, home: home.directory, next }, ['', `next: ${terminal.style('bold', next)}`]);
}

function initOptions(context: CommandContext, flags: Readonly<Record<string, unknown>>): InitOptions {
  const amount = (name: string): BaseUnits => parseMolt(flags[name] as string);
  const days = Number(flags['days']);
  if (!Number.isInteger(days) || days < 1 || days > 3_650) {
    throw new MoltError('config/usage', `--days is "${String(flags['days'])}", expected a whole number from 1 to 3650`);
  }
  return {
    role: flags['role'] as 'provider' | 'buyer',
    settings: { ...flags, ...(flags['rpc'] === undefined ? {} : { rpcUrl: flags['rpc'] }) },
    environment: context.environment,
    ask: (address) => askPassphrase(context, `passphrase of wallet ${address}: `, address),
    stake: amount('stake'),
    deposit: amount('deposit'),
    capPerLease: amount('capPerLease'),
    capPerDay: amount('capPerDay'),
    days,
  };
}
