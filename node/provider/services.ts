/**
 * Forward streams, provider's end: one stream is one connection of the buyer to a service of its running job.
 *
 * Only the delegate that opened the lease may ask, and only for a port that the specification declares. What it cannot
 * have is refused with a typed answer.
 */
import type { Channel, Network } from '../../market/index.ts';
import { Deadline } from '../../protocol/deadline.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { ForwardAnswer } from '../../protocol/molt.js';
import { STREAMS, decodeForwardRequest, toRefusal } from '../../protocol/wire.ts';
import { nextFrame, tunnel } from '../mesh/index.ts';
import type { Execution } from './execution.ts';
import type { Jobs } from './jobs.ts';

export interface ServicesOptions {
  readonly network: Network;
  readonly jobs: Jobs;
  readonly execution: Execution;
}

/** How long a peer that opened a stream may take to say what it wants. */
const REQUEST_MS = 10_000;
const CONNECT_MS = 10_000;

export function serveForwards(env: Env, options: ServicesOptions): Promise<AsyncDisposable> {
  const { protocol, ...limits } = STREAMS.forward;
  return options.network.handle(protocol, limits, (channel) => serveOne(env, options, channel));
}

async function serveOne(env: Env, options: ServicesOptions, channel: Channel): Promise<void> {
  const request = await firstFrame(env, channel);
  if (request === undefined) return;
  try {
    const { lease, port } = decodeForwardRequest(request);
    const job = options.jobs.ownedBy(channel.remote, lease);
    using deadline = new Deadline(env.clock, CONNECT_MS);
    const connection = await options.execution.connect(job, port, deadline.signal).catch((error: unknown) => {
      if (!deadline.expired) throw error;
      throw new MoltError('mesh/unreachable', `the service at port ${port} takes no connection; try again later`);
    });
    await channel.send(ForwardAnswer.encode({}));
    await tunnel(channel, connection, STREAMS.forward.maxFrameBytes);
  } catch (error) {
    if (!(error instanceof MoltError) || error.code === 'mesh/closed') throw error;
    await channel.send(ForwardAnswer.encode({ refused: toRefusal(error) }));
  }
}

/** Undefined when the peer ended its side without a word. Throws `mesh/timeout` when it says nothing. */
async function firstFrame(env: Env, channel: Channel): Promise<Uint8Array | undefined> {
  using deadline = new Deadline(env.clock, REQUEST_MS);
  const onAbort = (): void =>
    channel.abort(new MoltError('mesh/timeout', `expected a request within ${REQUEST_MS / 1_000} s`));
  deadline.signal.addEventListener('abort', onAbort, { once: true });
  return await nextFrame(channel);
}
