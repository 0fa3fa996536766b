/**
 * What is for sale is what is free: reservations against a fixed total, pure and expiring by themselves.
 *
 * Invariants, held by construction and by a property test: the sum of live reservations never exceeds the total in any
 * dimension, and no GPU is in two of them. A reservation made for a quote carries an expiry and needs no message to end; a
 * lease's has none until the lease ends. GPUs are reserved by id, so that the ones promised are the ones given. Stake is a
 * dimension like the others: the same stake cannot stand behind two leases.
 */
import { MoltError } from '../protocol/errors.ts';
import type { Resources } from '../protocol/messages.ts';
import { fits } from './fit.ts';
import type { Hold } from './hold.ts';
import { type Gpu, groupGpus, placeGpus } from './placement.ts';

/** What a machine sells apart from its GPUs. */
export type PlainResources = Omit<Resources, 'gpus'>;

export interface Need {
  readonly need: Resources;
  /** Base units of stake that back it and are not yet reserved on chain. */
  readonly stake: bigint;
  /** Unix ms; undefined = until released. */
  readonly expiresMs: number | undefined;
  /** For whom it is held while the chain has no lease for it; absent for one that the chain has. */
  readonly hold?: Hold;
}

export interface Reservation extends Need {
  /** Ids of the devices that are set aside. */
  readonly gpus: readonly string[];
}

export interface Capacity {
  readonly total: PlainResources;
  /** Devices that are sold by this machine, reserved or not. */
  readonly devices: readonly Gpu[];
  /** Ids of devices that nobody gets now, for example because they still hold the memory of the last job. */
  readonly withheld: ReadonlySet<string>;
  readonly reservations: ReadonlyMap<string, Reservation>;
}

export function createCapacity(total: PlainResources, devices: readonly Gpu[] = []): Capacity {
  return { total, devices, withheld: new Set(), reservations: new Map() };
}

/**
 * Adds a reservation, its GPUs chosen by topology, or throws `market/no-capacity` naming the first dimension that does not
 * fit. A reservation of the same name is replaced.
 */
export function reserve(capacity: Capacity, id: string, wanted: Need, nowMs: number): Capacity {
  const without = release(dropExpired(capacity, nowMs), id);
  const lacking = fits(wanted.need, freeResources(without, nowMs));
  const gpus = placeGpus(without.devices, unavailable(without, nowMs), wanted.need.gpus);
  if (lacking !== undefined || gpus === undefined) {
    throw new MoltError('market/no-capacity', lacking?.reason ?? 'no free GPUs suit');
  }
  return restore(without, id, { ...wanted, gpus });
}

/** Puts back a reservation that was made before, whatever is free now: what it stands for is going on already. */
export function restore(capacity: Capacity, id: string, reservation: Reservation): Capacity {
  return { ...capacity, reservations: new Map(capacity.reservations).set(id, reservation) };
}

/** Ends a reservation. Idempotent. */
export function release(capacity: Capacity, id: string): Capacity {
  if (!capacity.reservations.has(id)) return capacity;
  const reservations = new Map(capacity.reservations);
  reservations.delete(id);
  return { ...capacity, reservations };
}

/** Moves a live reservation to another name and expiry; undefined when it has expired or never was. */
export function keep(
  capacity: Capacity,
  from: string,
  to: { id: string; expiresMs: number | undefined },
  nowMs: number,
): Capacity | undefined {
  const live = dropExpired(capacity, nowMs);
  const found = live.reservations.get(from);
  if (found === undefined) return undefined;
  const reservations = new Map(live.reservations);
  reservations.delete(from);
  reservations.set(to.id, { ...found, expiresMs: to.expiresMs });
  return { ...live, reservations };
}

/** From now on nobody new gets these devices. What is reserved stays reserved. */
export function withhold(capacity: Capacity, ids: Iterable<string>): Capacity {
  return { ...capacity, withheld: new Set(ids) };
}

export function freeResources(capacity: Capacity, nowMs: number): Resources {
  let { cpuMillis, memoryBytes, diskBytes } = capacity.total;
  for (const { need } of live(capacity, nowMs)) {
    cpuMillis -= need.cpuMillis;
    memoryBytes -= need.memoryBytes;
    diskBytes -= need.diskBytes;
  }
  // A group stays in the list when all of it is in use, so that a busy GPU provider stays in its market. Below zero is
  // only a machine that was made smaller while leases ran.
  return {
    cpuMillis: Math.max(0, cpuMillis),
    memoryBytes: Math.max(0, memoryBytes),
    diskBytes: Math.max(0, diskBytes),
    gpus: groupGpus(capacity.devices, unavailable(capacity, nowMs)),
  };
}

/** Ids of the devices in live reservations. */
export function reservedGpus(capacity: Capacity, nowMs: number): ReadonlySet<string> {
  return new Set(live(capacity, nowMs).flatMap(({ gpus }) => gpus));
}

/** Stake promised to quotes and leases that the chain does not yet know of. */
export function promisedStake(capacity: Capacity, nowMs: number): bigint {
  return live(capacity, nowMs).reduce((sum, reservation) => sum + reservation.stake, 0n);
}

/** 0 … 1: the fullest dimension. */
export function utilisation(capacity: Capacity, nowMs: number): number {
  const { total, devices } = capacity;
  const free = freeResources(capacity, nowMs);
  const used = (total: number, left: number): number => (total === 0 ? 0 : (total - left) / total);
  const freeGpus = free.gpus.reduce((sum, group) => sum + group.count, 0);
  return Math.max(
    used(total.cpuMillis, free.cpuMillis),
    used(total.memoryBytes, free.memoryBytes),
    used(devices.length, freeGpus),
  );
}

function unavailable(capacity: Capacity, nowMs: number): ReadonlySet<string> {
  return reservedGpus(capacity, nowMs).union(capacity.withheld);
}

function live(capacity: Capacity, nowMs: number): Reservation[] {
  return [...capacity.reservations.values()].filter(
    (entry) => entry.expiresMs === undefined || entry.expiresMs > nowMs,
  );
}

function dropExpired(capacity: Capacity, nowMs: number): Capacity {
  const reservations = new Map(
    [...capacity.reservations].filter(([, entry]) => entry.expiresMs === undefined || entry.expiresMs > nowMs),
  );
  return reservations.size === capacity.reservations.size ? capacity : { ...capacity, reservations };
}
