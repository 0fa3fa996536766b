/** Goal: who runs a gang reads what became of each slot, and nothing that a program prints can move the cursor. */
import { describe, expect, test } from 'vitest';

import type { CommandContext } from '../../../node/cli/command.ts';
import { createGangPrinter } from '../../../node/cli/gang-view.ts';
import { createTerminal, short } from '../../../node/cli/terminal.ts';
import type { GangEvent } from '../../../sdk/index.ts';
import { baseUnits } from '../../../protocol/units.ts';
import { address } from '../../market/fixtures.ts';

function printed(events: readonly GangEvent[], json = false, noun: 'slot' | 'replica' = 'slot'): string[] {
  let text = '';
  const stdout = { isTTY: false, write: (piece: string) => (text += piece) };
  const terminal = createTerminal({ stdout, stderr: stdout, environment: {} });
  const print = createGangPrinter({ terminal, json } as CommandContext, noun);
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

const running = { type: 'phase', phase: 'running', detail: '', bytesDone: 0, bytesTotal: 0, attempt: 1 } as const;
const lease = address('lease');
const at = (rank: number, event: GangEvent): GangEvent => ({ ...event, rank });

describe('molt run --replicas', () => {
  const one = 'ab'.repeat(32);
  const other = 'cd'.repeat(32);

  test('says word by word who came to what, who was lost and replaced, and who agreed', () => {
    const outvoted = { code: 'proof/outvoted', reason: 'it came to something else', replacing: false } as const;
    const gone = { code: 'job/provider-lost', reason: 'it no longer answers', replacing: true } as const;
    const events: readonly GangEvent[] = [
      { type: 'mesh-joined', peers: 4 },
      { type: 'run-resumed', startedAtMs: 1, ranks: [0, 2] },
      { type: 'bid', bid: 'ef'.repeat(32), pricePerSecondMax: molt(0.01), attempt: 1, asked: [] },
      { type: 'declined', node: place.node, code: 'market/closed', reason: 'it is night' },
      at(1, { type: 'lease-opened', lease, transaction: 't', locked: molt(0.06), afterMs: 1 }),
      { type: 'gang-opened', slots: 3, locked: molt(0.18) },
      at(1, { ...running, phase: 'queued' }),
      at(1, running),
      at(1, running),
      at(1, { type: 'provider-silent', node: place.node, reason: 'the stream is closed' }),
      { type: 'member-lost', rank: 1, node: place.node, ...gone, ending: false },
      at(1, { type: 'lease-left', lease, paid: molt(0.002) }),
      { type: 'gang-undone', code: 'market/no-quotes', reason: 'nobody answers', retrying: false, ending: false },
      at(0, { type: 'proof-verified', proofDigest: one, billedMs: 2_000, cost: molt(0.02) }),
      at(0, { type: 'replica-proven', resultDigest: one, votes: 1, quorum: 2 }),
      at(2, { type: 'replica-proven', resultDigest: one, votes: 2, quorum: 2 }),
      at(2, { type: 'outputs', count: 1, sizeBytes: 7 }),
      at(0, { type: 'outputs', count: 0, sizeBytes: 0 }),
      at(2, { type: 'settled', lease, transaction: 't', paid: molt(0.02), refunded: molt(0.04) }),
      { type: 'vote-closed', missing: [1], code: 'market/finish-too-late', reason: 'time is short' },
      { type: 'replicas-compared', agreed: [0, 2], outvoted: [], lost: [1] },
      { type: 'member-lost', rank: 1, node: place.node, ...outvoted, ending: false },
      at(1, { type: 'lease-disputed', lease, transaction: 't', claimed: molt(0.002) }),
      { type: 'lease-expired', lease, transaction: 't', refunded: molt(0.06) },
    ];
    expect(printed(events, false, 'replica')).toEqual([
      'mesh joined: 4 peers',
      'a run of this job was cut off and goes on: replica 0, replica 2',
      'bid efefef…efef: at most 0.01 MOLT a second each',
      `  ${short(place.node)} declines: it is night (market/closed)`,
      `replica 1: lease ${lease} open, 0.06 MOLT locked`,
      'all 3 replicas have their lease, 0.18 MOLT locked',
      'replica 1: running',
      'replica 1: the provider is silent (the stream is closed); trying to reach it',
      'replica 1 lost: it no longer answers; another provider is sought',
      `replica 1: lease ${short(lease)} given up, 0.002 MOLT paid`,
      'given up: nobody answers; the others go on',
      'replica 0: proof verified, 2.00 s billed, claims 0.02 MOLT',
      'replica 0: came to ababab…abab, as no other so far; 2 must agree',
      'replica 2: came to ababab…abab, as 1 other; 2 must agree',
      'replica 2: 1 output fetched, 7 B',
      'replica 2: settled, 0.02 MOLT paid, 0.04 MOLT came back',
      'the vote is held with what is there: time is short; missing: 1',
      '2 of 3 replicas agree; lost: 1',
      'replica 1 lost: it came to something else; the others go on',
      'replica 1: its claim of 0.002 MOLT is disputed',
      `lease ${short(lease)} expired: 0.06 MOLT back in the budget`,
    ]);
  });

  test('says which results there are where none is that of more than half', () => {
    const results = [
      { resultDigest: one, ranks: [0, 2] },
      { resultDigest: other, ranks: [1] },
    ];
    expect(
      printed([
        { type: 'replicas-differ', results, lost: [3, 4], disputing: false },
        { type: 'replicas-differ', results: results.slice(1), lost: [], disputing: true },
      ]),
    ).toEqual([
      'no result is that of more than half; lost: 3, 4; nothing is settled, what they claim is paid unless you dispute it',
      '  ababab…abab: replicas 0, 2',
      '  cdcdcd…cdcd: replicas 1',
      'no result is that of more than half; nothing is settled, every claim is disputed',
      '  cdcdcd…cdcd: replicas 1',
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
        { type: 'lease-left', rank: 1, lease, paid: molt(0.002) },
        { type: 'lease-left', rank: 2, lease, paid: undefined },
      ]),
    ).toEqual([
      `slot 0: quote of ${place.provider} at 0.001 MOLT a second, held`,
      'all 3 slots have their lease, 0.18 MOLT locked',
      'given up: the provider went away; trying again',
      'given up: the cap is reached',
      'slot 1 lost: it no longer answers; the others are stopped',
      `slot 1: lease ${short(lease)} given up, 0.002 MOLT paid`,
      `slot 2: lease ${short(lease)} given up, its money comes back after its deadline`,
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
