/**
 * A peer that sends one receiver signed offers of ever new signers as fast as it takes them: `mesh-sender.ts NETWORK
 * ADDRESS SECONDS`. Prints how many it made when it starts to send; sends each once.
 */
import { systemRandom } from '../../protocol/env.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { parseAddress } from '../../protocol/address.ts';
import { meshName, offersTopic } from '../../protocol/wire.ts';
import { MESHSUB, gossipFrame, rawPeer } from '../../test/integration/hostile/raw-peer.ts';
import { offerBytes } from '../../test/market/fixtures.ts';

const SENT_AHEAD_BYTES = 128 * 1024;
const [networkText = '', receiver = '', count = '0'] = process.argv.slice(2);
const network = parseAddress(networkText);
const topic = `/molt-${meshName(network)}${offersTopic(network, 'cpu')}`;
const frames = Array.from({ length: Number(count) }, () =>
  gossipFrame(topic, [
    offerBytes(keyPairFromSeed(systemRandom.bytes(32)), {
      network,
      issuedMs: Date.now(),
      expiresMs: Date.now() + 55_000,
    }),
  ]),
);
const peer = await rawPeer(receiver);
const stream = await peer.connection.newStream(MESHSUB);
process.stdout.write('sending\n');
for (const frame of frames) {
  while (stream.writeBufferLength > SENT_AHEAD_BYTES) await new Promise((resolve) => setTimeout(resolve, 1));
  stream.send(frame);
}
process.stdin.resume();
process.stdin.once('end', () => process.exit(0));
