/** `8080` and `8080:18080` as people write them after --forward and `molt forward`, and `web=8080` after --service. */
import { MoltError } from '../../protocol/errors.ts';

export interface PortPair {
  /** Port of the job's service. */
  readonly servicePort: number;
  /** Port on this machine; absent: a free one. */
  readonly port?: number;
}

/** Throws `config/usage`. */
export function parsePortPair(text: string): PortPair {
  const [, service = '', local] = /^(\d{1,5})(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (!isPort(service) || (local !== undefined && !isPort(local))) {
    throw new MoltError('config/usage', `"${text}" is no port, expected PORT or PORT:LOCAL, for example 8080:18080`);
  }
  return { servicePort: Number(service), ...(local === undefined ? {} : { port: Number(local) }) };
}

/** Without a name a service is called after its port. Throws `config/usage`. */
export function parseService(text: string): { readonly name: string; readonly port: number } {
  const [, name, port = ''] = /^(?:([^=]+)=)?(\d{1,5})$/.exec(text) ?? [];
  if (!isPort(port)) {
    throw new MoltError('config/usage', `--service is "${text}", expected PORT or NAME=PORT, for example web=8080`);
  }
  return { name: name ?? nameOf(Number(port)), port: Number(port) };
}

/** What a port is called that nobody named. */
export function nameOf(port: number): string {
  return `port-${port}`;
}

function isPort(text: string): boolean {
  return /^[1-9]\d*$/.test(text) && Number(text) <= 65_535;
}
