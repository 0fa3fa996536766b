/**
 * What a provider runs on: its settings as the parts of a node want them, with what only this machine can say filled in.
 */
import { statfs } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { dirname } from 'node:path';

import { type SellingPolicy, imageRules, parseBlackouts, parsePriceCurve } from '../market/index.ts';
import { type Address, parseAddress } from '../protocol/address.ts';
import type { KeyPair } from '../protocol/ed25519.ts';
import { MoltError } from '../protocol/errors.ts';
import type { RuntimeKind } from '../protocol/messages.ts';
import { parseMolt } from '../protocol/units.ts';
import { type Settings, engineSocket, processEnvironment } from './config.ts';
import type { MeshLimits } from './mesh/index.ts';

/** What a running provider needs, complete and checked. Built by `nodeConfig`. */
export interface NodeConfig {
  /** Data directory of this node; exists, mode 0700. */
  readonly home: string;
  readonly rpcUrl: string;
  readonly programId?: Address;
  /** Node key: PeerId on the mesh, operator on chain. */
  readonly key: KeyPair;
  /** Provider account on chain. */
  readonly provider: Address;
  readonly listen: readonly string[];
  readonly announce: readonly string[];
  readonly bootstrap: readonly string[];
  readonly mdns: boolean;
  readonly upnp: boolean;
  readonly relay: boolean;
  readonly relayLimits: Pick<
    MeshLimits,
    'relayReservationsMax' | 'relayCircuitsMax' | 'relayCircuitBytes' | 'relayBytesPerHour'
  >;
  /** Hear only the offers of this region; empty: all. */
  readonly followRegion: string;
  readonly region: string;
  /** To whom what is sold, when, and for how much. */
  readonly policy: SellingPolicy;
  /** The owner's own check of bids and jobs. */
  readonly approval: { readonly command: readonly string[]; readonly timeoutMs: number };
  /** For sale: what the host keeps for itself is taken off. */
  readonly capacity: { readonly cpuMillis: number; readonly memoryBytes: number; readonly diskBytes: number };
  /** What of the machine is not for sale. */
  readonly reserve: { readonly cpuMillis: number; readonly memoryBytes: number };
  /** Ids of GPUs to sell; "all" stands for every one, "none" for none. */
  readonly gpus: readonly string[];
  /** Where the tools of GPU vendors are looked for. */
  readonly toolPath: string;
  readonly runtimes: readonly RuntimeKind[];
  readonly containerSocket: string;
  readonly containerSandbox: 'when-asked' | 'always';
  readonly containerPool: number;
  readonly wasmCompiler: 'optimizing' | 'baseline';
  readonly graceSeconds: number;
  readonly windowSeconds: number;
  /** Egress rules: what jobs may be sold a way to. */
  readonly egress: readonly string[];
  /** Inputs, outputs and modules together. */
  readonly artifactQuotaBytes: number;
  /** What a dispute that this node judges may cost it; undefined: it does not judge. */
  readonly verify: { readonly durationMs: number; readonly contentBytes: number } | undefined;
  /** TCP port on the loopback interface for `/metrics`; none when absent. */
  readonly metricsPort?: number;
}

/** Settings, key and home → what a provider runs on. Throws `config/invalid` when the provider account is not known. */
export async function nodeConfig(home: string, key: KeyPair, settings: Settings): Promise<NodeConfig> {
  if (settings.provider === null) {
    throw new MoltError(
      'config/invalid',
      `no provider account is set in ${home}; run: molt init --role provider --home ${home}`,
      { key: 'provider' },
    );
  }
  return {
    home,
    rpcUrl: settings.rpcUrl,
    ...(settings.programId === null ? {} : { programId: parseAddress(settings.programId) }),
    key,
    provider: parseAddress(settings.provider),
    listen: settings.listen,
    announce: settings.announce,
    bootstrap: settings.bootstrap,
    mdns: settings.mdns,
    upnp: settings.upnp,
    relay: settings.relay,
    relayLimits: {
      relayReservationsMax: settings.relayPeersMax,
      relayCircuitsMax: settings.relayPeersMax,
      relayCircuitBytes: settings.relayConnectionBytes,
      relayBytesPerHour: settings.relayBytesPerHour,
    },
    followRegion: settings.followRegion,
    region: settings.region,
    policy: sellingPolicy(settings),
    approval: { command: settings.approvalCommand, timeoutMs: settings.approvalTimeoutMs },
    capacity: {
      cpuMillis: settings.cpuMillis ?? Math.max(0, availableParallelism() * 1_000 - settings.hostCpuMillis),
      memoryBytes:
        settings.memoryBytes ??
        Math.max(0, Math.floor(Math.min(totalmem() * 0.75, totalmem() - settings.hostMemoryBytes))),
      diskBytes: settings.diskBytes ?? (await halfOfFreeDisk(home)),
    },
    reserve: { cpuMillis: settings.hostCpuMillis, memoryBytes: settings.hostMemoryBytes },
    gpus: settings.gpus,
    toolPath: processEnvironment()['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
    runtimes: settings.runtimes,
    containerSandbox: settings.containerSandbox,
    containerPool: settings.containerPool,
    containerSocket: settings.containerSocket ?? engineSocket(processEnvironment()),
    wasmCompiler: settings.wasmCompiler,
    graceSeconds: settings.graceSeconds,
    windowSeconds: settings.windowSeconds,
    egress: settings.egress,
    artifactQuotaBytes: settings.artifactQuotaBytes,
    verify: settings.verify
      ? { durationMs: settings.verifySecondsMax * 1000, contentBytes: settings.verifyBytes }
      : undefined,
    ...(settings.metricsPort === null ? {} : { metricsPort: settings.metricsPort }),
  };
}

/** Throws `config/invalid` for a curve or hours that are none. */
function sellingPolicy(settings: Settings): SellingPolicy {
  const { priceCeiling, priceCurve, blackouts } = settings;
  return {
    prices: {
      base: parseMolt(settings.priceBase),
      perCpu: parseMolt(settings.pricePerCpu),
      perGib: parseMolt(settings.pricePerGib),
      perGpu: parseMolt(settings.pricePerGpu),
    },
    floorPerSecond: parseMolt(settings.priceFloor),
    ...(priceCeiling === null ? {} : { ceilingPerSecond: parseMolt(priceCeiling) }),
    ...(priceCurve.length === 0 ? {} : { curve: parsePriceCurve(priceCurve) }),
    durationSecondsMax: settings.durationSecondsMax,
    leaseAmountMin: parseMolt(settings.leaseAmountMin),
    starts: { warmSeconds: settings.startSecondsWarm, coldSeconds: settings.startSecondsCold },
    allowedBuyers: settings.allowedBuyers.map((text) => parseAddress(text)),
    blockedBuyers: settings.blockedBuyers.map((text) => parseAddress(text)),
    images: imageRules(settings.allowedImages, settings.blockedImages),
    ...(blackouts.length === 0 ? {} : { blackouts: parseBlackouts(blackouts, settings.timeZone) }),
  };
}

async function halfOfFreeDisk(home: string): Promise<number> {
  const stats = await statfs(home).catch(() => statfs(dirname(home)));
  return Math.floor((stats.bavail * stats.bsize) / 2);
}
