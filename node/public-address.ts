/**
 * Which IP addresses are public: neither this machine, nor a network behind it, nor one of the ranges that mean something
 * else than a host of the internet.
 *
 * From the IANA special-purpose address registries (IPv4 and IPv6) and the multicast and reserved blocks. Where a range
 * is partly reachable from the world the whole range counts as special. Of IPv6 only 2000::/3 is given out at all, which leaves out
 * loopback, unique local and link-local addresses, multicast, IPv4-mapped and IPv4-translated (NAT64) ones.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';

const special = new BlockList();
for (const [address, prefix] of [
  ['0.0.0.0', 8], // this network
  ['10.0.0.0', 8], // private
  ['100.64.0.0', 10], // shared, behind a carrier's NAT; cloud metadata at some providers
  ['127.0.0.0', 8], // loopback
  ['168.63.129.16', 32], // a cloud's host agent, at an address that looks public
  ['169.254.0.0', 16], // link-local; cloud metadata
  ['172.16.0.0', 12], // private
  ['192.0.0.0', 24], // protocol assignments; cloud metadata at 192.0.0.192
  ['192.0.2.0', 24], // documentation
  ['192.31.196.0', 24], // AS112
  ['192.52.193.0', 24], // AMT
  ['192.88.99.0', 24], // 6to4 relays
  ['192.168.0.0', 16], // private
  ['192.175.48.0', 24], // AS112
  ['198.18.0.0', 15], // benchmarks
  ['198.51.100.0', 24], // documentation
  ['203.0.113.0', 24], // documentation
  ['224.0.0.0', 4], // multicast
  ['240.0.0.0', 4], // reserved, broadcast
] as const) {
  special.addSubnet(address, prefix, 'ipv4');
}

const given = new BlockList();
given.addSubnet('2000::', 3, 'ipv6');
for (const [address, prefix] of [
  ['2001::', 23], // protocol assignments: Teredo, benchmarks, ORCHID, AMT and more
  ['2001:db8::', 32], // documentation
  ['2002::', 16], // 6to4: an IPv4 address in disguise
  ['2620:4f:8000::', 48], // AS112
  ['3fff::', 20], // documentation
] as const) {
  special.addSubnet(address, prefix, 'ipv6');
}

/** True for an address of a host on the internet. Anything that is no plain IP address is not. */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !special.check(address, 'ipv4');
  if (!isIPv6(address) || address.includes('%')) return false;
  return given.check(address, 'ipv6') && !special.check(address, 'ipv6');
}

/** True for an address of one of this machine's interfaces, public or not: behind it are this machine's own services. */
export function isOwnAddress(address: string): boolean {
  const family = isIPv4(address) ? 'ipv4' : 'ipv6';
  const own = new BlockList();
  for (const entry of Object.values(networkInterfaces()).flatMap((entries) => entries ?? [])) {
    own.addAddress(entry.address.split('%')[0] ?? '', entry.family === 'IPv4' ? 'ipv4' : 'ipv6');
  }
  return own.check(address, family);
}
