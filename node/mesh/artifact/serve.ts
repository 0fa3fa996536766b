/** Serving artifacts: each request on a stream gets an answer, and unless that refuses, the missing blocks as a CAR. */
import type { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';

import type { Channel, Network, ProtocolLimits } from '../../../market/ports.ts';
import type { Address } from '../../../protocol/address.ts';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { ArtifactAnswer, ArtifactRequest } from '../../../protocol/molt.js';
import { STREAMS, toRefusal } from '../../../protocol/wire.ts';
import { hasBit } from './bits.ts';
import type { Blocks } from './blocks.ts';
import { encodeCarHeader } from './car.ts';
import { BLOCKS_MAX, DagWalk, decodeArtifactCid } from './dag.ts';
import { IDLE_MS } from './transfer.ts';

/** Whether this peer may have this artifact. */
export type Allow = (peer: Address, cid: string) => boolean | Promise<boolean>;

/** Blocks that are read from disk while earlier ones leave: at most this many MiB wait in memory for one stream. */
const READS_AHEAD = 4;

interface Wanted {
  readonly root: CID;
  readonly leaves: boolean;
  readonly have: Uint8Array;
}

/** Answers requests for artifacts that `find` knows and grants; everything else is `artifact/not-found`. */
export async function serveBlocks(
  env: Env,
  network: Network,
  find: (root: CID, peer: Address) => Promise<Blocks | undefined>,
): Promise<AsyncDisposable> {
  const { protocol, ...limits } = STREAMS.artifact;
  const withIdleLimit: ProtocolLimits = { ...limits, idleMs: IDLE_MS };
  return network.handle(protocol, withIdleLimit, async (channel) => {
    for await (const bytes of channel) {
      try {
        const wanted = decodeRequest(bytes);
        const blocks = await find(wanted.root, channel.remote);
        if (blocks === undefined)
          throw new MoltError('artifact/not-found', `artifact ${wanted.root.toString()} is not served here`);
        await sendCar(channel, blocks, wanted);
      } catch (error) {
        if (!(error instanceof MoltError) || error.code.startsWith('mesh/')) throw error;
        env.logger.log('debug', 'artifact refused', { remote: channel.remote, code: error.code });
        // Ended, not broken off: the blocks before it must arrive, or the next request would come to nothing as well.
        if (error instanceof MidCarError) return;
        await channel.send(ArtifactAnswer.encode({ refused: toRefusal(error) }));
      }
    }
  });
}

/** A block that cannot be read after the CAR has begun: only the end of the stream says so, and the next request why. */
class MidCarError extends MoltError {}

async function sendCar(channel: Channel, blocks: Blocks, wanted: Wanted): Promise<void> {
  let begun = false;
  try {
    for await (const section of readAhead(dueBlocks(blocks, wanted), blocks)) {
      if (!begun) await begin(channel, wanted.root);
      begun = true;
      await channel.send(section);
    }
  } catch (error) {
    if (!begun || !(error instanceof MoltError)) throw error;
    throw new MidCarError(error.code, error.message, error.context, { cause: error });
  }
  if (!begun) await begin(channel, wanted.root);
}

async function begin(channel: Channel, root: CID): Promise<void> {
  await channel.send(ArtifactAnswer.encode({}));
  await channel.send(encodeCarHeader(root));
}

/** The blocks of the part that the asker lacks, in the order of the walk. */
async function* dueBlocks(blocks: Blocks, { root, leaves, have }: Wanted): AsyncGenerator<CID> {
  const walk = new DagWalk(root);
  let index = 0;
  for (let cid = walk.next(); cid !== undefined; cid = walk.next()) {
    const isLeaf = cid.code === raw.code;
    if (!isLeaf) walk.enter(cid, await blocks.get(cid));
    if (isLeaf === leaves && !hasBit(have, index++)) yield cid;
  }
}

async function* readAhead(cids: AsyncIterable<CID>, blocks: Blocks): AsyncGenerator<Uint8Array> {
  const reading: Promise<Uint8Array>[] = [];
  for await (const cid of cids) {
    // Not hashed here: the asker hashes every block, and a third of the work of a transfer would be done twice.
    const section = blocks.readBehind(cid, cid.bytes);
    // It is awaited below, unless an earlier one fails first.
    section.catch(() => undefined);
    reading.push(section);
    const [first] = reading;
    if (reading.length < READS_AHEAD || first === undefined) continue;
    yield await first;
    void reading.shift();
  }
  for (const section of reading) yield await section;
}

function decodeRequest(bytes: Uint8Array): Wanted {
  let request: ArtifactRequest;
  try {
    request = ArtifactRequest.decode(bytes);
  } catch (cause) {
    throw new MoltError(
      'protocol/malformed',
      'expected a request for an artifact, got bytes that do not decode; drop the peer',
      {},
      { cause },
    );
  }
  const { cid, leaves, have } = request;
  if (have.length > BLOCKS_MAX / 8)
    throw new MoltError('protocol/oversize', `expected at most ${BLOCKS_MAX} bits, got ${8 * have.length}`);
  return { root: decodeArtifactCid(cid), leaves, have };
}
