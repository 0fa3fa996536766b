/** `molt providers`: who is registered, with what stake, history and losses. */
import { formatMolt } from '../../protocol/units.ts';
import { type CommandContext, printResult } from './command.ts';
import { type Flags, openMarket } from './market.ts';
import { table } from './terminal.ts';

export async function providersCommand(context: CommandContext, flags: Flags): Promise<void> {
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const found = await chain.providers();
  const nowMs = await chain.chainTimeMs();
  const providers = found
    .sort((a, b) => (a.stake < b.stake ? 1 : -1))
    .map((provider) => ({
      provider: provider.address,
      owner: provider.owner,
      operator: provider.operator,
      stake: provider.stake,
      ownStake: provider.own.stake,
      delegated: provider.delegated.stake,
      reserved: provider.reserved,
      settledCount: provider.settledCount,
      settledAmount: provider.settledAmount,
      faults: provider.faults,
      slashed: provider.slashed,
      commissionBps: provider.commissionBps,
      jailedUntilMs: provider.jailedUntilMs > nowMs ? provider.jailedUntilMs : null,
    }));
  const columns = [
    { title: 'provider' },
    { title: 'stake', align: 'right' },
    { title: 'own', align: 'right' },
    { title: 'reserved', align: 'right' },
    { title: 'settled', align: 'right' },
    { title: 'settlements', align: 'right' },
    { title: 'faults', align: 'right' },
    { title: 'slashed', align: 'right' },
    { title: 'commission', align: 'right' },
  ] as const;
  const rows = providers.map((one) => [
    one.provider + (one.jailedUntilMs === null ? '' : ' (jailed)'),
    formatMolt(one.stake),
    formatMolt(one.ownStake),
    formatMolt(one.reserved),
    formatMolt(one.settledAmount),
    String(one.settledCount),
    String(one.faults),
    formatMolt(one.slashed),
    `${one.commissionBps / 100} %`,
  ]);
  const none = ['no providers are registered: molt init --role provider makes one'];
  printResult(context, { providers }, rows.length === 0 ? none : table(context.terminal, columns, rows));
}
