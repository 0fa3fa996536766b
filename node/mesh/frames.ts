/**
 * What a peer does below every protocol: the frames of its multiplexer. Pings, window updates, resets and frames of no
 * stream are handled without anybody above hearing of them, and one that announces more than its window is collected until
 * memory ends. All of it is counted here, per connection (hashicorp/yamux, spec.md, for the frames).
 */
import { type Stream } from '@libp2p/interface';

import { assert } from '../../protocol/errors.ts';
import { Bucket } from './bucket.ts';

export interface FrameLimits {
  /**
   * Control frames that one connection may send per second in the long run. A window update that answers data of ours is
   * none; a ping counts ten, for it is answered; a data frame counts a twenty-fifth, for many small ones are work too.
   */
  readonly controlFramesPerSecond: number;
  /** Receive window of one stream: no frame is longer. */
  readonly windowBytesMax: number;
}

/** A bucket holds this many seconds' worth. */
const BURST_SECONDS = 4;
const DATA_UNITS = 0.04;
const PING_UNITS = 10;
/** Data frames of ours whose window updates may still come. */
const OWED_MAX = 65_536;
const HEADER_BYTES = 12;
const TYPE = { data: 0, windowUpdate: 1, ping: 2 } as const;
/** A stream that has told its first frame (SYN or ACK) is in one of these states: its window updates say nothing else. */
const TOLD: readonly number[] = [1, 3];
/** A window is opened again when less than this share of it is left: for every small message would be a frame back. */
const WINDOW_LEFT = 0.75;

interface Header {
  readonly type: number;
  readonly flag: number;
  readonly streamID: number;
  readonly length: number;
}

/** What we read of a yamux stream beyond its interface. */
interface MuxedStream extends Stream {
  readonly streamId?: number;
  readonly state: number;
  readonly recvWindow: number;
  readonly recvWindowCapacity: number;
  sendWindowUpdate(): void;
}

/** What we read of the yamux muxer beyond its interface; `frameInternals` fails loudly when a release moves it. */
interface Muxer extends EventTarget {
  readonly status: string;
  readonly streams: readonly MuxedStream[];
  readonly decoder: {
    readonly buffer: { readonly byteLength: number; subarray(from: number, to: number): Uint8Array };
  };
  handleFrame(frame: { readonly header: Header }): void;
  sendFrame(header: Header, data?: unknown): unknown;
  onData(bytes: unknown): void;
  _newStream(id: number, state: number, direction: string): MuxedStream;
}

/** Counts the frames of one muxer from now on and calls `onExcess`, which must end the connection, where they are too many. */
export function countFrames(
  muxer: EventTarget,
  limits: FrameLimits,
  on: { readonly monotonic: () => number; readonly onExcess: (reason: string) => void },
): void {
  const yamux = frameInternals(muxer);
  const bucket = new Bucket(limits.controlFramesPerSecond, limits.controlFramesPerSecond * BURST_SECONDS);
  let owed = 0;
  let isOver = false;
  const end = (reason: string): void => {
    isOver = true;
    on.onExcess(reason);
  };
  const costOf = ({ type, flag }: Header): number => {
    if (type === TYPE.data) return DATA_UNITS;
    if (type === TYPE.ping) return PING_UNITS;
    // Opening, closing and resetting a stream are flags of window updates: each is a frame of its own right.
    if (type !== TYPE.windowUpdate || flag !== 0 || owed === 0) return 1;
    owed--;
    return 0;
  };
  const handle = yamux.handleFrame.bind(yamux);
  yamux.handleFrame = (frame) => {
    if (isOver) return;
    if (bucket.take(on.monotonic(), costOf(frame.header))) handle(frame);
    else end('it sends more control frames than a peer may');
  };
  const send = yamux.sendFrame.bind(yamux);
  yamux.sendFrame = (header, data) => {
    if (header.type === TYPE.data && owed < OWED_MAX) owed++;
    return send(header, data);
  };
  const take = yamux.onData.bind(yamux);
  yamux.onData = (bytes) => {
    if (isOver) return;
    take(bytes);
    if (!isOver && isTooLong(yamux, limits.windowBytesMax)) end('it announces a frame longer than its window');
  };
}

/**
 * From now on streams of this muxer tell what they have read when a quarter of their window is used up, as other yamux
 * implementations do; the library answers every data frame with a window update, which costs as much as a small message.
 */
export function spareWindowUpdates(muxer: EventTarget): void {
  const yamux = frameInternals(muxer);
  const open = yamux._newStream.bind(yamux);
  yamux._newStream = (...args) => {
    const stream = open(...args);
    const send = stream.sendWindowUpdate.bind(stream);
    stream.sendWindowUpdate = () => {
      if (TOLD.includes(stream.state) && stream.recvWindowCapacity > stream.recvWindow * WINDOW_LEFT) return;
      send();
    };
    return stream;
  };
}

/** The frame that has begun to arrive: collected whole before anybody sees it. */
function isTooLong({ decoder: { buffer }, streams }: Muxer, windowBytesMax: number): boolean {
  if (buffer.byteLength < HEADER_BYTES) return false;
  const header = Buffer.from(buffer.subarray(0, HEADER_BYTES));
  if (header[1] !== TYPE.data) return false;
  const id = header.readUInt32BE(4);
  const stream = streams.find(({ streamId }) => streamId === id);
  // What is on its way to a stream that was just reset may fill the window that it had.
  return header.readUInt32BE(8) > (stream?.recvWindowCapacity ?? windowBytesMax);
}

function frameInternals(muxer: EventTarget): Muxer {
  const internals = muxer as Muxer;
  const known =
    typeof internals.handleFrame === 'function' &&
    typeof internals.sendFrame === 'function' &&
    typeof internals.onData === 'function' &&
    typeof internals._newStream === 'function' &&
    typeof internals.decoder?.buffer?.byteLength === 'number';
  assert(known, 'this release of @libp2p/yamux reads its frames elsewhere: adapt node/mesh/frames.ts');
  return internals;
}
