/**
 * `molt forward`: a port of this machine that leads to a service of a running job, until Ctrl-C.
 *
 * While `molt run` of this home has the job, that process opens the forward; otherwise this one joins the mesh with the
 * node key of the home and goes to the provider itself.
 */
import { MoltError } from '../../protocol/errors.ts';
import { lockHome } from '../home.ts';
import { connectBuyer, readBuyer } from './buyer-client.ts';
import { type CommandContext, whenAborted } from './command.ts';
import { type PortPair, parsePortPair } from './forward-flags.ts';
import { toJson } from './job-line.ts';
import { findBought } from './logs.ts';
import type { Flags } from './market.ts';
import { type ForwardLine, forwardThroughRun } from './run-door.ts';
import { harmless } from './terminal.ts';

export async function forwardCommand(
  context: CommandContext,
  flags: Flags,
  [job, ports]: readonly string[],
): Promise<void> {
  if (job === undefined || ports === undefined) {
    throw new MoltError('config/usage', 'name a job and a port, for example: molt forward 7xKX 8080:18080');
  }
  const pair = parsePortPair(ports);
  const print = (line: ForwardLine): void => printForward(context, line);
  if (await forwardThroughRun(context.home.runDoor, { job, ...pair }, print, context.signal)) return;
  await forwardAlone(context, flags, { job, pair, print });
}

/** Says where a forward listens, or why a connection was not made. */
export function printForward({ json, terminal }: CommandContext, line: ForwardLine): void {
  if (json) terminal.out(toJson({ ...line, ...(line.type === 'listening' ? { host: '127.0.0.1' } : {}) }));
  else if (line.type === 'listening')
    terminal.out(`127.0.0.1:${line.port} leads to port ${line.servicePort} of the job`);
  else terminal.err(`a connection was refused: ${harmless(line.reason)} (${line.code})`);
}

async function forwardAlone(
  context: CommandContext,
  flags: Flags,
  asked: { readonly job: string; readonly pair: PortPair; readonly print: (line: ForwardLine) => void },
): Promise<void> {
  const { home, signal } = context;
  const buyer = await readBuyer(context, flags);
  const { budget, key } = buyer;
  const lease = await findBought(context, { rpc: flags['rpcUrl'] }, { word: asked.job, budget, key: key.address });
  // Two processes with one node key would take each other's messages.
  await using _lock = await lockHome(home);
  await using molt = await connectBuyer(context, buyer);
  const { servicePort, ...local } = asked.pair;
  const onRefused = ({ code, message }: MoltError): void => asked.print({ type: 'refused', code, reason: message });
  await using forward = await molt.forward(lease, servicePort, { ...local, onRefused, signal });
  asked.print({ type: 'listening', lease, port: forward.port, servicePort });
  await whenAborted(forward.closed);
}
