/** Goal: leases of a gang open together or not at all, and no operator signs more than its own lease. */
import { ComputeBudgetProgram, Message, PublicKey, SystemProgram, Transaction } from '@solana/web3.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { Chain, LeaseTerms, OpeningDraft } from '../../chain/index.ts';
import { LOCAL_PROGRAM_ID } from '../../chain/instructions.ts';
import { callOpenLease } from '../../chain/calls.ts';
import { baseUnits } from '../../protocol/units.ts';
import {
  type LocalChain,
  type Parties,
  env,
  funded,
  newParties,
  randomKey,
  startLocalChain,
  termsOf,
} from './local-chain.ts';

let local: LocalChain;
let chain: Chain;
let buyer: Parties;
let sellers: readonly Parties[];

beforeAll(async () => {
  local = await startLocalChain();
  ({ chain } = local);
  buyer = await newParties(local.devnet, chain);
  sellers = [buyer];
  for (let count = 0; count < 3; count++) sellers = [...sellers, await newSeller()];
});

afterAll(() => local[Symbol.asyncDispose]());

async function newSeller(): Promise<Parties> {
  const [owner, operator] = await Promise.all([funded(local.devnet), funded(local.devnet)]);
  await chain.registerProvider(owner, { operator: operator.address });
  await chain.stake(owner, chain.providerAddress(owner.address), baseUnits(100n * 10n ** 9n));
  return { ...buyer, owner, operator };
}

const gangOf = (count: number, changes: Partial<LeaseTerms> = {}): Promise<LeaseTerms[]> =>
  Promise.all(sellers.slice(0, count).map((seller) => termsOf(chain, seller, changes)));

const submit = (draft: OpeningDraft): Promise<unknown> =>
  chain.submit(draft, [buyer.delegate, ...sellers.map(({ operator }) => operator)]);

describe('leases that open together', () => {
  test('three of different providers are one transaction of at most 1,232 bytes, and a fourth is another', async () => {
    const terms = await gangOf(4);
    const drafts = chain.draftOpenLeases(terms, await chain.recentBlockhash());
    expect(drafts.map((draft) => draft.terms.length)).toEqual([3, 1]);
    expect(drafts[0]?.signers).toEqual([
      buyer.delegate.address,
      ...terms
        .slice(0, 3)
        .map(({ operator }) => operator)
        .sort((a, b) => drafts[0]!.signers.indexOf(a) - drafts[0]!.signers.indexOf(b)),
    ]);
    for (const { signers, message } of drafts)
      expect(1 + 64 * signers.length + message.length).toBeLessThanOrEqual(1_232);
    for (const draft of drafts) await submit(draft);
    for (const one of terms) {
      const lease = await chain.fundedLease(chain.leaseAddress(one.budget, one.termsDigest), one);
      await chain.cancelByOperator(sellers.find(({ operator }) => operator.address === one.operator)!.operator, lease);
    }
    expect(await chain.budget(buyer.budget)).toMatchObject({ locked: 0n, openLeases: 0 });
  });

  test('one that cannot open keeps the others of its transaction closed, and no money is locked', async () => {
    const terms = await gangOf(3);
    const late = terms.with(2, { ...terms[2]!, openBeforeMs: (await chain.chainTimeMs()) - 5_000 });
    const [draft] = chain.draftOpenLeases(late, await chain.recentBlockhash());
    await expect(submit(draft!)).rejects.toMatchObject({
      code: 'chain/refused',
      context: { program: 'OpenedTooLate' },
    });
    expect(await chain.leases({ budget: buyer.budget })).toEqual([]);
    expect(await chain.budget(buyer.budget)).toMatchObject({ locked: 0n, openLeases: 0 });
  });

  test('two leases of one operator are in two transactions, since it signs for one at a time', async () => {
    const [first, second] = await gangOf(2);
    const again = await termsOf(chain, buyer);
    const drafts = chain.draftOpenLeases([first!, again, second!], await chain.recentBlockhash());
    expect(drafts.map((draft) => draft.terms)).toEqual([[first, second], [again]]);
  });
});

describe('what an operator signs', () => {
  const blockhash = (): Promise<string> => chain.recentBlockhash();
  const opening = (terms: LeaseTerms): ReturnType<typeof callOpenLease> =>
    callOpenLease({ programId: LOCAL_PROGRAM_ID, mint: chain.mint }, terms);
  const messageOf = async (
    feePayer: string,
    ...calls: ConstructorParameters<typeof Transaction>[0] extends never ? never : ReturnType<typeof opening>[]
  ): Promise<Uint8Array> =>
    new Transaction({ feePayer: new PublicKey(feePayer), recentBlockhash: await blockhash() })
      .add(...calls)
      .compileMessage()
      .serialize();

  test('the opening that it derives itself, beside those of others and beside what does not name it', async () => {
    const terms = await gangOf(3);
    const [draft] = chain.draftOpenLeases(terms, await blockhash());
    for (const one of terms) expect(() => chain.assertOpens(draft!.message, one)).not.toThrow();
    const priced = await messageOf(
      buyer.delegate.address,
      ComputeBudgetProgram.setComputeUnitLimit({ units: 100_000 }),
      opening(terms[0]!),
    );
    expect(() => chain.assertOpens(priced, terms[0]!)).not.toThrow();
  });

  test('nothing else: other terms, a second mention, another fee payer, no mention, other bytes', async () => {
    const terms = await gangOf(2);
    const [mine, other] = terms as [LeaseTerms, LeaseTerms];
    const payer = buyer.delegate.address;
    const operator = new PublicKey(mine.operator);
    const theft = SystemProgram.transfer({ fromPubkey: operator, toPubkey: new PublicKey(payer), lamports: 1 });
    const dearer = { ...mine, amount: baseUnits(mine.amount + 1n) };
    const good = await messageOf(payer, opening(mine));
    const cases: readonly [string, Uint8Array][] = [
      ['not the one of the quote', await messageOf(payer, opening(dearer))],
      ['2 of its instructions name our key', await messageOf(payer, opening(mine), theft)],
      ['2 of its instructions name our key', await messageOf(payer, opening(mine), opening(mine))],
      ['not the one of the quote', await messageOf(payer, theft)],
      ['fee payer', await messageOf(randomKey().address, opening(mine))],
      ['does not ask for our signature', await messageOf(payer, opening(other))],
      ['not a legacy message', Uint8Array.of(0x80, ...good)],
      ['not written in the one way', Uint8Array.of(...good, 0)],
      ['not a legacy message', env.random.bytes(3)],
    ];
    for (const [why, message] of cases) {
      expect(() => chain.assertOpens(message, mine), why).toThrow(
        expect.objectContaining({ code: 'chain/transaction-mismatch', message: expect.stringContaining(why) }),
      );
    }
    expect(Message.from(good).accountKeys[0]?.toBase58()).toBe(payer);
  });
});
