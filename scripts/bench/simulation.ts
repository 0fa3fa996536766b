/** What one bid costs in markets of 10 to 5,000 nodes, in the deterministic simulation: messages, not time. */
import { type Report, largeScenario, simulate } from '../../test/simulation/simulate.ts';
import type { Group } from './row.ts';

const NODES = [10, 100, 1_000, 5_000];
const BIDS = 20;
/** The mean over some twenty bids of what chance decides stays within a quarter. */
const CHANCE = 1.25;
/** Of one answer's life: its capacity is held, and given back or leased. */
const CHANGES_PER_ANSWER = 2;
/** One to each neighbour in the mesh of the topic, and a few at first hand: test/simulation/gossip.ts. */
const COPIES = 8 + 1;

export const simulation: Group = {
  name: 'simulation',
  about: 'messages that one bid costs among 10 … 5,000 simulated nodes, all of one shard',
  run: (tell) => {
    let smallest: Costs | undefined;
    for (const nodes of NODES) {
      const costs = costsOf(simulate('large', largeScenario(nodes, BIDS)));
      smallest ??= costs;
      const baselineIs = `among ${NODES[0]} nodes, all asked`;
      for (const [name, key, target] of [
        ['answers', 'answers', CHANCE * costs.answersMax],
        ['unique gossip messages', 'messages', CHANCE * (1 + CHANGES_PER_ANSWER * costs.answersMax)],
        ['copies of it a node sends', 'copies', COPIES],
      ] as const)
        tell({
          name: `${name} per bid, ${nodes.toLocaleString('en')} nodes`,
          value: costs[key],
          unit: 'messages',
          baseline: smallest[key],
          baselineIs,
          target,
        });
    }
    return Promise.resolve();
  },
};

interface Costs {
  /** Quotes and refusals. */
  readonly answers: number;
  /** The bid itself, and offers that change by what it holds. */
  readonly messages: number;
  readonly copies: number;
  /**
   * What the cut of market/bid.ts admits: of those that suit fifteen on average, three for each of the five quotes wanted,
   * however many there are, and those in between that do not suit and say so; everybody where there are fewer.
   */
  readonly answersMax: number;
}

function costsOf({ counts, bids }: Report): Costs {
  const per = (what: string): number => (counts[what] ?? 0) / bids;
  return {
    answers: per('answers'),
    messages: 1 + per('offers after a change'),
    copies: per('gossip copies of bids') / per('followers of bids'),
    answersMax: per('providers in reach of bids'),
  };
}
