/**
 * What is for sale is what is free: reservations against a fixed total, pure and expiring by themselves.
 *
 * Invariant, held by construction and by a property test: the sum of live reservations never exceeds the total in any
 * dimension. A reservation made for a quote carries an expiry and needs no message to end; a lease's has none until the
 * lease ends. Stake is a dimension like the others: the same stake cannot stand behind two leases.
 */
import { MoltError } from '../protocol/errors.ts';
import type { GpuGroup, Resources } from '../protocol/messages.ts';
import { fits } from './fit.ts';

export interface Reservation {
  readonly need: Resources;
  /** Base units of stake that back it and are not yet reserved on chain. */
  readonly stake: bigint;
  /** Unix ms; undefined = until released. */
  readonly expiresMs: number | undefined;
}

export interface Capacity {
  readonly total: Resources;
  readonly reservations: ReadonlyMap<string, Reservation>;
}

export function createCapacity(total: Resources): Capacity {
  return { total, reservations: new Map() };
}

/** Adds a reservation, or throws `market/no-capacity` naming the first dimension that does not fit. */
export function reserve(capacity: Capacity, id: string, reservation: Reservation, nowMs: number): Capacity {
  const live = dropExpired(capacity, nowMs);
  const without = release(live, id);
  const lacking = fits(reservation.need, freeResources(without, nowMs));
  if (lacking !== undefined) throw new MoltError('market/no-capacity', lacking.reason);
  return { total: without.total, reservations: new Map(without.reservations).set(id, reservation) };
}

/** Ends a reservation. Idempotent. */
export function release(capacity: Capacity, id: string): Capacity {
  if (!capacity.reservations.has(id)) return capacity;
  const reservations = new Map(capacity.reservations);
  reservations.delete(id);
  return { total: capacity.total, reservations };
}

/** Moves a live reservation to another name and expiry; undefined when it has expired or never was. */
export function keep(
  capacity: Capacity,
  from: string,
  to: { id: string; expiresMs: number | undefined },
  nowMs: number,
): Capacity | undefined {
  const found = dropExpired(capacity, nowMs).reservations.get(from);
  if (found === undefined) return undefined;
  const reservations = new Map(dropExpired(capacity, nowMs).reservations);
  reservations.delete(from);
  reservations.set(to.id, { ...found, expiresMs: to.expiresMs });
  return { total: capacity.total, reservations };
}

export function freeResources(capacity: Capacity, nowMs: number): Resources {
  let { cpuMillis, memoryBytes, diskBytes } = capacity.total;
  const gpus = capacity.total.gpus.map((group) => ({ ...group }));
  for (const { need } of live(capacity, nowMs)) {
    cpuMillis -= need.cpuMillis;
    memoryBytes -= need.memoryBytes;
    diskBytes -= need.diskBytes;
    for (const wanted of need.gpus) takeGpus(gpus, wanted);
  }
  // A group stays in the list when all of it is in use, so that a busy GPU provider stays in its market. Below zero is
  // only a machine that was made smaller while leases ran.
  return {
    cpuMillis: Math.max(0, cpuMillis),
    memoryBytes: Math.max(0, memoryBytes),
    diskBytes: Math.max(0, diskBytes),
    gpus,
  };
}

/** Stake promised to quotes and leases that the chain does not yet know of. */
export function promisedStake(capacity: Capacity, nowMs: number): bigint {
  return live(capacity, nowMs).reduce((sum, reservation) => sum + reservation.stake, 0n);
}

/** 0 … 1: the fullest dimension. */
export function utilisation(capacity: Capacity, nowMs: number): number {
  const free = freeResources(capacity, nowMs);
  const used = (total: number, left: number): number => (total === 0 ? 0 : (total - left) / total);
  return Math.max(used(capacity.total.cpuMillis, free.cpuMillis), used(capacity.total.memoryBytes, free.memoryBytes));
}

function takeGpus(groups: { count: number; vramBytes: number; model: string }[], wanted: GpuGroup): boolean {
  const group = groups.find(
    (candidate) =>
      candidate.count >= wanted.count &&
      candidate.vramBytes >= wanted.vramBytes &&
      (wanted.model === '' || candidate.model === wanted.model),
  );
  if (group === undefined) return false;
  group.count -= wanted.count;
  return true;
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
  return reservations.size === capacity.reservations.size ? capacity : { total: capacity.total, reservations };
}
