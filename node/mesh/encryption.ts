/**
 * TLS 1.3 between peers, loaded with the first connection: its certificate library is a sixth of what a node would
 * otherwise load before it listens.
 */
import { type ConnectionEncrypter, serviceCapabilities } from '@libp2p/interface';
import type { TLSComponents } from '@libp2p/tls';

/** The name that both ends agree on (libp2p TLS specification). */
const PROTOCOL = '/tls/1.0.0';

type LazyEncrypter = ConnectionEncrypter & { readonly [serviceCapabilities]: readonly string[] };

export function lazyTls(): (components: TLSComponents) => LazyEncrypter {
  return (components) => {
    let loading: Promise<ConnectionEncrypter> | undefined;
    const load = (): Promise<ConnectionEncrypter> =>
      (loading ??= import('@libp2p/tls').then(({ tls }) => tls()(components)));
    return {
      protocol: PROTOCOL,
      [serviceCapabilities]: ['@libp2p/connection-encryption'],
      secureInbound: async (connection, options) => (await load()).secureInbound(connection, options),
      secureOutbound: async (connection, options) => (await load()).secureOutbound(connection, options),
    };
  };
}
