/**
 * What the program told in the logs of a transaction, as typed events.
 *
 * Another program may print any data it likes, so the stack of invocations is followed and only what ours printed counts.
 */
import type { Address } from '../protocol/address.ts';
import { decodeEvent, type EventFields } from './codec.ts';
import { EVENTS } from './layout.ts';

export type EventName = keyof typeof EVENTS;

/** `event` names the kind; the fields are those of its layout. Money is base units as bigint. */
export type ChainEvent = { [K in EventName]: { readonly event: K } & EventFields<K> }[EventName];

const NAMES = Object.keys(EVENTS) as EventName[];

/** All events of `programId`, in order. A node cuts logs that are too long, and events behind the cut are lost. */
export function readEvents(programId: Address, logs: readonly string[]): ChainEvent[] {
  return ownData(programId, logs).flatMap((data) => {
    for (const name of NAMES) {
      const fields = decodeEvent(name, data);
      if (fields !== undefined) return [{ event: name, ...fields }];
    }
    return [];
  });
}

function ownData(programId: Address, logs: readonly string[]): Uint8Array[] {
  const stack: string[] = [];
  const found: Uint8Array[] = [];
  for (const line of logs) {
    const [word, subject, verb] = line.split(' ', 3);
    if (word !== 'Program' || subject === undefined) continue;
    if (verb === 'invoke') stack.push(subject);
    else if (verb === 'success' || verb === 'failed:') stack.pop();
    else if (subject === 'data:' && stack.at(-1) === programId) found.push(Buffer.from(verb ?? '', 'base64'));
  }
  return found;
}
