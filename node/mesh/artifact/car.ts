/**
 * CARv1 (https://ipld.io/specs/transport/car/carv1/): a header, then sections of a CID and its block, each after its
 * length as a varint. The frames of a channel are written the same way, so a header and sections sent as frames are a CAR
 * on the wire, with nothing around it.
 */
import * as dagCbor from '@ipld/dag-cbor';
import { CID } from 'multiformats/cid';

import { MoltError } from '../../../protocol/errors.ts';
import { LIMITS } from '../../../protocol/limits.ts';
import { checkCid, tooLarge } from './dag.ts';

export interface Section {
  readonly cid: CID;
  readonly bytes: Uint8Array;
}

/** A header with one root is 58 bytes; one with many is none of ours. */
const CAR_HEADER_BYTES_MAX = 1_024;
export function encodeCarHeader(root: CID): Uint8Array {
  return dagCbor.encode({ roots: [root], version: 1 });
}

/** The one root of a header. Throws `artifact/corrupt`. */
export function decodeCarHeader(frame: Uint8Array): CID {
  if (frame.length > CAR_HEADER_BYTES_MAX) throw notCar(`its header has ${frame.length} bytes`);
  let header: unknown;
  try {
    header = dagCbor.decode(frame);
  } catch (cause) {
    throw notCar('its header is not dag-cbor', cause);
  }
  const { version, roots } = (header ?? {}) as { version?: unknown; roots?: unknown };
  if (version !== 1) throw notCar(`its version is ${String(version)}, expected 1`);
  const root = Array.isArray(roots) && roots.length === 1 ? CID.asCID(roots[0]) : null;
  if (root === null) throw notCar('it does not have exactly one root');
  return checkCid(root.toV1());
}

export function encodeSection({ cid, bytes }: Section): Uint8Array {
  const frame = new Uint8Array(cid.bytes.length + bytes.length);
  frame.set(cid.bytes);
  frame.set(bytes, cid.bytes.length);
  return frame;
}

/** Views into the frame, not yet hashed. Throws `artifact/corrupt`, and `artifact/too-large` for a block above 1 MiB. */
export function decodeSection(frame: Uint8Array): Section {
  let parts: [CID, Uint8Array];
  try {
    parts = CID.decodeFirst(frame);
  } catch (cause) {
    throw notCar('a section does not start with a CID', cause);
  }
  const [cid, bytes] = parts;
  if (bytes.length > LIMITS.artifactBlockBytes) throw tooLarge('blocks', `a block of ${bytes.length} bytes`);
  return { cid: checkCid(cid.toV1()), bytes };
}

function notCar(what: string, cause?: unknown): MoltError {
  return new MoltError('artifact/corrupt', `expected a CARv1 with one root: ${what}`, {}, { cause });
}
