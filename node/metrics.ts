/**
 * What a node counts and measures, in Prometheus' text format.
 *
 * Counters are fed by the node's events and count from its start; what the chain knows (settlements, stake) is read from
 * the account and survives restarts. Labels take values from closed lists only (phases, verdicts, the error catalogue),
 * so that no stranger can make us keep more series. Money is in base units: a sample is a double, exact up to 2^53 of
 * them, 9,007,199 MOLT; `molt earnings` is exact beyond that.
 */
import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client';

import type { ProviderAccount } from '../chain/index.ts';
import type { Admission } from '../market/index.ts';
import type { Resources } from '../protocol/messages.ts';
import type { NodeEvent } from './events.ts';
import { type Job, PHASES } from './provider/job.ts';
import { MOLT_VERSION } from './version.ts';

/** What is measured when somebody looks. */
export interface Measured {
  jobs(): readonly Job[];
  account(): ProviderAccount;
  total(): Resources;
  free(): Resources;
  /** 0 … 1. */
  utilisation(): number;
  peers(): number;
  /** In the book. */
  offers(): number;
  artifactBytes(): number;
  draining(): boolean;
  /** Wall clock minus the chain's. */
  chainLagMs(): number;
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #count: (event: NodeEvent) => void;
  readonly #gossip: Counter<'kind' | 'verdict'>;

  constructor() {
    collectDefaultMetrics({ register: this.#registry });
    this.#count = countEvents(this.#registry);
    this.#gossip = counter(this.#registry, 'gossip_messages', 'Offers and bids heard.', ['kind', 'verdict']);
    gauge(this.#registry, 'build_info', 'Always 1.', ['version']).set({ version: MOLT_VERSION }, 1);
  }

  /** Counts one thing that happened. */
  heard(event: NodeEvent): void {
    this.#count(event);
  }

  /** The same admission, with its verdicts counted. */
  counting(admission: Admission): Admission {
    const count = (kind: string, verdict: string): void => this.#gossip.inc({ kind, verdict });
    return {
      ...admission,
      offer: (...given) => {
        const admitted = admission.offer(...given);
        count('offer', admitted.verdict.verdict);
        return admitted;
      },
      bid: (...given) => {
        const admitted = admission.bid(...given);
        count('bid', admitted.verdict.verdict);
        return admitted;
      },
    };
  }

  /** From now on these are part of every scrape. Called once. */
  measure(measured: Measured): void {
    measureMarket(this.#registry, measured);
    measureChain(this.#registry, measured);
  }

  async text(): Promise<{ readonly contentType: string; readonly text: string }> {
    return { contentType: this.#registry.contentType, text: await this.#registry.metrics() };
  }
}

function counter<Label extends string>(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly Label[] = [],
): Counter<Label> {
  return new Counter({ name: `molt_${name}_total`, help, labelNames: [...labelNames], registers: [registry] });
}

function gauge<Label extends string>(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly Label[] = [],
): Gauge<Label> {
  return new Gauge({ name: `molt_${name}`, help, labelNames: [...labelNames], registers: [registry] });
}

function countEvents(registry: Registry): (event: NodeEvent) => void {
  const make = <Label extends string>(name: string, help: string, ...labels: Label[]): Counter<Label> =>
    counter(registry, name, help, labels);
  const offers = make('offers_published', 'Offers of our own, withdrawals included.');
  const quotes = make('quotes', 'Quotes sent.');
  const declined = make('bids_declined', 'Bids answered with a refusal, or not at all.', 'code');
  const released = make('quotes_released', 'Quotes that did not become a lease.', 'reason');
  const accepted = make('leases_accepted', 'Leases co-signed.');
  const refused = make('requests_refused', 'Requests of buyers refused.', 'code');
  const phases = make('job_phases', 'Phases entered by jobs.', 'phase');
  const failed = make('jobs_failed', 'Jobs whose money went back.', 'code');
  const claimed = make('claimed_base_units', 'Sum of the claims of proofs, base units.');
  const closed = make('leases_closed', 'Leases that ended on chain.');
  const judged = make('disputes_judged', 'Disputes that this node judged as a drawn verifier.', 'side', 'ground');
  const trouble = make('trouble', 'Things of our own that went wrong.', 'code');
  const runtimes = gauge(registry, 'runtime_available', 'Whether a runtime passed its self-test.', ['runtime']);
  return (event) => {
    if (event.type === 'offer-published') offers.inc();
    else if (event.type === 'quoted') quotes.inc();
    else if (event.type === 'bid-declined') declined.inc({ code: event.code });
    else if (event.type === 'hold-released') released.inc({ reason: event.reason });
    else if (event.type === 'lease-accepted') accepted.inc();
    else if (event.type === 'request-refused') refused.inc({ code: event.code });
    else if (event.type === 'job-phase') phases.inc({ phase: event.phase });
    else if (event.type === 'job-failed') failed.inc({ code: event.code });
    else if (event.type === 'proof') claimed.inc(Number(event.claimed));
    else if (event.type === 'lease-closed') closed.inc();
    else if (event.type === 'dispute-judged') judged.inc({ side: event.side, ground: event.ground });
    else if (event.type === 'trouble') trouble.inc({ code: event.code });
    else if (event.type === 'runtime') runtimes.set({ runtime: event.runtime }, event.available ? 1 : 0);
  };
}

/** A gauge whose value is asked for at every scrape. */
function watch(registry: Registry, name: string, help: string, read: () => number): void {
  const made: Gauge = new Gauge({
    name: `molt_${name}`,
    help,
    registers: [registry],
    collect: () => made.set(read()),
  });
}

function measureMarket(registry: Registry, measured: Measured): void {
  const jobs: Gauge<'phase'> = new Gauge({
    name: 'molt_jobs',
    help: 'Jobs by phase; closed ones for as long as they are kept.',
    labelNames: ['phase'],
    registers: [registry],
    collect: () => {
      const all = measured.jobs();
      for (const phase of PHASES) jobs.set({ phase }, all.filter((job) => job.phase === phase).length);
    },
  });
  const capacity: Gauge<'resource' | 'state'> = new Gauge({
    name: 'molt_capacity',
    help: 'What is for sale: 1/1000 cores, bytes, GPUs.',
    labelNames: ['resource', 'state'],
    registers: [registry],
    collect: () => {
      for (const [state, resources] of [['total', measured.total()] as const, ['free', measured.free()] as const]) {
        const { cpuMillis, memoryBytes, diskBytes, gpus } = resources;
        const count = gpus.reduce((sum, group) => sum + group.count, 0);
        const each = { cpu_millis: cpuMillis, memory_bytes: memoryBytes, disk_bytes: diskBytes, gpus: count };
        for (const [resource, value] of Object.entries(each)) capacity.set({ resource, state }, value);
      }
    },
  });
  watch(registry, 'utilisation_ratio', 'The fullest dimension, 0 to 1.', () => measured.utilisation());
  watch(registry, 'peers', 'Peers connected.', () => measured.peers());
  watch(registry, 'offers', 'Live offers in the book, our own included.', () => measured.offers());
  watch(registry, 'artifact_bytes', 'Disk that inputs and outputs take.', () => measured.artifactBytes());
  watch(registry, 'draining', '1 while nothing new is taken.', () => (measured.draining() ? 1 : 0));
}

function measureChain(registry: Registry, measured: Measured): void {
  const total = (name: string, help: string, read: (account: ProviderAccount) => bigint): void => {
    const made: Counter = new Counter({
      name: `molt_${name}_total`,
      help,
      registers: [registry],
      collect: () => {
        made.reset();
        made.inc(Number(read(measured.account())));
      },
    });
  };
  total('settlements', 'Settlements that paid, since registration.', (account) => account.settledCount);
  total('settled_base_units', 'Paid by buyers since registration, base units.', (account) => account.settledAmount);
  total('fees_burned_base_units', 'Of it burnt, base units.', (account) => account.feesBurned);
  total('slashed_base_units', 'Stake lost since registration, base units.', (account) => account.slashed);
  total('faults', 'Missing proofs, lost disputes, equivocations.', (account) => account.faults);
  const stake: Gauge<'kind'> = new Gauge({
    name: 'molt_stake_base_units',
    help: 'Stake behind this provider, base units; reserved is part of the others.',
    labelNames: ['kind'],
    registers: [registry],
    collect: () => {
      const { own, delegated, reserved } = measured.account();
      for (const [kind, value] of Object.entries({ own: own.stake, delegated: delegated.stake, reserved }))
        stake.set({ kind }, Number(value));
    },
  });
  watch(registry, 'jailed_until_seconds', 'Unix time before which no lease opens; 0 when never jailed.', () =>
    Math.floor(measured.account().jailedUntilMs / 1_000),
  );
  watch(registry, 'chain_lag_seconds', "Our clock minus the chain's.", () => measured.chainLagMs() / 1_000);
}
