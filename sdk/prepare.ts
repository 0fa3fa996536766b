/** A job before its bid: the specification checked and encoded, its content here, its order for the market. */
import type { BidderOrder } from '../market/index.ts';
import { MoltError } from '../protocol/errors.ts';
import {
  type JobSpec,
  type JobSpecInput,
  encodeJobSpec,
  parseJobSpec,
  specDigest,
  storedInputs,
} from '../protocol/job-spec.ts';
import { type BaseUnits, baseUnits, parseMolt } from '../protocol/units.ts';
import { historyParameters } from './bidding.ts';
import type { Buyer } from './buyer.ts';
import type { RunOptions } from './options.ts';
import type { Spending } from './spending.ts';

export interface PreparedJob {
  readonly spec: JobSpec;
  readonly specBytes: Uint8Array;
  readonly specDigest: Uint8Array;
}

/** Throws `protocol/invalid-spec`, `job/input-missing` and `job/image-missing`. */
export async function prepareJob(buyer: Buyer, input: JobSpecInput): Promise<PreparedJob> {
  const spec = parseJobSpec(input);
  const specBytes = encodeJobSpec(spec);
  await assertContent(buyer, spec);
  return { spec, specBytes, specDigest: specDigest(specBytes) };
}

/** Base units or text such as "2.5". */
export function priceOf(price: BaseUnits | string): BaseUnits {
  return typeof price === 'string' ? parseMolt(price) : price;
}

/** What the options of a run, and the buyer's limits, ask of the market. Throws `market/spending-limit`. */
export function orderOf(buyer: Buyer, spec: JobSpec, options: RunOptions): BidderOrder {
  const stakeMin = [options.minStake ?? baseUnits(0n), buyer.spending?.limits.stakeMin ?? baseUnits(0n)].reduce(
    (a, b) => (a > b ? a : b),
  );
  const wished = priceOf(options.maxPrice);
  // Offers from elsewhere are not heard where one region is followed.
  const region = options.region ?? buyer.followRegion;
  return {
    spec,
    budget: buyer.budgetAddress,
    ...(buyer.spending === undefined ? { maxPrice: wished } : limitsOf(buyer.spending, wished)),
    history: historyParameters(buyer.chain.parameters.burnFeeBps),
    ...(options.quotes === undefined ? {} : { quotesWanted: options.quotes }),
    ...(options.quoteTimeoutMs === undefined ? {} : { quoteTimeoutMs: options.quoteTimeoutMs }),
    ...(options.attempts === undefined ? {} : { attempts: options.attempts }),
    ...(stakeMin === 0n ? {} : { stakeMin }),
    ...(options.reserve === undefined ? {} : { reserveMin: options.reserve }),
    ...(options.finishWithinSeconds === undefined
      ? {}
      : { finishByMs: buyer.chainClock.now() + options.finishWithinSeconds * 1000 }),
    ...(options.startWithinSeconds === undefined ? {} : { startWithinMs: options.startWithinSeconds * 1000 }),
    ...(options.hardwareTier === undefined ? {} : { hardwareTierMin: options.hardwareTier }),
    ...(options.nearData === undefined ? {} : { nearData: options.nearData }),
    ...(region === '' ? {} : { region }),
    ...(buyer.followRegion === '' ? {} : { followed: buyer.followRegion }),
    ...(options.regionWished === undefined ? {} : { regionWished: options.regionWished }),
    ...(options.rank === undefined ? {} : { rank: options.rank }),
    ...(options.lotShare === undefined ? {} : { lotShare: options.lotShare }),
  };
}

/** Throws `market/spending-limit` when nothing may be spent now. */
function limitsOf(spending: Spending, wished: BaseUnits): Pick<BidderOrder, 'maxPrice' | 'median' | 'historyMin'> {
  const left = baseUnits(spending.allowance());
  const { limits } = spending;
  return { maxPrice: wished < left ? wished : left, median: limits, historyMin: limits.historyMin };
}

/** Everything the job needs must be here before a bid goes out. */
async function assertContent(buyer: Buyer, spec: JobSpec): Promise<void> {
  for (const input of storedInputs(spec)) {
    if (!(await buyer.artifacts.has(input.cid))) {
      throw new MoltError(
        'job/input-missing',
        `input ${input.path} (${input.cid}) is not in the store of this client: give the file or folder itself, --input FILE, or molt.add(path) in a program`,
        { cid: input.cid },
      );
    }
  }
  if (spec.runtime === 'wasm' && !(await buyer.artifacts.has(spec.image))) {
    throw new MoltError(
      'job/image-missing',
      `the module ${spec.image} is not in the store of this client: give its file, --image FILE.wasm, or molt.add(path) in a program`,
      { cid: spec.image },
    );
  }
}
