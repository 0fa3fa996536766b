/**
 * Whose offers count: those signed by the operator of a provider that the chain knows, with the stake that the market asks
 * for. Inventing an offer costs nothing, a provider account costs stake. One request of at most 100 accounts per bid,
 * however large the book is: of more offers a sample is drawn by chance.
 */
import type { Address } from '../protocol/address.ts';
import { type Env, randomInt } from '../protocol/env.ts';
import type { Message, Offer } from '../protocol/messages.ts';
import type { Chain } from './chain.ts';

export interface Vouched {
  /** How many of the offers were looked at. */
  readonly checked: number;
  /** Signers of those that count. */
  readonly genuine: ReadonlySet<Address>;
}

const CHECKED_MAX = 100;
/** Operators change at most once in the chain's unbonding time; what was no provider may become one. */
const FRESH_MS = 60_000;
const KNOWN_MAX = 10_000;

/** Throws `chain/unreachable`. */
export function createVouching(
  env: Env,
  chain: Pick<Chain, 'providersAt' | 'parameters'>,
): (offers: readonly Message<Offer>[]) => Promise<Vouched> {
  const random = env.random.split('vouching');
  const known = new Map<string, { readonly atMs: number; readonly isGenuine: boolean }>();
  const nameOf = ({ signer, content }: Message<Offer>): string => `${signer} ${content.provider}`;
  const recall = (offer: Message<Offer>): boolean | undefined => {
    const found = known.get(nameOf(offer));
    return found === undefined || env.clock.monotonic() - found.atMs > FRESH_MS ? undefined : found.isGenuine;
  };
  return async (offers) => {
    const drawn = sample(offers, (below) => randomInt(random, below));
    const unknown = drawn.filter((offer) => recall(offer) === undefined);
    const accounts = await chain.providersAt(unknown.map(({ content }) => content.provider));
    const results = new Map(drawn.map((offer) => [offer, recall(offer) === true]));
    for (const [index, offer] of unknown.entries()) {
      const account = accounts[index];
      const isGenuine = account?.operator === offer.signer && account.stake >= chain.parameters.minStake;
      results.set(offer, isGenuine);
      if (known.size >= KNOWN_MAX) known.clear();
      known.set(nameOf(offer), { atMs: env.clock.monotonic(), isGenuine });
    }
    const genuine = new Set(drawn.filter((offer) => results.get(offer) === true).map(({ signer }) => signer));
    return { checked: drawn.length, genuine };
  };
}

/** At most `CHECKED_MAX` of them, each as likely as the others. */
function sample<Item>(items: readonly Item[], draw: (below: number) => number): readonly Item[] {
  if (items.length <= CHECKED_MAX) return items;
  const rest = [...items];
  return Array.from({ length: CHECKED_MAX }, (_, index) => {
    const other = index + draw(rest.length - index);
    const [one, two] = [rest[index] as Item, rest[other] as Item];
    rest[other] = one;
    rest[index] = two;
    return two;
  });
}
