/**
 * `molt earnings`: what a provider was paid, by day, from the chain's own words.
 *
 * Every figure is summed in base units from the events of the program, so that gross = payout + burnt + stake fee, and
 * the payouts are what the payout account received, to the unit.
 */
import type { Chain, ChainRecord, LeaseEnding } from '../../chain/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatMolt } from '../../protocol/units.ts';
import { type CommandContext, moltCommand, printResult } from './command.ts';
import { type Flags, openMarket } from './market.ts';
import { table } from './terminal.ts';

const DAY_MS = 86_400_000;
const UNITS_MS = { h: 3_600_000, d: DAY_MS, w: 7 * DAY_MS } as const;

/** Base units. */
export interface Sums {
  /** What buyers paid. */
  readonly gross: bigint;
  /** Of it: destroyed, to the stake pool, to the payout account. */
  readonly burned: bigint;
  readonly staked: bigint;
  readonly payout: bigint;
  /** Own and delegated stake that was slashed. */
  readonly slashed: bigint;
  /** Leases that ended with a payment, and without one. */
  readonly paidLeases: number;
  readonly unpaidLeases: number;
}

export interface Earnings {
  readonly total: Sums;
  /** UTC days on which something happened, newest first. */
  readonly days: readonly (Sums & { readonly day: string })[];
}

const NOTHING: Sums = { gross: 0n, burned: 0n, staked: 0n, payout: 0n, slashed: 0n, paidLeases: 0, unpaidLeases: 0 };

/**
 * Sums what happened since `sinceMs`. `records` reach back far enough to hold every payment of a lease that was paid in
 * that time: amounts in events count from the opening of a lease, so a payment is a difference.
 */
export function earningsOf(records: readonly ChainRecord[], provider: Address, sinceMs: number): Earnings {
  const paidBefore = new Map<Address, bigint>();
  const days = new Map<string, Sums>();
  let total = NOTHING;
  for (const record of [...records].sort((a, b) => a.atMs - b.atMs)) {
    const sums = sumsOf(record, provider, paidBefore);
    if (record.atMs < sinceMs || isNothing(sums)) continue;
    const day = new Date(record.atMs).toISOString().slice(0, 10);
    days.set(day, add(days.get(day) ?? NOTHING, sums));
    total = add(total, sums);
  }
  return { total, days: [...days].reverse().map(([day, sums]) => ({ day, ...sums })) };
}

/** What one transaction brought; keeps what each lease was paid so far. */
function sumsOf(
  { vouchers, endings, slashes }: ChainRecord,
  provider: Address,
  paidBefore: Map<Address, bigint>,
): Sums {
  const pay = (lease: Address, paid: bigint, fees: Pick<LeaseEnding, 'burned' | 'staked'>): Sums => {
    const gross = paid - (paidBefore.get(lease) ?? 0n);
    paidBefore.set(lease, paid);
    const { burned, staked } = fees;
    return { ...NOTHING, gross, burned, staked, payout: gross - burned - staked };
  };
  const parts = [
    ...vouchers
      .filter((voucher) => voucher.provider === provider)
      .map((voucher) => pay(voucher.lease, voucher.redeemed, voucher)),
    ...endings
      .filter((ending) => ending.provider === provider)
      .map((ending) => ({
        ...pay(ending.lease, ending.paid, ending),
        ...(ending.paid > 0n ? { paidLeases: 1 } : { unpaidLeases: 1 }),
      })),
    ...slashes
      .filter((slash) => slash.provider === provider)
      .map((slash) => ({ ...NOTHING, slashed: slash.own + slash.delegated })),
  ];
  return parts.reduce(add, NOTHING);
}

function add(a: Sums, b: Sums): Sums {
  return {
    gross: a.gross + b.gross,
    burned: a.burned + b.burned,
    staked: a.staked + b.staked,
    payout: a.payout + b.payout,
    slashed: a.slashed + b.slashed,
    paidLeases: a.paidLeases + b.paidLeases,
    unpaidLeases: a.unpaidLeases + b.unpaidLeases,
  };
}

function isNothing({ gross, slashed, paidLeases, unpaidLeases }: Sums): boolean {
  return gross === 0n && slashed === 0n && paidLeases === 0 && unpaidLeases === 0;
}

/** "12h", "7d", "2w" → ms. Throws `config/usage`. */
export function parseSince(text: string): number {
  const match = /^([1-9]\d{0,3})([hdw])$/.exec(text);
  if (match === null) {
    throw new MoltError('config/usage', `--since is "${text}", expected hours, days or weeks such as 12h, 7d or 2w`);
  }
  return Number(match[1]) * UNITS_MS[match[2] as keyof typeof UNITS_MS];
}

export async function earningsCommand(context: CommandContext, flags: Flags): Promise<void> {
  const windowMs = parseSince((flags['since'] as string | undefined) ?? '30d');
  const { chain, settings } = await openMarket(context, flags);
  await using _closing = chain;
  if (settings.provider === null) {
    const message = `no provider account is set in ${context.home.directory}: earnings are a seller's; ${moltCommand()} init --role provider makes one`;
    throw new MoltError('config/invalid', message, { key: 'provider' });
  }
  const provider = parseAddress(settings.provider);
  const [account, nowMs] = await Promise.all([chain.provider(provider), chain.chainTimeMs()]);
  if (account === undefined) {
    throw new MoltError('chain/account-missing', `there is no provider account ${provider} on this chain`, {
      provider,
    });
  }
  const sinceMs = nowMs - windowMs;
  const earnings = earningsOf(await recordsOf(chain, provider, sinceMs), provider, sinceMs);
  const open = (await chain.leases({ operator: account.operator })).filter((lease) => lease.provider === provider);
  const value = {
    provider,
    payoutAccount: account.payout,
    sinceMs,
    ...earnings,
    open: {
      leases: open.length,
      locked: open.reduce((sum, lease) => sum + lease.amount, 0n),
      redeemed: open.reduce((sum, lease) => sum + lease.redeemed, 0n),
      claimed: open.reduce((sum, lease) => sum + (lease.proof?.claimed ?? 0n), 0n),
    },
    sinceRegistration: {
      settlements: account.settledCount,
      gross: account.settledAmount,
      burned: account.feesBurned,
      slashed: account.slashed,
    },
  };
  printResult(context, value, screen(context, value, flags));
}

/** Back to where every lease that was paid since then had opened. */
async function recordsOf(chain: Chain, provider: Address, sinceMs: number): Promise<ChainRecord[]> {
  const records: ChainRecord[] = [];
  const { maxLeaseMs } = chain.parameters;
  for await (const record of chain.history(provider, sinceMs - 2 * maxLeaseMs)) records.push(record);
  // Newest first, as they come: of one second, the older one goes first.
  return records.reverse();
}

interface Shown extends Earnings {
  readonly provider: Address;
  readonly payoutAccount: Address;
  readonly open: {
    readonly leases: number;
    readonly locked: bigint;
    readonly redeemed: bigint;
    readonly claimed: bigint;
  };
  readonly sinceRegistration: { readonly settlements: bigint; readonly gross: bigint };
}

function screen({ terminal }: CommandContext, shown: Shown, flags: Flags): string[] {
  const { days, total, open, sinceRegistration } = shown;
  const cells = (sums: Sums): string[] => [
    String(sums.paidLeases),
    amount(sums.gross),
    amount(sums.burned),
    amount(sums.staked),
    amount(sums.payout),
    amount(sums.slashed),
  ];
  const columns = [
    { title: 'day (UTC)' },
    { title: 'paid leases', align: 'right' },
    { title: 'paid', align: 'right' },
    { title: 'burnt', align: 'right' },
    { title: 'to stakers', align: 'right' },
    { title: 'to you', align: 'right' },
    { title: 'slashed', align: 'right' },
  ] as const;
  const rows = [...days.map((day) => [day.day, ...cells(day)]), ['total', ...cells(total)]];
  const none = `nothing was earned in the last ${(flags['since'] as string | undefined) ?? '30d'}`;
  const ended = total.unpaidLeases === 0 ? '' : `, ${total.unpaidLeases} ended unpaid`;
  return [
    ...(days.length === 0 ? [none] : [terminal.style('dim', 'amounts in MOLT'), ...table(terminal, columns, rows)]),
    '',
    `open now: ${open.leases} leases, ${formatMolt(open.locked)} locked, ${formatMolt(open.claimed)} claimed${ended}`,
    `since registration: ${sinceRegistration.settlements} settlements, ${formatMolt(sinceRegistration.gross)} paid`,
    `payouts go to ${shown.payoutAccount}`,
  ];
}

function amount(units: bigint): string {
  return formatMolt(units).replace(' MOLT', '');
}
