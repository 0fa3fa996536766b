/**
 * Answers to bids, as they come in on the streams that providers open: one stream of each provider, kept for all bids
 * that it answers. A quote holds a provider's capacity until it is let go here, by a word on its stream or by its end.
 */
import { ADMISSION_LIMITS, createBuckets } from '../market/index.ts';
import type { Channel } from '../market/ports.ts';
import type { Address } from '../protocol/address.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import { type BidAnswer, LetGo } from '../protocol/molt.js';
import { decodeBidAnswer } from '../protocol/wire.ts';

export interface Answer {
  /** The node that sent it; a quote in it may name another signer until that is looked at. */
  readonly from: Address;
  readonly content: BidAnswer;
  /** The provider need not hold anything for it. Resolves when that is handed to the transport; never throws. */
  letGo(): Promise<void>;
}

export type AnswerRoute = (answer: Answer) => void;

/** One answer to each bid: twice what peers take of bids, so that no honest provider comes near. */
const { perSecond, burst } = ADMISSION_LIMITS.bidsPerOrigin;
const ANSWERS = { perSecond: 2 * perSecond, burst: 4 * burst };

/**
 * Serves one provider's stream; ends when the provider ends it. `routes` is by bid; an answer to any other bid comes too
 * late and is let go. Throws `market/rate-limited` and what `decodeBidAnswer` throws, which drops the stream.
 */
export async function takeAnswers(env: Env, channel: Channel, routes: ReadonlyMap<string, AnswerRoute>): Promise<void> {
  const pace = createBuckets(ANSWERS, 1);
  for await (const frame of channel) {
    if (!pace.take('answers', env.clock.monotonic())) {
      throw new MoltError('market/rate-limited', 'expected one answer to each bid; the provider sends more');
    }
    const answer = answerOn(channel, decodeBidAnswer(frame));
    const route = routes.get(Buffer.from(answer.content.bid).toString('hex'));
    if (route === undefined) void answer.letGo();
    else route(answer);
  }
}

function answerOn(channel: Channel, content: BidAnswer): Answer {
  let isHeld = content.quote !== undefined;
  return {
    from: channel.remote,
    content,
    letGo: async () => {
      if (!isHeld) return;
      isHeld = false;
      // A stream that is over holds nothing either.
      await channel.send(LetGo.encode({ bid: content.bid })).catch(() => undefined);
    },
  };
}
