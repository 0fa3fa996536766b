/** Goal: who runs a gang reads what became of each slot, and nothing that a program prints can move the cursor. */
import { describe, expect, test } from 'vitest';

import type { CommandContext } from '../../../node/cli/command.ts';
import { createGangPrinter } from '../../../node/cli/gang-view.ts';
import { createTerminal } from '../../../node/cli/terminal.ts';
import type { GangEvent } from '../../../sdk/index.ts';
import { baseUnits } from '../../../protocol/units.ts';
import { address } from '../../market/fixtures.ts';

function printed(events: readonly GangEvent[], json = false): string[] {
  let text = '';
  const stdout = { isTTY: false, write: (piece: string) => (text += piece) };
  const terminal = createTerminal({ stdout, stderr: stdout, environment: {} });
  const print = createGangPrinter({ terminal, json } as CommandContext);
  for (const event of events) print.event(event);
  print.flush();
  return text.trimEnd().split('\n');
}

const molt = (amount: number) => baseUnits(BigInt(amount * 10 ** 9));
const log = (rank: number, text: string): GangEvent => ({
  type: 'log',
  stream: 'stdout',
  bytes: Buffer.from(text),
  atMs: 1,
  rank,
});
const place = { provider: address('provider'), node: address('node') };

describe('molt run --replicas', () => {
  test('says who agreed, who did not, and what became of the claim of one that was outvoted', () => {
    const outvoted = { code: 'proof/outvoted', reason: 'it came to something else', replacing: false } as const;
    expect(
      printed([
        { type: 'member-lost', rank: 1, node: place.node, ...outvoted, ending: false },
        { type: 'replicas-compared', agreed: [0, 2], outvoted: [1], lost: [] },
        { type: 'lease-disputed', rank: 1, lease: address('lease'), transaction: 't', claimed: molt(0.002) },
        { type: 'replicas-compared', agreed: [0, 1, 2], outvoted: [], lost: [3, 4] },
      ]),
    ).toEqual([
      'slot 1 lost: it came to something else; the others go on',
      '2 of 3 replicas agree; outvoted: 1',
      'slot 1: its claim of 0.002 MOLT is disputed',
      '3 of 5 replicas agree; lost: 3, 4',
    ]);
  });
});

describe('molt gang', () => {
  test('says word by word how the slots were filled, opened, lost and given up', () => {
    expect(
      printed([
        { type: 'seated', rank: 0, ...place, pricePerSecond: molt(0.001), amount: molt(0.06) },
        { type: 'gang-opened', slots: 3, locked: molt(0.18) },
        { type: 'gang-undone', code: 'mesh/closed', reason: 'the provider went away', retrying: true, ending: false },
        {
          type: 'gang-undone',
          code: 'chain/budget-limit',
          reason: 'the cap is reached',
          retrying: false,
          ending: true,
        },
        {
          type: 'member-lost',
          rank: 1,
          node: place.node,
          code: 'job/provider-lost',
          reason: 'it no longer answers',
          replacing: false,
          ending: true,
        },
        { type: 'lease-left', rank: 1, lease: address('lease'), paid: molt(0.002) },
        { type: 'lease-left', rank: 2, lease: address('lease'), paid: undefined },
      ]),
    ).toEqual([
      `slot 0: quote of ${place.provider} at 0.001 MOLT a second, held`,
      'all 3 slots have their lease, 0.18 MOLT locked',
      'given up: the provider went away; trying again',
      'given up: the cap is reached',
      'slot 1 lost: it no longer answers; the others are stopped',
      `slot 1: lease ${address('lease')} given up, 0.002 MOLT paid`,
      `slot 2: lease ${address('lease')} given up, its money comes back after its deadline`,
    ]);
  });

  test('puts the rank before each line of output, whole lines only, and the rest at the end', () => {
    expect(printed([log(0, 'one\ntw'), log(1, '\u001b[2Jother\n'), log(0, 'o\nthree')])).toEqual([
      '[0] one',
      expect.not.stringContaining('\u001b'),
      '[0] two',
      '[0] three',
    ]);
  });

  test('as JSON gives every event with its rank, amounts as text', () => {
    const [seated, line] = printed(
      [{ type: 'seated', rank: 2, ...place, pricePerSecond: molt(0.001), amount: molt(0.06) }, log(2, 'hello')],
      true,
    ).map((text) => JSON.parse(text) as Record<string, unknown>);
    expect(seated).toEqual({ type: 'seated', rank: 2, ...place, pricePerSecond: '1000000', amount: '60000000' });
    expect(line).toMatchObject({ type: 'log', rank: 2, text: 'hello' });
  });
});
