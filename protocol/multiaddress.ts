/** Multiaddrs as bytes on the wire and text everywhere else, and which addresses are near each other. */
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

/**
 * Of an IP address as text, the range that counts as one hand: /24 for IPv4, /48 for IPv6. Whoever is near in the net may be
 * one person many times.
 */
export function rangeOf(ip: string): string {
  const mapped = /^::ffff:([\d.]+)$/i.exec(ip)?.[1];
  if (mapped !== undefined) return rangeOf(mapped);
  if (!ip.includes(':')) return ip.split('.').slice(0, 3).join('.');
  return expandIPv6(ip).slice(0, 3).join(':');
}

/** Eight groups of an IPv6 address without leading zeros, `::` written out. */
function expandIPv6(ip: string): string[] {
  const [head = '', tail] = ip.split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const missing = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  return [...before, ...Array.from({ length: missing }, () => '0'), ...after].map((group) =>
    group.replace(/^0+(?=.)/, ''),
  );
}
