/**
 * Offers of signers that nobody vouches for, when more of them come than are taken unseen: their stakes are looked up, at
 * most once a second and a hundred at a time, which is one request to the chain. In a market of a few hundred providers
 * nothing is ever looked up.
 *
 * Who floods may not crowd out the others: places are shared among forwarders, and whoever has most of them makes room.
 */
import type { Address } from '../protocol/address.ts';
import type { Env } from '../protocol/env.ts';
import type { Message, Offer } from '../protocol/messages.ts';

/** Signers of offers whose providers the chain knows. May throw `chain/…`. */
export type Vouch = (offers: readonly Message<Offer>[]) => Promise<{ readonly genuine: ReadonlySet<Address> }>;

interface Waiting {
  readonly offer: Message<Offer>;
  readonly from: Address;
  /** Undefined: it was not looked up. */
  readonly tell: (isGenuine: boolean | undefined) => void;
}

const LOOKED_UP_MAX = 100;
const LOOK_EVERY_MS = 1_000;

export class Doubts implements Disposable {
  readonly #env: Env;
  readonly #vouch: Vouch;
  readonly #stopped = new AbortController();
  #waiting: Waiting[] = [];
  #isLooking = false;

  constructor(env: Env, vouch: Vouch) {
    this.#env = env;
    this.#vouch = vouch;
  }

  /** Resolves to whether the signer is a provider that the chain knows; to undefined where nobody could be asked. */
  ask(offer: Message<Offer>, from: Address): Promise<boolean | undefined> {
    const { promise, resolve } = Promise.withResolvers<boolean | undefined>();
    if (this.#stopped.signal.aborted || (this.#waiting.length >= LOOKED_UP_MAX && !this.#makeRoom(from))) {
      resolve(undefined);
      return promise;
    }
    this.#waiting.push({ offer, from, tell: resolve });
    if (!this.#isLooking) void this.#look();
    return promise;
  }

  [Symbol.dispose](): void {
    this.#stopped.abort();
    for (const { tell } of this.#waiting.splice(0)) tell(undefined);
  }

  /** Takes one place of whoever has most, unless that is this forwarder or as good as. */
  #makeRoom(from: Address): boolean {
    const places = new Map<Address, number>();
    for (const one of this.#waiting) places.set(one.from, (places.get(one.from) ?? 0) + 1);
    const [largest, most] = [...places].reduce((a, b) => (b[1] > a[1] ? b : a), [from, 0] as const);
    if (most <= (places.get(from) ?? 0) + 1) return false;
    const [gone] = this.#waiting.splice(
      this.#waiting.findLastIndex((one) => one.from === largest),
      1,
    );
    gone?.tell(undefined);
    return true;
  }

  async #look(): Promise<void> {
    this.#isLooking = true;
    try {
      while (this.#waiting.length > 0) {
        // What comes within a second is asked for together.
        await this.#env.clock.sleep(LOOK_EVERY_MS, this.#stopped.signal);
        await this.#lookUp(this.#waiting.splice(0));
      }
    } catch {
      // Stopped: whoever waits is told by the disposal.
    } finally {
      this.#isLooking = false;
    }
  }

  async #lookUp(asked: readonly Waiting[]): Promise<void> {
    try {
      const { genuine } = await this.#vouch(asked.map(({ offer }) => offer));
      for (const { offer, tell } of asked) tell(genuine.has(offer.signer));
    } catch (error) {
      this.#env.logger.log('debug', 'stakes of strangers could not be looked up', { error });
      for (const { tell } of asked) tell(undefined);
    }
  }
}
