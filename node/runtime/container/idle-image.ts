/**
 * An image of our own that needs no registry: one static program that computes for a moment and then sleeps for ever.
 *
 * The self-test measures it (an engine whose statistics stay zero cannot be billed from), and containers of it carry data
 * into volumes. The program is a complete ELF file of machine code, small enough to be read here.
 */
import { Readable } from 'node:stream';
import { pack } from 'tar-stream';
import { type Engine, engineCall, isMissing } from './engine.ts';
import type { EngineArchitecture } from './seccomp.ts';

const LOAD_ADDRESS = 0x400000;
const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;

interface Machine {
  /** `e_machine` of the ELF header. */
  readonly elf: number;
  readonly code: readonly number[];
}

/** Little-endian instruction words. */
function words(...values: readonly number[]): number[] {
  return values.flatMap((value) => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]);
}

const MACHINES: Readonly<Record<EngineArchitecture, Machine>> = {
  x86_64: {
    elf: 62,
    code: [
      [0xb9, 0x00, 0x00, 0x00, 0x08], // mov ecx, 2^27
      [0xff, 0xc9], // dec ecx
      [0x75, 0xfc], // jnz back to dec
      [0xb8, 0x22, 0x00, 0x00, 0x00], // mov eax, pause
      [0x0f, 0x05], // syscall
      [0xeb, 0xf7], // jmp back to mov eax
    ].flat(),
  },
  aarch64: {
    elf: 183,
    code: words(
      0x52a10000, // mov w0, 2^27
      0x71000400, // subs w0, w0, 1
      0x54ffffe1, // b.ne back to subs
      0xd2800000, // mov x0, 0: ppoll(NULL, 0, NULL, NULL, 0)
      0xd2800001,
      0xd2800002,
      0xd2800003,
      0xd2800004,
      0xd2800928, // mov x8, ppoll
      0xd4000001, // svc 0
      0x17fffff9, // b back to mov x0
    ),
  },
};

/** The program as an ELF executable of one loaded segment. */
export function idleProgram(architecture: EngineArchitecture): Buffer {
  const { elf, code } = MACHINES[architecture];
  const size = HEADER_BYTES + PROGRAM_HEADER_BYTES + code.length;
  const file = Buffer.alloc(size);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // 64-bit, little-endian
  file.writeUInt16LE(2, 16); // executable
  file.writeUInt16LE(elf, 18);
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(LOAD_ADDRESS + HEADER_BYTES + PROGRAM_HEADER_BYTES), 24); // entry
  file.writeBigUInt64LE(BigInt(HEADER_BYTES), 32); // program headers
  file.writeUInt16LE(HEADER_BYTES, 52);
  file.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  file.writeUInt16LE(1, 56);
  file.writeUInt32LE(1, 64); // load
  file.writeUInt32LE(5, 68); // read and execute
  file.writeBigUInt64LE(BigInt(LOAD_ADDRESS), 80);
  file.writeBigUInt64LE(BigInt(LOAD_ADDRESS), 88);
  file.writeBigUInt64LE(BigInt(size), 96);
  file.writeBigUInt64LE(BigInt(size), 104);
  file.writeBigUInt64LE(4096n, 112);
  file.set(code, HEADER_BYTES + PROGRAM_HEADER_BYTES);
  return file;
}

export const IDLE_IMAGE = 'molt-idle:1';

/** Imports the image when the engine does not have it. Throws `runtime/engine-failed`. */
export async function ensureIdleImage(engine: Engine, architecture: EngineArchitecture): Promise<void> {
  try {
    await engine.getImage(IDLE_IMAGE).inspect();
    return;
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  const archive = pack();
  archive.entry({ name: 'idle', mode: 0o755 }, idleProgram(architecture));
  archive.finalize();
  const [repo, tag] = IDLE_IMAGE.split(':');
  await engineCall('importing the idle image', async () => {
    const answer = (await engine.importImage(Readable.from(archive), { repo, tag })) as unknown as Readable;
    for await (const _ of answer) continue;
  });
}
