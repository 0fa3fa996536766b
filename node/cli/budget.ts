/** `molt budget`: the accounts from which leases are paid, and the node keys that may spend from them. */
import {
  type BudgetAccount,
  type BudgetLimits,
  type Chain,
  readWallet,
  readWalletAddress,
  spentToday,
} from '../../chain/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatMolt, parseMolt } from '../../protocol/units.ts';
import type { Settings } from '../config.ts';
import { confirm, openWallet } from './ask.ts';
import { type CommandContext, printResult } from './command.ts';
import { type Flags, addressWord, amountWord, openMarket } from './market.ts';
import { short, table } from './terminal.ts';

const DAY_MS = 86_400_000;
/** Ids that this program gives to the budgets of one wallet. */
const BUDGETS_MAX = 16;

type Words = readonly string[];

interface Call {
  readonly context: CommandContext;
  readonly flags: Flags;
  readonly chain: Chain;
  readonly settings: Settings;
}

const ACTIONS: Readonly<Record<string, (call: Call, words: Words) => Promise<void>>> = {
  list,
  create,
  deposit,
  withdraw,
  delegates,
  close,
};

export async function budgetCommand(context: CommandContext, flags: Flags, words: Words): Promise<void> {
  const [name = 'list', ...rest] = words;
  const action = Object.hasOwn(ACTIONS, name) ? ACTIONS[name] : undefined;
  if (action === undefined) {
    throw new MoltError('config/usage', `molt budget knows ${Object.keys(ACTIONS).join(', ')}, not "${name}"`);
  }
  const { chain, settings } = await openMarket(context, flags);
  await using _closing = chain;
  await action({ context, flags, chain, settings }, rest);
}

/** Budgets of a wallet, and the one of the settings whoever owns it. */
async function budgetsOf(chain: Chain, owner: Address, settings: Settings): Promise<BudgetAccount[]> {
  const ids = Array.from({ length: BUDGETS_MAX }, (_, id) => chain.budgetAddress(owner, BigInt(id)));
  const named = settings.budget === null ? [] : [parseAddress(settings.budget)];
  const found = await Promise.all([...new Set([...ids, ...named])].map((address) => chain.budget(address)));
  return found.filter((budget) => budget !== undefined);
}

async function list({ context, chain, settings }: Call): Promise<void> {
  const { address: owner } = await readWalletAddress(context.home.wallet);
  const budgets = await budgetsOf(chain, owner, settings);
  const nowMs = await chain.chainTimeMs();
  const columns = [
    { title: 'budget' },
    { title: 'id', align: 'right' },
    { title: 'free', align: 'right' },
    { title: 'locked', align: 'right' },
    { title: 'leases', align: 'right' },
    { title: 'a lease', align: 'right' },
    { title: 'a day', align: 'right' },
    { title: 'spent today', align: 'right' },
    { title: 'usable until' },
  ] as const;
  const rows = budgets.map((budget) => [
    budget.address,
    String(budget.id),
    formatMolt(budget.free),
    formatMolt(budget.locked),
    String(budget.openLeases),
    formatMolt(budget.capPerLease),
    formatMolt(budget.capPerDay),
    formatMolt(spentToday(budget, nowMs)),
    budget.expiresAtMs < nowMs ? 'expired' : new Date(budget.expiresAtMs).toISOString().slice(0, 10),
  ]);
  const json = budgets.map((budget) => ({ ...budget, budget: budget.address, spentToday: spentToday(budget, nowMs) }));
  const none = [`wallet ${owner} has no budget: make one with molt budget create`];
  printResult(context, { owner, budgets: json }, rows.length === 0 ? none : table(context.terminal, columns, rows));
}

async function create({ context, flags, chain, settings }: Call): Promise<void> {
  const wallet = await openWallet(context);
  const taken = new Set((await budgetsOf(chain, wallet.address, settings)).map(({ id }) => id));
  const id = Array.from({ length: BUDGETS_MAX }, (_, index) => BigInt(index)).find((index) => !taken.has(index));
  if (id === undefined) {
    throw new MoltError('config/usage', `wallet ${wallet.address} has ${BUDGETS_MAX} budgets: close one first`);
  }
  const limits = await limitsFrom(context, flags, flags['delegate'] as readonly string[] | undefined);
  const deposit = parseMolt((flags['deposit'] as string | undefined) ?? '0');
  await confirm(context, flags['yes'], `Make budget ${id} with ${formatMolt(deposit)}, spendable by ${who(limits)}?`);
  const made = await chain.createBudget(wallet, id, limits, deposit > 0n ? deposit : undefined);
  printResult(context, { budget: made.budget, id, deposit, delegates: limits.delegates, transaction: made.signature }, [
    `budget ${made.budget} with ${formatMolt(deposit)}, spendable by ${who(limits)}`,
    `to buy with it: MOLT_BUDGET=${made.budget} molt run …`,
    `transaction ${made.signature}`,
  ]);
}

const who = ({ delegates, capPerLease, capPerDay }: BudgetLimits): string =>
  `${delegates.map(short).join(', ')}: at most ${formatMolt(capPerLease)} a lease and ${formatMolt(capPerDay)} a day`;

/** Limits from flags, over those that a budget has. Without a delegate named, the node key of this home is it. */
async function limitsFrom(
  context: CommandContext,
  flags: Flags,
  delegates: readonly string[] | undefined,
  current?: BudgetAccount,
): Promise<BudgetLimits> {
  const days = flags['days'] === undefined ? undefined : Number(flags['days']);
  if (days !== undefined && (!Number.isInteger(days) || days < 1 || days > 3_650)) {
    throw new MoltError('config/usage', `--days is "${String(flags['days'])}", expected a whole number from 1 to 3650`);
  }
  const cap = (name: string, has: bigint | undefined, standard: string): ReturnType<typeof parseMolt> =>
    flags[name] === undefined && has !== undefined
      ? (has as ReturnType<typeof parseMolt>)
      : parseMolt((flags[name] as string | undefined) ?? standard);
  const named = delegates?.map((text) => addressWord(text, 'node key', 'molt budget create --delegate NODE-KEY'));
  return {
    delegates: named ?? current?.delegates ?? [(await readWallet(context.home.nodeKey)).address],
    capPerLease: cap('capPerLease', current?.capPerLease, '10'),
    capPerDay: cap('capPerDay', current?.capPerDay, '50'),
    expiresAtMs: days === undefined && current ? current.expiresAtMs : context.env.clock.now() + (days ?? 30) * DAY_MS,
  };
}

/** The budget that is named, else that of the settings. */
async function requireBudget({ chain, settings }: Call, text: string | undefined): Promise<BudgetAccount> {
  const named = text ?? settings.budget ?? undefined;
  const address = addressWord(named, 'budget', 'molt budget deposit 5 BUDGET');
  const budget = await chain.budget(address);
  if (budget) return budget;
  throw new MoltError('chain/account-missing', `there is no budget ${address}: molt budget list shows yours`, {
    address,
  });
}

async function deposit(call: Call, [text, named]: Words): Promise<void> {
  const { context, flags, chain } = call;
  const amount = amountWord(text, 'molt budget deposit 5');
  const budget = await requireBudget(call, named);
  const wallet = await openWallet(context);
  await confirm(context, flags['yes'], `Put ${formatMolt(amount)} of ${wallet.address} into budget ${budget.address}?`);
  const { signature } = await chain.deposit(wallet, budget.address, amount);
  await tellMoved(call, budget.address, { deposited: amount }, signature);
}

async function withdraw(call: Call, [text, named]: Words): Promise<void> {
  const { context, flags, chain } = call;
  const budget = await requireBudget(call, named);
  const amount = amountWord(text, 'molt budget withdraw 5', budget.free);
  const wallet = await ownerOf(context, budget);
  await confirm(context, flags['yes'], `Take ${formatMolt(amount)} out of budget ${budget.address}?`);
  const { signature } = await chain.withdrawBudget(wallet, budget.address, amount);
  await tellMoved(call, budget.address, { withdrawn: amount }, signature);
}

async function ownerOf(context: CommandContext, budget: BudgetAccount): Promise<KeyPair> {
  const { address } = await readWalletAddress(context.home.wallet);
  if (address === budget.owner) return openWallet(context);
  throw new MoltError(
    'config/usage',
    `budget ${budget.address} belongs to ${budget.owner}, and the wallet of this home is ${address}: name its home with --home`,
    { owner: budget.owner },
  );
}

async function tellMoved({ context, chain }: Call, budget: Address, moved: object, signature: string): Promise<void> {
  const after = await chain.budget(budget);
  printResult(context, { budget, ...moved, free: after?.free, locked: after?.locked, transaction: signature }, [
    `budget ${budget}: ${formatMolt(after?.free ?? 0n)} free, ${formatMolt(after?.locked ?? 0n)} locked in leases`,
    `transaction ${signature}`,
  ]);
}

/** Shows who may spend; with node keys or limits, sets them. */
async function delegates(call: Call, words: Words): Promise<void> {
  const { context, flags, chain } = call;
  const budget = await requireBudget(call, flags['budget'] as string | undefined);
  const changes = words.length > 0 || ['capPerLease', 'capPerDay', 'days'].some((name) => flags[name] !== undefined);
  let limits: BudgetLimits = budget;
  let transaction: string | undefined;
  if (changes) {
    const wallet = await ownerOf(context, budget);
    limits = await limitsFrom(context, flags, words.length > 0 ? words : undefined, budget);
    await confirm(context, flags['yes'], `From now on, budget ${budget.address} may be spent by ${who(limits)}?`);
    transaction = (await chain.setDelegates(wallet, budget.address, limits)).signature;
  }
  const { capPerLease, capPerDay, expiresAtMs } = limits;
  const value = {
    budget: budget.address,
    delegates: limits.delegates,
    capPerLease,
    capPerDay,
    expiresAtMs,
    transaction,
  };
  printResult(context, value, [
    ...limits.delegates.map((delegate) => `delegate  ${delegate}`),
    `a lease   ${formatMolt(capPerLease)}`,
    `a day     ${formatMolt(capPerDay)}`,
    `until     ${new Date(expiresAtMs).toISOString()}`,
    ...(transaction === undefined ? [] : [`transaction ${transaction}`]),
  ]);
}

async function close(call: Call, [named]: Words): Promise<void> {
  const { context, flags, chain } = call;
  const budget = await requireBudget(call, named);
  const wallet = await ownerOf(context, budget);
  if (budget.openLeases > 0) {
    const message = `budget ${budget.address} has ${budget.openLeases} open leases: molt lease list shows them; they end first`;
    throw new MoltError('chain/refused', message, { budget: budget.address });
  }
  await confirm(context, flags['yes'], `Close budget ${budget.address} and take its ${formatMolt(budget.free)} back?`);
  const { signature } = await chain.closeBudget(wallet, budget.address);
  printResult(context, { budget: budget.address, refunded: budget.free, transaction: signature }, [
    `budget ${budget.address} is closed: ${formatMolt(budget.free)} and its rent are back in wallet ${wallet.address}`,
    `transaction ${signature}`,
  ]);
}
