/** Which network an IP address belongs to: the machine itself, a private network, or the world. */
import { BlockList, isIPv4, isIPv6 } from 'node:net';

import type { Multiaddr } from '@multiformats/multiaddr';

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** RFC 1918, RFC 6598, link-local, unique local: addresses that many peers may share and the world cannot dial. */
const local = new BlockList();
local.addSubnet('10.0.0.0', 8, 'ipv4');
local.addSubnet('172.16.0.0', 12, 'ipv4');
local.addSubnet('192.168.0.0', 16, 'ipv4');
local.addSubnet('100.64.0.0', 10, 'ipv4');
local.addSubnet('169.254.0.0', 16, 'ipv4');
local.addSubnet('fc00::', 7, 'ipv6');
local.addSubnet('fe80::', 10, 'ipv6');

export type Reach = 'loopback' | 'private' | 'public';

/** Text of an IP address → its reach. Anything that is no IP address (a DNS name) counts as public. */
export function reachOf(ip: string): Reach {
  const family = isIPv4(ip) ? 'ipv4' : isIPv6(ip) ? 'ipv6' : undefined;
  if (family === undefined) return 'public';
  if (loopback.check(ip, family)) return 'loopback';
  return local.check(ip, family) ? 'private' : 'public';
}

/** The IP address a multiaddr starts with; undefined for DNS names and relayed addresses. */
export function ipOf(address: Multiaddr): string | undefined {
  const first = address.getComponents()[0];
  return first?.name === 'ip4' || first?.name === 'ip6' ? first.value : undefined;
}
