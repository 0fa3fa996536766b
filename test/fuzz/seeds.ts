/**
 * Inputs for the fuzzer that reach deep at once: what the program is handed in games of the model test, in the compact
 * form of harness.c, accepted and refused ones, a few per instruction.
 */
import type { TransactionInstruction } from '@solana/web3.js';
import { PublicKey } from '@solana/web3.js';

import { INSTRUCTIONS_SYSVAR, SLOT_HASHES_SYSVAR } from '../../chain/evidence.ts';
import { decodeAddress, type Address } from '../../protocol/address.ts';
import type { Outcome } from '../chain/market.ts';
import { play } from '../chain/model/play.ts';
import { World } from '../chain/model/world.ts';

const PER_OUTCOME = 2;

const number = (value: bigint, bytes: number): Buffer => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(value);
  return buffer.subarray(0, bytes);
};

class RecordingWorld extends World {
  readonly seeds: Map<string, Buffer[]> = new Map();

  override send(instructions: readonly TransactionInstruction[]): Outcome {
    const seed = this.#compact(instructions);
    const outcome = super.send(instructions);
    const last = instructions.at(-1);
    // One kind of input: the instruction, and what became of it.
    const kind = `${last?.data[0]} ${outcome.refused ?? (outcome.failed === undefined ? 'done' : 'failed')}`;
    const known = this.seeds.get(kind) ?? [];
    if (seed !== undefined && known.length < PER_OUTCOME) this.seeds.set(kind, [...known, seed]);
    return outcome;
  }

  #compact(instructions: readonly TransactionInstruction[]): Buffer | undefined {
    const last = instructions.at(-1);
    if (last === undefined || last.programId.toBase58() !== this.market.programId) return undefined;
    const { now, slot } = this.moment();
    const parts: Uint8Array[] = [number(now, 5), number(slot, 8), Uint8Array.of(last.keys.length)];
    const places = new Map<string, number>();
    for (const [index, { pubkey, isSigner, isWritable }] of last.keys.entries()) {
      const address = pubkey.toBase58() as Address;
      const earlier = places.get(address);
      if (earlier !== undefined) {
        parts.push(Uint8Array.of(128, earlier));
        continue;
      }
      places.set(address, index);
      const { lamports, owner, data } = this.#account(address, instructions);
      parts.push(Uint8Array.of((isSigner ? 1 : 0) | (isWritable ? 2 : 0)), pubkey.toBytes(), owner);
      parts.push(number(lamports, 8), number(BigInt(data.length), 2), data);
    }
    parts.push(number(BigInt(last.data.length), 2), last.data, decodeAddress(this.market.programId));
    return Buffer.concat(parts);
  }

  #account(
    address: Address,
    instructions: readonly TransactionInstruction[],
  ): { readonly lamports: bigint; readonly owner: Uint8Array; readonly data: Uint8Array } {
    if (address === INSTRUCTIONS_SYSVAR) {
      return { lamports: 1n, owner: new Uint8Array(32), data: instructionsSysvar(instructions) };
    }
    const account = this.market.vm.getAccount(decodeAddress(address));
    if (!account) return { lamports: 0n, owner: new Uint8Array(32), data: new Uint8Array() };
    const data = account.data();
    // The sysvar has room for 512 slots, of which the games fill eight.
    const used = address === SLOT_HASHES_SYSVAR ? data.slice(0, 8 + 8 * 40) : data;
    return {
      lamports: account.lamports(),
      owner: account.owner(),
      data: used.length > 20_000 ? used.slice(0, 64) : used,
    };
  }
}

/** As the runtime writes it: number, offsets, instructions, and which of them runs. */
function instructionsSysvar(instructions: readonly TransactionInstruction[]): Buffer {
  const bodies = instructions.map(({ keys, programId, data }) =>
    Buffer.concat([
      number(BigInt(keys.length), 2),
      ...keys.map(({ pubkey, isSigner, isWritable }) =>
        Buffer.concat([Uint8Array.of((isSigner ? 1 : 0) | (isWritable ? 2 : 0)), pubkey.toBytes()]),
      ),
      new PublicKey(programId).toBytes(),
      number(BigInt(data.length), 2),
      data,
    ]),
  );
  let offset = 2 + 2 * bodies.length;
  const offsets = bodies.map((body) => {
    const at = offset;
    offset += body.length;
    return number(BigInt(at), 2);
  });
  const count = number(BigInt(bodies.length), 2);
  return Buffer.concat([count, ...offsets, ...bodies, number(BigInt(bodies.length - 1), 2)]);
}

/** A few hundred inputs, the same for the same seed. */
export function makeSeeds(games: number, seed: number): Buffer[] {
  const world = new RecordingWorld();
  play(games, seed, world);
  return [...world.seeds.values()].flat();
}
