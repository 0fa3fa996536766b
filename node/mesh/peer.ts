/**
 * One name, two spellings: the base58 public key that Molt uses everywhere, and the libp2p PeerId that stands in
 * multiaddrs. Also the reading of multiaddrs that strangers send.
 */
import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import type { Connection, PeerId } from '@libp2p/interface';
import { peerIdFromPublicKey } from '@libp2p/peer-id';
import { CODE_P2P, type Multiaddr, multiaddr } from '@multiformats/multiaddr';

import { createBoundedMap } from '../../market/index.ts';
import { type Address, decodeAddress, encodeAddress } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';

/** Addresses that one message or one peer may name, and the characters of each. */
const ADDRESSES_MAX = 16;
const ADDRESS_CHARACTERS_MAX = 256;

/** Both ways cost some 10 µs, and the mesh asks for the same few hundred again and again. */
const idsByAddress = createBoundedMap<Address, PeerId>(1_024);
const addressesById = new WeakMap<PeerId, Address>();

/** Node key → PeerId. Throws `protocol/malformed` when the 32 bytes are no Ed25519 key. */
export function peerIdOf(address: Address): PeerId {
  const known = idsByAddress.get(address);
  if (known !== undefined) return known;
  try {
    const peer = peerIdFromPublicKey(publicKeyFromRaw(decodeAddress(address)));
    idsByAddress.set(address, peer);
    addressesById.set(peer, address);
    return peer;
  } catch (cause) {
    throw new MoltError(
      'protocol/malformed',
      `expected a node key, got ${address}; it is not an Ed25519 public key`,
      {},
      { cause },
    );
  }
}

/** PeerId → node key; undefined for every key type but Ed25519, which the mesh refuses to talk to. */
export function addressOf(peer: PeerId): Address | undefined {
  if (peer.type !== 'Ed25519') return undefined;
  const known = addressesById.get(peer);
  if (known !== undefined) return known;
  const address = encodeAddress(peer.publicKey.raw);
  addressesById.set(peer, address);
  return address;
}

/**
 * Who is at the other end of these connections, each once. libp2p's own list of peers makes every PeerId anew out of its
 * text, which is more than half of what a node at rest would do.
 */
export function peersOf(connections: readonly Connection[]): Set<Address> {
  return new Set(connections.flatMap(({ remotePeer }) => addressOf(remotePeer) ?? []));
}

/**
 * Untrusted multiaddrs → those that can be dialled, at most 16; when `peer` is given each ends in its PeerId and those
 * that name another peer are left out. Throws `protocol/malformed` when none is left.
 */
export function parseAddresses(addresses: readonly string[], peer?: PeerId): Multiaddr[] {
  const parsed: Multiaddr[] = [];
  for (const text of addresses.slice(0, ADDRESSES_MAX)) {
    const address = parseMultiaddr(text);
    if (address === undefined) continue;
    const named = peerOf(address);
    if (peer === undefined) parsed.push(address);
    else if (named === undefined) parsed.push(address.encapsulate(`/p2p/${peer.toString()}`));
    else if (named === peer.toString()) parsed.push(address);
  }
  if (parsed.length === 0) {
    throw new MoltError(
      'protocol/malformed',
      'expected a multiaddr such as /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…; none of the addresses given is one of this peer',
      { addresses: addresses.length },
    );
  }
  return parsed;
}

/** The PeerId text that a multiaddr ends in, if any. */
export function peerOf(address: Multiaddr): string | undefined {
  return address.getComponents().findLast((component) => component.code === CODE_P2P)?.value;
}

function parseMultiaddr(text: string): Multiaddr | undefined {
  if (text.length > ADDRESS_CHARACTERS_MAX) return undefined;
  try {
    return multiaddr(text);
  } catch {
    return undefined;
  }
}
