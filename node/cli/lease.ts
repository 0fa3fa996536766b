/** `molt lease`: open leases of this home's node key; anyone may end one whose provider never proved. */
import { connectChain, readWallet } from '../../chain/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatMolt } from '../../protocol/units.ts';
import { type CommandContext, loadSettings, printResult } from './command.ts';
import { table } from './terminal.ts';

type Chain = Awaited<ReturnType<typeof connectChain>>;

export async function leaseCommand(context: CommandContext, words: readonly string[]): Promise<void> {
  const [action = 'list', address] = words;
  const { settings } = await loadSettings(context);
  const key = await readWallet(context.home.nodeKey);
  await using chain = await connectChain(context.env, {
    rpcUrl: settings.rpcUrl,
    ...(settings.programId === null ? {} : { programId: parseAddress(settings.programId) }),
  });
  if (action === 'list') return list(context, chain, key.address);
  if (action !== 'expire' || address === undefined) {
    throw new MoltError('config/usage', 'molt lease knows: list, and expire ADDRESS');
  }
  const lease = await chain.lease(parseAddress(address));
  if (lease === undefined) {
    throw new MoltError('chain/account-missing', `there is no open lease ${address}; it may have ended already`);
  }
  const { signature } = await chain.expireLease(key, lease);
  printResult(context, { lease: address, transaction: signature, refunded: lease.amount }, [
    `lease ${address} expired: ${formatMolt(lease.amount)} back in its budget, transaction ${signature}`,
  ]);
}

async function list(context: CommandContext, chain: Chain, node: Address): Promise<void> {
  const bought = await chain.leases({ delegate: node });
  const sold = await chain.leases({ operator: node });
  const leases = [
    ...bought.map((lease) => ({ side: 'bought', lease })),
    ...sold.map((lease) => ({ side: 'sold', lease })),
  ];
  const rows = leases.map(({ side, lease }) => [
    lease.address,
    side,
    lease.state,
    formatMolt(lease.amount),
    new Date(lease.finishByMs + lease.graceMs).toISOString(),
  ]);
  const columns = [
    { title: 'lease' },
    { title: 'side' },
    { title: 'state' },
    { title: 'locked', align: 'right' },
    { title: 'can expire after' },
  ] as const;
  const json = leases.map(({ side, lease }) => ({
    lease: lease.address,
    side,
    state: lease.state,
    locked: lease.amount,
    expiresAfterMs: lease.finishByMs + lease.graceMs,
  }));
  printResult(
    context,
    { leases: json },
    rows.length === 0 ? ['no open leases'] : table(context.terminal, columns, rows),
  );
}
