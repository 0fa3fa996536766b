/**
 * Asks the router of the local network to forward a port (UPnP Internet Gateway Device, versions 1 and 2).
 *
 * Everything that answers on the local network is a stranger: what it sends is bounded and may be anything, it is asked only
 * at the address it answered from, and an address that it claims is told to nobody before peers came in by it (nat.ts).
 * The library for libp2p ends the whole process on an answer without `CACHE-CONTROL`, and finds no routers of version 1.
 *
 * UPnP Device Architecture 1.1, sections 1.3 and 3; WANIPConnection 1 and 2.
 */
import { type Socket, createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';

import sax from 'sax';

import { Deadline } from '../../protocol/deadline.ts';
import type { Clock } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { request } from '../http.ts';
import { isPublicAddress } from '../public-address.ts';

const SSDP_ADDRESS = '239.255.255.250';
const SSDP_PORT = 1900;
const DEVICES = [
  'urn:schemas-upnp-org:device:InternetGatewayDevice:1',
  'urn:schemas-upnp-org:device:InternetGatewayDevice:2',
];
const SERVICES = /^urn:schemas-upnp-org:service:WAN(IP|PPP)Connection:[12]$/;
const SEARCH_MS = 3_000;
const CALL_MS = 5_000;
const LEASE_SECONDS = 3_600;
const GATEWAYS_MAX = 4;
const ANSWER_BYTES_MAX = 256 * 1024;
const ELEMENTS_MAX = 4_096;
/** Another host of the network has the port; the next ones are tried. */
const CONFLICT = 718;
const ONLY_PERMANENT = 725;
const PORTS_TRIED = 4;

export interface Forwarding {
  readonly externalHost: string;
  readonly externalPort: number;
  /** Takes it back. Never rejects. */
  remove(): Promise<void>;
}

interface Gateway {
  /** Where calls go. */
  readonly control: URL;
  readonly service: string;
}

/**
 * Has a TCP port of this host forwarded by the first router that does, for an hour: call again within it. Throws
 * `mesh/unreachable` when no router does, with the reason of the last one, and what the signal says.
 */
export async function forwardPort(
  clock: Clock,
  { host, port }: { readonly host: string; readonly port: number },
  signal: AbortSignal,
): Promise<Forwarding> {
  let why = 'none answered';
  for (const location of await findGateways(clock, host, signal)) {
    try {
      const gateway = await describe(clock, location, signal);
      return await forward(clock, gateway, { host, port, signal });
    } catch (error) {
      signal.throwIfAborted();
      why = error instanceof Error ? error.message : String(error);
    }
  }
  throw new MoltError('mesh/unreachable', `no router forwards port ${port}: ${why}; forward it by hand`);
}

/** Locations of descriptions, each at the host that sent it. */
async function findGateways(clock: Clock, host: string, signal: AbortSignal): Promise<readonly URL[]> {
  const found = new Map<string, URL>();
  const enough = new AbortController();
  using deadline = new Deadline(clock, SEARCH_MS, AbortSignal.any([signal, enough.signal]));
  const socket = createSocket('udp4');
  try {
    socket.on('error', () => enough.abort());
    socket.on('message', (bytes, { address }) => {
      const location = locationOf(bytes, address);
      if (location !== undefined) found.set(location.href, location);
      if (found.size >= GATEWAYS_MAX) enough.abort();
    });
    socket.bind(0, host);
    await once(socket, 'listening', { signal: deadline.signal });
    socket.setMulticastTTL(2);
    socket.setMulticastInterface(host);
    await search(clock, socket, deadline.signal);
  } catch {
    signal.throwIfAborted();
  } finally {
    socket.close();
  }
  return [...found.values()];
}

/** Asks once a second, for datagrams get lost, until the signal aborts. */
async function search(clock: Clock, socket: Socket, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    for (const device of DEVICES) {
      const lines = ['M-SEARCH * HTTP/1.1', `HOST: ${SSDP_ADDRESS}:${SSDP_PORT}`, 'MAN: "ssdp:discover"', 'MX: 1'];
      socket.send([...lines, `ST: ${device}`, '', ''].join('\r\n'), SSDP_PORT, SSDP_ADDRESS);
    }
    await clock.sleep(1_000, signal);
  }
}

function locationOf(answer: Uint8Array, sender: string): URL | undefined {
  const lines = Buffer.from(answer).toString('latin1').split('\r\n');
  if (lines[0]?.startsWith('HTTP/1.1 200') !== true) return undefined;
  const location = lines.find((line) => /^location:/i.test(line))?.slice('location:'.length);
  return location === undefined ? undefined : urlAt(location.trim(), sender);
}

/** Only where it came from: nobody sends this node to another host. */
function urlAt(text: string, host: string, base?: URL): URL | undefined {
  const url = URL.parse(text, base?.href);
  return url?.protocol === 'http:' && url.hostname === host ? url : undefined;
}

async function describe(clock: Clock, location: URL, signal: AbortSignal): Promise<Gateway> {
  const elements = await call(clock, location, { method: 'GET' }, signal);
  let service = '';
  for (const { name, text } of elements) {
    if (name === 'serviceType') service = text;
    if (name !== 'controlURL' || !SERVICES.test(service)) continue;
    const control = urlAt(text, location.hostname, location);
    if (control !== undefined) return { control, service };
  }
  throw new MoltError('mesh/unreachable', 'the router describes no connection to the world');
}

async function forward(
  clock: Clock,
  gateway: Gateway,
  { host, port, signal }: { readonly host: string; readonly port: number; readonly signal: AbortSignal },
): Promise<Forwarding> {
  const run = (action: string, values: Readonly<Record<string, string | number>>): Promise<readonly Element[]> =>
    invoke(clock, gateway, { action, values, signal });
  const answer = await run('GetExternalIPAddress', {});
  const externalHost = textOf(answer, 'NewExternalIPAddress') ?? '';
  if (!isPublicAddress(externalHost)) {
    throw new MoltError('mesh/unreachable', `the router is behind another one, its own address is "${externalHost}"`);
  }
  const externalPort = await reserve(port, (external, lease) =>
    run('AddPortMapping', {
      ...mapping(external),
      NewInternalPort: port,
      NewInternalClient: host,
      NewEnabled: 1,
      NewPortMappingDescription: 'molt',
      NewLeaseDuration: lease,
    }),
  );
  const remove = async (): Promise<void> => {
    const { signal } = new AbortController();
    const values = mapping(externalPort);
    await invoke(clock, gateway, { action: 'DeletePortMapping', values, signal }).catch(() => undefined);
  };
  return { externalHost, externalPort, remove };
}

/** The same port where it is free, else one of the next; for an hour where the router can, else until it is removed. */
async function reserve(port: number, open: (externalPort: number, lease: number) => Promise<unknown>): Promise<number> {
  let refusal: unknown;
  for (let externalPort = port; externalPort < Math.min(65_536, port + PORTS_TRIED); externalPort++) {
    for (const lease of [LEASE_SECONDS, 0]) {
      try {
        await open(externalPort, lease);
        return externalPort;
      } catch (error) {
        refusal = error;
        const code = error instanceof MoltError ? error.context['upnp'] : undefined;
        if (code === CONFLICT) break;
        if (code !== ONLY_PERMANENT) throw error;
      }
    }
  }
  throw refusal;
}

const mapping = (externalPort: number): Readonly<Record<string, string | number>> => ({
  NewRemoteHost: '',
  NewExternalPort: externalPort,
  NewProtocol: 'TCP',
});

interface Invocation {
  readonly action: string;
  /** No value has a character that XML gives a meaning. */
  readonly values: Readonly<Record<string, string | number>>;
  readonly signal: AbortSignal;
}

async function invoke(
  clock: Clock,
  { control, service }: Gateway,
  { action, values, signal }: Invocation,
): Promise<readonly Element[]> {
  const given = Object.entries(values).map(([name, value]) => `<${name}>${value}</${name}>`);
  const body =
    '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ' +
    's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>' +
    `<u:${action} xmlns:u="${service}">${given.join('')}</u:${action}></s:Body></s:Envelope>`;
  const headers = { 'content-type': 'text/xml; charset="utf-8"', soapaction: `"${service}#${action}"` };
  return call(clock, control, { method: 'POST', headers, body }, signal);
}

interface Call {
  readonly method: 'GET' | 'POST';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

async function call(clock: Clock, url: URL, asked: Call, signal: AbortSignal): Promise<readonly Element[]> {
  using deadline = new Deadline(clock, CALL_MS, signal);
  const { method, headers = {}, body } = asked;
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request(url, { method, headers, agent: false, signal: deadline.signal }, resolve).on('error', reject).end(body);
  const response = await promise;
  const status = response.statusCode ?? 0;
  // It need not send us elsewhere: where calls go stands in its description.
  if (status >= 300 && status < 400) {
    response.destroy();
    throw new MoltError('mesh/unreachable', `the router redirects with ${status}`);
  }
  const elements = elementsOf(await textWithin(response));
  if (status >= 200 && status < 300) return elements;
  const upnp = Number(textOf(elements, 'errorCode') ?? 0);
  const said = (textOf(elements, 'errorDescription') ?? '').slice(0, 100);
  throw new MoltError('mesh/unreachable', `the router refuses with ${status}, ${upnp} ${said}`, { upnp });
}

async function textWithin(response: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) {
      throw new MoltError('protocol/oversize', `the router answers with more than ${ANSWER_BYTES_MAX} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

interface Element {
  /** Without its namespace. */
  readonly name: string;
  readonly text: string;
}

/** Elements in the order in which they end, each with the text directly in it. Throws `protocol/malformed`. */
function elementsOf(xml: string): readonly Element[] {
  const elements: Element[] = [];
  const texts: string[] = [];
  const reader = sax.parser(true);
  reader.onopentag = () => void texts.push('');
  reader.ontext = (text) => {
    if (texts.length > 0) texts[texts.length - 1] += text;
  };
  reader.onclosetag = (tag) => {
    const text = (texts.pop() ?? '').trim();
    if (elements.length < ELEMENTS_MAX) elements.push({ name: tag.slice(tag.indexOf(':') + 1), text });
  };
  reader.onerror = (error) => {
    throw new MoltError('protocol/malformed', 'the router answers with no XML', {}, { cause: error });
  };
  reader.write(xml).close();
  return elements;
}

const textOf = (elements: readonly Element[], name: string): string | undefined =>
  elements.find((element) => element.name === name)?.text;
