/** Multiaddrs as bytes on the wire and text everywhere else. */
import { multiaddr } from '@multiformats/multiaddr';

import { MoltError } from './errors.ts';

export function multiaddrToBytes(text: string): Uint8Array {
  return multiaddr(text).bytes;
}

/** Throws `protocol/malformed`, also when the bytes are not the canonical form of their text. */
export function multiaddrFromBytes(bytes: Uint8Array): string {
  try {
    const text = multiaddr(bytes).toString();
    if (Buffer.from(multiaddr(text).bytes).equals(bytes)) return text;
  } catch (cause) {
    throw new MoltError('protocol/malformed', 'an address does not decode as a multiaddr', {}, { cause });
  }
  throw new MoltError('protocol/malformed', 'an address is not in its canonical form');
}
