/** `molt offers`: who sells what, at what price, with what the chain knows of them. */
import { type ProviderAccount, connectChain } from '../../chain/index.ts';
import { parseAddress } from '../../protocol/address.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { formatBytes, formatMolt } from '../../protocol/units.ts';
import { type OfferRow, connect } from '../../sdk/index.ts';
import { type CommandContext, loadSettings, printResult } from './command.ts';
import { type Terminal, formatDuration, harmless, short, table } from './terminal.ts';

const WAIT_MS = 2_000;
/** Offers come in a burst after the first one: the pull from a neighbour brings all it knows. */
const SETTLE_MS = 300;
const WATCH_EVERY_MS = 2_000;

interface Row {
  readonly offer: OfferRow;
  /** Base units per second for one core with 1 GiB. */
  readonly price: bigint;
  readonly account: ProviderAccount | undefined;
}

export async function offersCommand(context: CommandContext, flags: Readonly<Record<string, unknown>>): Promise<void> {
  const { env, signal } = context;
  const { settings } = await loadSettings(context, flags);
  const programId = settings.programId === null ? {} : { programId: parseAddress(settings.programId) };
  const { rpcUrl, bootstrap, mdns, followRegion } = settings;
  // A key for this look alone: the home's own may be in use by a running job, and nothing is bought here.
  const key = keyPairFromSeed(env.random.bytes(32));
  const budget = key.address;
  await using molt = await connect({ rpcUrl, key, budget, bootstrap, mdns, followRegion, env, ...programId });
  await using chain = await connectChain(env, { rpcUrl, ...programId });
  const read = async (waitMs: number): Promise<Row[]> => {
    const offers = await molt.offers(waitMs);
    const accounts = new Map((await chain.providers()).map((account) => [account.address, account]));
    return offers
      .filter((offer) => !offer.revoked)
      .map((offer) => ({ offer, price: priceOf(offer), account: accounts.get(offer.provider) }))
      .sort((a, b) => Number(a.price - b.price));
  };
  await molt.offers(WAIT_MS);
  await env.clock.sleep(SETTLE_MS, signal);
  let lines = print(context, await read(0), 0, followRegion);
  while (flags['watch'] === true && !signal.aborted) {
    await env.clock.sleep(WATCH_EVERY_MS, signal).catch(() => undefined);
    if (signal.aborted) return;
    lines = print(context, await read(0), lines, followRegion);
  }
}

/** Prints the table over the `above` lines of the last one and returns how many lines it has. */
function print(context: CommandContext, rows: readonly Row[], above: number, followed: string): number {
  const { terminal, env } = context;
  const of = followed === '' ? '' : ` of region ${followed}, the only one that followRegion lets you hear`;
  const lines =
    rows.length === 0
      ? [`no offers${of} heard; is a provider up, and does bootstrap name a peer of its mesh? molt config shows it`]
      : offerTable(terminal, rows, env.clock.now());
  if (above > 0 && terminal.isScreen && !context.json) terminal.raw(`\u001b[${above}A\u001b[0J`);
  const offers = rows.map(({ offer, price, account }) => ({
    ...offer,
    pricePerSecond: price,
    stake: account?.stake ?? 0n,
    settledCount: account?.settledCount ?? 0n,
  }));
  printResult(context, { offers }, lines);
  return lines.length;
}

function offerTable(terminal: Terminal, rows: readonly Row[], nowMs: number): string[] {
  const columns = [
    { title: 'node' },
    { title: 'region' },
    { title: 'MOLT/s', align: 'right' },
    { title: 'cores', align: 'right' },
    { title: 'memory', align: 'right' },
    { title: 'runtimes' },
    { title: 'speed', align: 'right' },
    { title: 'stake', align: 'right' },
    { title: 'settled', align: 'right' },
    { title: 'heard', align: 'right' },
  ] as const;
  const cells = rows.map(({ offer, price, account }) => [
    short(offer.node),
    harmless(offer.region) || '-',
    plain(price),
    String(offer.free.cpuMillis / 1_000),
    formatBytes(offer.free.memoryBytes),
    offer.runtimes.join(' '),
    String(offer.speed),
    plain(account?.stake ?? 0n),
    String(account?.settledCount ?? 0n),
    `${formatDuration(Math.max(0, nowMs - offer.issuedMs))} ago`,
  ]);
  return table(terminal, columns, cells);
}

function priceOf({ prices }: OfferRow): bigint {
  return prices.base + prices.perCpu + prices.perGib;
}

function plain(amount: bigint): string {
  return formatMolt(amount).replace(' MOLT', '');
}
