/**
 * market: offer → bid → quote → choice. All decisions, no I/O.
 *
 * Reading order: `admission` decides what may enter from the mesh, with `forwarders` for who brings it and `doubts` for strangers; `book` keeps live offers, `convictions` what shows who lied, `following` keeps it whole, `neighbours` chooses whom to be connected to, `bid` asks, `fit`,
 * `price`, `policy` and `quote` answer, `hold` bounds what is held for whom, `history` and `rank` choose. Three pure machines use them: `seller` is a provider's side of
 * every bid, quote and lease, over `capacity`; `bidder` is one job of a buyer, from the offers heard to the provider that
 * delivers; `gang` is n slots that run together or not at all, and `quorum` compares those that are replicas; `record` keeps what it told and `explain` says why, as
 * `sales` does for a seller. node/ and sdk/ are their shells; test/simulation runs thousands of both. Nothing here reads a clock, draws a
 * random number or knows a network; `ports` states what the market needs of one.
 */
export {
  type Admission,
  type AdmissionLimits,
  type Admitted,
  type Doubt,
  type Memo,
  ADMISSION_LIMITS,
  createAdmission,
} from './admission.ts';
export { type BoundedMap, createBoundedMap } from './bounded-map.ts';
export { type Buckets, type Rate, createBuckets } from './buckets.ts';
export { type Book, type BookChange, createBook } from './book.ts';
export { type BidRequest, distance, distanceCut, isAsked, makeBid, pricePerSecondWithin } from './bid.ts';
export {
  type Capacity,
  type PlainResources,
  type Reservation,
  createCapacity,
  freeResources,
  keep,
  promisedStake,
  release,
  reserve,
  restore,
  utilisation,
  withhold,
} from './capacity.ts';
export {
  type BidderDecision,
  type BidderEffect,
  type BidderEvent,
  type BidderFacts,
  type BidderNews,
  type BidderOrder,
  type BidderState,
  type VerifiedQuote,
  couldBeServed,
  createBidder,
  decideBidder,
  isTakenByNobody,
  thoseWithRoom,
} from './bidder.ts';
export { type Change, type Explanation, explainBid } from './explain.ts';
export { type Shortfall, fits } from './fit.ts';
export { type BuyerStanding } from './hold.ts';
export {
  type GangDecision,
  type GangBefore,
  type GangEffect,
  type GangEvent,
  type GangNews,
  type GangOrder,
  type GangState,
  type Seat,
  GANG_SLOTS_MAX,
  createGang,
  decideGang,
} from './gang.ts';
export { type Ballot, type OpenClaim, decideBallot, quorumOf, replacementRefusal, voteByMs } from './quorum.ts';
export { CLOSENESS, type Gpu, groupGpus, placeGpus } from './placement.ts';
export { type HistoryParameters, type SettledHistory, HISTORY_PARAMETERS, historyScore } from './history.ts';
export {
  type OfferFeed,
  type OfferFeedOptions,
  type Refusal,
  OFFER_REPEAT_MS,
  nextSequence,
  openOfferFeed,
} from './offers.ts';
export { type Following, type Neighbours, followMarket } from './following.ts';
export { type Acquaintances, KeptNeighbours, type NeighbourOptions, NEIGHBOURS_HEALTHY } from './neighbours.ts';
export type { Moment } from './moment.ts';
export { type Obstacle, type ObstacleName, type OfferJudgement, type Wanted } from './obstacle.ts';
export {
  type BidRecord,
  type SeveralPlaces,
  type RecordedAnswer,
  type RecordedRanking,
  endRecord,
  recordNews,
} from './record.ts';
export type { Channel, Network, OpenOptions, ProtocolLimits, PubSub } from './ports.ts';
export {
  AUTONOMY,
  type Autonomy,
  type AutonomyName,
  type Commitment,
  DAY_MS,
  allowance,
  autonomyOf,
  medianCeiling,
  shareOfCeiling,
  spendingRefusal,
} from './autonomy.ts';
export { type Blackouts, parseBlackouts } from './blackout.ts';
export { type ImageRules, type SellingPolicy, imageRefusal, imageRules, timeRefusal } from './policy.ts';
export { type PricePoint, type PricePolicy, askPerSecond, currentPrices, parsePriceCurve } from './price.ts';
export { refusal } from './refusal.ts';
export {
  type Answer,
  type AnswerRequest,
  type ProviderFacts,
  type ProviderOnChain,
  acceptableQuote,
  answerBid,
  longestWindowMs,
} from './quote.ts';
export {
  type Candidate,
  type Criterion,
  type CriterionName,
  type OwnRanking,
  type ProviderRecord,
  type RankedQuote,
  type RankingContext,
  type Reason,
  type Strategy,
  rank,
  rankedByBuyer,
  weightedStrategy,
} from './rank.ts';
export {
  type Sales,
  type SalesEvent,
  type SalesExplanation,
  type SalesSituation,
  createSales,
  explainSales,
  recordSale,
  resumeSales,
} from './sales.ts';
export {
  type OpenQuote,
  type SellerDecision,
  type SellerEffect,
  type SellerEvent,
  type SellerHeader,
  type SellerState,
  type SellerTerms,
  createSeller,
  decideSeller,
  quoteFor,
} from './seller.ts';
