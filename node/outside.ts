/**
 * The way out: how this node looks up names and connects to addresses for somebody it does not trust.
 *
 * A name is looked up once, each of its addresses is judged, and the connection goes to a judged address: there is no
 * second look-up that could say something else. What may be reached is a port, so that a test can stand in
 * for the internet; a running node always has `publicInternet`.
 */
import { Resolver } from 'node:dns/promises';
import { type Socket, connect, isIPv4, isIPv6 } from 'node:net';

import { MoltError } from '../protocol/errors.ts';
import { isOwnAddress, isPublicAddress } from './public-address.ts';

export interface Outside {
  /** All addresses of a name, IPv4 and IPv6; empty when it has none. Throws `market/declined` when nobody can tell. */
  resolve(host: string): Promise<readonly string[]>;
  /** True when a stranger's connection may go to this address. */
  mayReach(address: string): boolean;
}

const LOOKUP_MS = 3_000;
const LOOKUP_TRIES = 2;
const ADDRESSES_MAX = 16;
/** How long each address of a name gets before the next one is tried as well. */
const NEXT_ADDRESS_MS = 500;

/**
 * DNS, and every public address that is not this machine's own. The resolver asks the name servers itself: it takes no
 * thread from the file system's pool, and the names of this machine's hosts file are nobody else's business.
 */
export const publicInternet: Outside = {
  resolve: async (host) => {
    const resolver = new Resolver({ timeout: LOOKUP_MS, tries: LOOKUP_TRIES });
    const answers = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    const addresses = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    const lost = answers.filter((answer) => answer.status === 'rejected').map(({ reason }) => codeOf(reason));
    if (addresses.length === 0 && lost.some((code) => code !== 'ENODATA' && code !== 'ENOTFOUND')) {
      throw new MoltError(
        'market/declined',
        `this provider cannot look up ${host} now (${lost.join(', ')}); try again later, or another provider`,
        { host },
      );
    }
    return addresses;
  },
  mayReach: (address) => isPublicAddress(address) && !isOwnAddress(address),
};

/**
 * The addresses of a name that may be reached, at most 16. Throws `job/egress-refused` when there is none: the name is
 * unknown, or everything it points to is private, local or this machine itself. Throws what `resolve` throws.
 */
export async function reachableAddresses(outside: Outside, host: string): Promise<readonly string[]> {
  const all = await outside.resolve(host);
  if (all.length === 0) throw refused(host, 'has no address; check the name');
  const good = all.filter((address) => outside.mayReach(address));
  if (good.length > 0) return good.slice(0, ADDRESSES_MAX);
  throw refused(host, 'points to no public address; only hosts of the internet can be reached');
}

/** Connects to one of the addresses, each judged once more. Throws `job/egress-refused`, and the signal's reason. */
export async function connectOutside(
  outside: Outside,
  to: { readonly host: string; readonly addresses: readonly string[]; readonly port: number },
  signal: AbortSignal,
): Promise<Socket> {
  const { host, port } = to;
  signal.throwIfAborted();
  const good = to.addresses
    .filter((address) => outside.mayReach(address) && (isIPv4(address) || isIPv6(address)))
    .map((address) => ({ address, family: isIPv4(address) ? 4 : 6 }));
  if (good.length === 0) throw refused(host, 'points to no public address; only hosts of the internet can be reached');
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = connect({
    host,
    port,
    allowHalfOpen: true,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: NEXT_ADDRESS_MS,
    // Asked for one name, answers with what was judged: nothing is looked up here.
    lookup: (_host, _options, callback) => callback(null, good),
  });
  const onError = (error: Error): void =>
    reject(refused(host, `does not take the connection at port ${port} (${codeOf(error)})`));
  const onAbort = (): void => {
    socket.destroy();
    reject(signal.reason as Error);
  };
  socket.once('connect', () => resolve(socket));
  // Stays: a socket that breaks before its new owner listens must not end the process. It is told by `close` as well.
  socket.on('error', onError);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await promise;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : 'failed';
}

function refused(host: string, why: string): MoltError {
  return new MoltError('job/egress-refused', `${host} ${why}`, { host });
}
