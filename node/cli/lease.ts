/**
 * `molt lease`: open leases of this home's node key, and the endings that one side or anybody can bring about alone.
 *
 * The node key signs; it is in the home of whoever buys or sells, and a stranger's can end what is overdue.
 */
import { type Chain, type LeaseAccount, readWallet } from '../../chain/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatMolt } from '../../protocol/units.ts';
import { type JobEvent, connect, hasEvidence } from '../../sdk/index.ts';
import { lockHome } from '../home.ts';
import { confirm } from './ask.ts';
import { type CommandContext, loadSettings, printResult } from './command.ts';
import { createLineWriter } from './job-line.ts';
import { DISPUTE_ENDINGS, sayProgress } from './job-view.ts';
import { type Flags, addressWord, openMarket } from './market.ts';
import { formatDuration, table } from './terminal.ts';

interface Call {
  readonly context: CommandContext;
  readonly flags: Flags;
  readonly chain: Chain;
  readonly key: KeyPair;
}

const ACTIONS: Readonly<Record<string, (call: Call, lease: LeaseAccount) => Promise<void>>> = {
  settle,
  expire,
  dispute,
};

export async function leaseCommand(context: CommandContext, flags: Flags, words: readonly string[]): Promise<void> {
  const [action = 'list', text] = words;
  const ending = Object.hasOwn(ACTIONS, action) ? ACTIONS[action] : undefined;
  if (action !== 'list' && action !== 'show' && ending === undefined) {
    throw new MoltError('config/usage', `molt lease knows list, show, settle, expire and dispute, not "${action}"`);
  }
  const address = action === 'list' ? undefined : addressWord(text, 'lease', `molt lease ${action} ADDRESS`);
  const key = await readWallet(context.home.nodeKey);
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const call = { context, flags, chain, key };
  // Awaited here: the client is closed when this function ends.
  if (address === undefined) return await list(call);
  const lease = await chain.lease(address);
  if (ending === undefined) return await show(call, address, lease);
  if (lease !== undefined) return await ending(call, lease);
  const message = `there is no open lease ${address}; it may have ended already: molt lease show ${address} tells how`;
  throw new MoltError('chain/account-missing', message, { lease: address });
}

async function list({ context, chain, key }: Call): Promise<void> {
  const [bought, sold] = await Promise.all([
    chain.leases({ delegate: key.address }),
    chain.leases({ operator: key.address }),
  ]);
  const leases = [
    ...bought.map((lease) => ({ side: 'bought', lease })),
    ...sold.map((lease) => ({ side: 'sold', lease })),
  ];
  const nowMs = await chain.chainTimeMs();
  const rows = leases.map(({ side, lease }) => [
    lease.address,
    side,
    lease.state,
    formatMolt(lease.amount),
    formatMolt(lease.redeemed),
    next(lease, nowMs),
  ]);
  const columns = [
    { title: 'lease' },
    { title: 'side' },
    { title: 'state' },
    { title: 'locked', align: 'right' },
    { title: 'redeemed', align: 'right' },
    { title: 'next' },
  ] as const;
  const json = leases.map(({ side, lease }) => ({
    lease: lease.address,
    side,
    state: lease.state,
    locked: lease.amount,
    redeemed: lease.redeemed,
    expiresAfterMs: expiresAfter(lease),
    settlesAfterMs: settlesAfter(lease) ?? null,
  }));
  const none = ['no open leases'];
  printResult(context, { leases: json }, rows.length === 0 ? none : table(context.terminal, columns, rows));
}

const expiresAfter = (lease: LeaseAccount): number => lease.finishByMs + lease.graceMs;
const settlesAfter = ({ proof, windowMs }: LeaseAccount): number | undefined => proof && proof.provenAtMs + windowMs;

/** Who can do what, and when. */
function next(lease: LeaseAccount, nowMs: number): string {
  const settles = settlesAfter(lease);
  if (lease.state === 'disputed') return 'verifiers judge it';
  const [what, atMs] = settles === undefined ? ['expire', expiresAfter(lease)] : ['settle', settles];
  return nowMs > atMs ? `anyone may ${what} it` : `anyone may ${what} it in ${formatDuration(atMs - nowMs)}`;
}

async function show({ context, chain }: Call, address: Address, lease: LeaseAccount | undefined): Promise<void> {
  if (lease === undefined) return showEnding(context, chain, address);
  const { budget, provider, operator, delegate, amount, redeemed, reserve, state, proof } = lease;
  const time = (ms: number): string => new Date(ms).toISOString();
  const opened = state === 'disputed' ? await chain.dispute(address) : undefined;
  const nowMs = await chain.chainTimeMs();
  printResult(context, { ...lease, lease: address, dispute: opened }, [
    `lease     ${address}, ${state}`,
    `buyer     ${delegate}, budget ${budget}`,
    `provider  ${provider}, node ${operator}`,
    `money     ${formatMolt(amount)} locked, ${formatMolt(redeemed)} redeemed, ${formatMolt(lease.pricePerSecond)} a second, ${formatMolt(reserve)} of stake reserved`,
    `opened    ${time(lease.openedAtMs)}, to finish by ${time(lease.finishByMs)}, grace ${formatDuration(lease.graceMs)}`,
    ...(proof
      ? [
          `proven    ${time(proof.provenAtMs)}, claims ${formatMolt(proof.claimed)}, window ${formatDuration(lease.windowMs)}`,
        ]
      : []),
    ...(opened ? [`dispute   bond ${formatMolt(opened.bond)}, ${opened.seats.length} verifiers drawn`] : []),
    `next      ${next(lease, nowMs)}`,
  ]);
}

async function showEnding(context: CommandContext, chain: Chain, address: Address): Promise<void> {
  const ending = await chain.leaseEnding(address);
  if (ending === undefined) {
    const message = `there never was a lease ${address} on this chain, or it is forgotten: check the address`;
    throw new MoltError('chain/account-missing', message, { lease: address });
  }
  const { paid, refunded, burned, staked, slashed, signature } = ending;
  printResult(context, { ...ending, state: 'ended' }, [
    `lease     ${address}, ended: ${ending.ending}`,
    `money     ${formatMolt(paid)} paid, ${formatMolt(refunded)} refunded`,
    `of it     ${formatMolt(burned)} burnt, ${formatMolt(staked)} to the stakers, ${formatMolt(slashed)} slashed`,
    `transaction ${signature}`,
  ]);
}

/** The buyer accepts the claim at once; anybody else can settle it when the challenge window has passed. */
async function settle({ context, flags, chain, key }: Call, lease: LeaseAccount): Promise<void> {
  const { address, proof } = lease;
  const settles = settlesAfter(lease);
  if (proof === undefined || settles === undefined || lease.state !== 'proven') {
    const message = `lease ${address} is ${lease.state}: only a proven one can be settled; molt lease show ${address} says what comes next`;
    throw new MoltError('chain/refused', message, { lease: address });
  }
  const isBuyer = key.address === lease.delegate;
  const nowMs = await chain.chainTimeMs();
  if (!isBuyer && nowMs <= settles) {
    const message = `the buyer may object to lease ${address} for ${formatDuration(settles - nowMs)} more: settle it then`;
    throw new MoltError('chain/too-early', message, { lease: address });
  }
  await confirm(context, flags['yes'], `Pay the provider ${formatMolt(proof.claimed)} for lease ${address}?`);
  const { signature } = isBuyer
    ? await chain.settleAlone(key, lease, proof.claimed, proof.resultDigest)
    : await chain.settleAfterWindow(key, lease);
  printResult(context, { lease: address, paid: proof.claimed, transaction: signature }, [
    `lease ${address} settled: ${formatMolt(proof.claimed)} paid, transaction ${signature}`,
  ]);
}

async function expire({ context, chain, key }: Call, lease: LeaseAccount): Promise<void> {
  const { signature } = await chain.expireLease(key, lease);
  printResult(context, { lease: lease.address, transaction: signature, refunded: lease.amount - lease.redeemed }, [
    `lease ${lease.address} expired: ${formatMolt(lease.amount - lease.redeemed)} back in its budget, transaction ${signature}`,
  ]);
}

async function dispute({ context, flags, chain, key }: Call, lease: LeaseAccount): Promise<void> {
  const { address } = lease;
  if (key.address !== lease.delegate) {
    const message = `only the buyer's node key ${lease.delegate} may dispute lease ${address}, and this home has ${key.address}`;
    throw new MoltError('chain/refused', message, { lease: address });
  }
  const { disputeBondBps } = lease;
  const bond = (lease.amount * BigInt(disputeBondBps) + 9_999n) / 10_000n;
  await confirm(
    context,
    flags['yes'] === true || lease.state === 'disputed',
    `Dispute lease ${address} with a bond of ${formatMolt(bond)} from its budget? Three verifiers see its specification, module and inputs, and whoever is wrong pays.`,
  );
  // Opened here, so that a refusal is told before anything is joined; a dispute that is open already is gone on with.
  const opened = lease.state === 'disputed' ? undefined : await chain.openDispute(key, lease);
  const hasMore = await hasEvidence(context.home.buyer, address);
  const next = hasMore
    ? 'the verifiers are shown what this home kept of the job'
    : 'this home kept nothing of the job that could be shown: verifiers judge by what its provider shows';
  printResult(context, { lease: address, bond, transaction: opened?.signature ?? null }, [
    opened === undefined
      ? `lease ${address} is disputed already`
      : `lease ${address} is disputed with a bond of ${formatMolt(bond)}, transaction ${opened.signature}`,
    next,
  ]);
  if (hasMore) await followDispute({ context, flags, chain, key }, address);
}

/** Until the dispute is over. Who stops it with Ctrl-C goes on with the same command; what verifiers have heard stays. */
async function followDispute({ context, flags, key }: Call, address: Address): Promise<void> {
  const { env, home, signal, terminal } = context;
  const { settings } = await loadSettings(context, { rpcUrl: flags['rpc'] });
  if (settings.budget === null) return;
  await using _lock = await lockHome(home);
  await using molt = await connect({
    rpcUrl: settings.rpcUrl,
    key,
    budget: parseAddress(settings.budget),
    bootstrap: settings.bootstrap,
    mdns: settings.mdns,
    ...(settings.programId === null ? {} : { programId: parseAddress(settings.programId) }),
    env,
    journal: home.buyer,
  });
  for (const path of (flags['content'] as readonly string[] | undefined) ?? []) await molt.add(path);
  const write = createLineWriter();
  const onEvent = (event: JobEvent): void => {
    if (context.json) terminal.out(JSON.stringify(write(event)));
    else if (event.type === 'dispute-progress') terminal.out(sayProgress(event));
  };
  const ending = await molt.dispute(address, { signal, onEvent });
  if (ending === undefined) return;
  const { paid, refunded, slashed, signature } = ending;
  printResult(context, { type: 'ended', ...ending }, [
    `dispute over, ${DISPUTE_ENDINGS[ending.ending] ?? ending.ending}: ${formatMolt(paid)} paid, ${formatMolt(refunded)} refunded, ${formatMolt(slashed)} of the reserve slashed`,
    `transaction ${signature}`,
  ]);
}
