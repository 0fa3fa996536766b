/** Who may change the market: parameters with a delay, the authority itself, the list of verifiers, the first Config. */
import { beforeEach, describe, expect, test } from 'vitest';

import { parametersFields, readConfig } from '../../../chain/accounts.ts';
import { configAddress, programDataAddress } from '../../../chain/addresses.ts';
import * as calls from '../../../chain/calls.ts';
import type { ConfigAccount, Parameters } from '../../../chain/chain.ts';
import { buildInstruction } from '../../../chain/instructions.ts';
import { LIMITS } from '../../../chain/layout.ts';
import { decodeAddress, type Address } from '../../../protocol/address.ts';
import type { KeyPair } from '../../../protocol/ed25519.ts';
import { PARAMETERS, START_SECONDS, TestMarket, must, newKey, registerPair, tamper, type Outcome } from '../market.ts';
import { expectRefusal } from '../refusal.ts';

const LOADER = 'BPFLoaderUpgradeab1e11111111111111111111111' as Address;

type ParameterFields = ReturnType<typeof parametersFields>;

export function authorityChapter(): void {
  describe('authority', () => {
    let market: TestMarket;
    beforeEach(() => {
      market = new TestMarket();
    });

    const ok = (outcome: Outcome): void => expect(outcome.refused ?? outcome.failed).toBeUndefined();
    const config = (): ConfigAccount => readConfig(must(market.data(configAddress(market.programId).address)));
    const queue = (who: KeyPair, parameters: Parameters): Outcome =>
      market.send([calls.callQueueParameters(market.market, who.address, parameters)], who);
    const apply = (): Outcome => market.send([calls.callApplyParameters(market.market)], newFunded());
    const newFunded = (): KeyPair => {
      const key = newKey();
      market.fund(key);
      return key;
    };
    const handOver = (from: KeyPair, to?: KeyPair): Outcome =>
      market.send(
        [calls.callSetAuthority(market.market, from.address, to?.address)],
        from,
        ...(to === undefined ? [] : [to]),
      );

    test('parameters change two days after the authority announced them, by whoever asks', () => {
      const changed = { ...PARAMETERS, burnFeeBps: 300 };
      expectRefusal(apply(), 'NothingQueued');
      expectRefusal(queue(newFunded(), changed), 'NotAuthority');
      ok(queue(market.authority, changed));
      expect(config()).toMatchObject({
        parameters: PARAMETERS,
        queued: { parameters: changed, applicableAtMs: (START_SECONDS + LIMITS.parameterDelaySeconds) * 1000 },
      });
      market.setTime(START_SECONDS + LIMITS.parameterDelaySeconds - 1);
      expectRefusal(apply(), 'DelayNotPassed');
      market.setTime(START_SECONDS + LIMITS.parameterDelaySeconds);
      ok(apply());
      expect(config().parameters).toEqual(changed);
      expect(config().queued).toBeUndefined();
      expectRefusal(apply(), 'NothingQueued');
    });

    test('announcing again starts the delay anew', () => {
      ok(queue(market.authority, { ...PARAMETERS, burnFeeBps: 300 }));
      market.setTime(START_SECONDS + LIMITS.parameterDelaySeconds);
      ok(queue(market.authority, { ...PARAMETERS, burnFeeBps: 301 }));
      expectRefusal(apply(), 'DelayNotPassed');
    });

    test.each<Partial<ParameterFields>>([
      { stakeFeeBps: 1_001 },
      { burnFeeBps: 1_001 },
      { reserveBps: 60_001 },
      { noShowSlashBps: 10_001 },
      { disputeBondBps: 10_001 },
      { equivocationSlashBps: 10_001 },
      { minGraceSeconds: 0 },
      { minGraceSeconds: 30 * 86_400 + 1 },
      { minWindowSeconds: 0 },
      { minWindowSeconds: 30 * 86_400 + 1 },
      { maxLeaseSeconds: 0 },
      { maxLeaseSeconds: 30 * 86_400 + 1 },
      { unbondingSeconds: 0 },
      { unbondingSeconds: 30 * 86_400 + 1 },
      { voteSeconds: 0 },
      { voteSeconds: 7 * 86_400 + 1 },
      { revealSeconds: 0 },
      { revealSeconds: 7 * 86_400 + 1 },
    ])('bounds inside the program refuse %o', (bad) => {
      const instruction = buildInstruction({
        programId: market.programId,
        name: 'queueParameters',
        accounts: { authority: market.authority.address, config: configAddress(market.programId).address },
        fields: { parameters: { ...parametersFields(PARAMETERS), ...bad } },
      });
      expectRefusal(market.send([instruction], market.authority), 'ParameterOutOfRange');
    });

    test('the authority is handed over to a key that signs, or given up for good', () => {
      const [next, thief] = [newFunded(), newFunded()];
      expectRefusal(handOver(thief, thief), 'NotAuthority');
      const unsigned = tamper(
        calls.callSetAuthority(market.market, market.authority.address, next.address),
        'setAuthority',
        'newAuthority',
        { isSigner: false },
      );
      expectRefusal(market.send([unsigned], market.authority), 'MissingSignature');
      ok(handOver(market.authority, next));
      expectRefusal(queue(market.authority, PARAMETERS), 'NotAuthority');
      ok(queue(next, { ...PARAMETERS, burnFeeBps: 300 }));
      ok(handOver(next));
      expect(config().authority).toBeUndefined();
      expectRefusal(queue(next, PARAMETERS), 'NotAuthority');
      expectRefusal(handOver(next, next), 'NotAuthority');
      // What everybody had seen coming still comes.
      market.setTime(START_SECONDS + LIMITS.parameterDelaySeconds);
      ok(apply());
    });

    test('a verifier joins with authority and owner, and leaves with either', () => {
      const pair = registerPair(market);
      const people = { authority: market.authority.address, owner: pair.owner.address };
      const set = (member: boolean, ...signers: readonly KeyPair[]): Outcome =>
        market.send(
          [
            calls.callSetVerifier(
              market.market,
              people,
              member,
              signers.map(({ address }) => address),
            ),
          ],
          pair.buyer,
          ...signers,
        );
      expectRefusal(set(true, pair.owner), 'NotAuthority');
      expectRefusal(set(true, market.authority), 'NotOwner');
      expectRefusal(set(false, market.authority), 'NotVerifier');
      ok(set(true, market.authority, pair.owner));
      expectRefusal(set(true, market.authority, pair.owner), 'VerifierListFull');
      const second = market.newVerifier();
      expect(config().verifiers).toHaveLength(2);
      expectRefusal(set(false), 'NotOwner');
      ok(set(false, pair.owner));
      expect(config().verifiers).toEqual([market.provider(second.owner.address).address]);
      ok(set(true, market.authority, pair.owner));
      ok(set(false, market.authority));
    });

    test('the list of verifiers holds thirty-two', () => {
      for (let count = 0; count < LIMITS.verifiersMax; count++) market.newVerifier();
      expect(new Set(config().verifiers).size).toBe(LIMITS.verifiersMax);
      expect(() => market.newVerifier()).toThrow('VerifierListFull');
    });

    test('while the program can be upgraded, only who may upgrade it makes the Config', () => {
      const [deployer, stranger] = [newFunded(), newFunded()];
      const address = programDataAddress(market.programId);
      const data = Buffer.from(must(market.data(address)));
      data.writeUInt8(1, 12);
      data.set(decodeAddress(deployer.address), 13);
      market.setAccount(address, { owner: LOADER, data, lamports: market.lamports(address) });
      const initialize = (who: KeyPair) => calls.callInitialize(market.market, who.address, PARAMETERS, market.network);
      expectRefusal(market.send([initialize(stranger)], stranger), 'NotUpgradeAuthority');
      expectRefusal(market.send([initialize(deployer)], deployer), 'AlreadyExists');
      const elsewhere = tamper(initialize(stranger), 'initialize', 'programData', { address: newKey().address });
      expectRefusal(market.send([elsewhere], stranger), 'WrongAddress');
    });
  });
}
