/**
 * An image of our own that needs no registry: tiny static programs, each a complete ELF file of machine code, small enough
 * to be read here.
 *
 * `/idle` sleeps for ever: containers of it carry data into volumes. The others are what the self-test runs, to see whether
 * the engine limits and counts: `/spin` computes and then sleeps, `/hog` touches 1 GiB of memory, `/forks` starts up to 64
 * processes and returns how many it could, `/kernel` prints the release of the kernel that it runs on.
 */
import { Readable } from 'node:stream';
import { pack } from 'tar-stream';
import { type Engine, engineCall, isMissing } from './engine.ts';
import type { EngineArchitecture } from './seccomp.ts';

const LOAD_ADDRESS = 0x400000;
const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;

export const PROGRAMS = ['idle', 'spin', 'hog', 'forks', 'kernel'] as const;
export type OwnProgram = (typeof PROGRAMS)[number];

interface Machine {
  /** `e_machine` of the ELF header. */
  readonly elf: number;
  readonly code: Readonly<Record<OwnProgram, readonly number[]>>;
}

/** Little-endian instruction words. */
function words(...values: readonly number[]): number[] {
  return values.flatMap((value) => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]);
}

const X86_64: Machine['code'] = {
  idle: [
    [0xb8, 0x22, 0x00, 0x00, 0x00], // mov eax, pause
    [0x0f, 0x05], // syscall
    [0xeb, 0xf7], // jmp back to mov
  ].flat(),
  spin: [
    [0xb9, 0x00, 0x00, 0x00, 0x40], // mov ecx, 2^30
    [0xff, 0xc9], // dec ecx
    [0x75, 0xfc], // jnz back to dec
    [0xb8, 0x22, 0x00, 0x00, 0x00], // mov eax, pause
    [0x0f, 0x05], // syscall
    [0xeb, 0xf7], // jmp back to mov eax
  ].flat(),
  hog: [
    [0xb8, 0x09, 0x00, 0x00, 0x00], // mov eax, mmap
    [0x31, 0xff], // xor edi, edi
    [0xbe, 0x00, 0x00, 0x00, 0x40], // mov esi, 1 GiB
    [0xba, 0x03, 0x00, 0x00, 0x00], // mov edx, PROT_READ | PROT_WRITE
    [0x41, 0xba, 0x22, 0x40, 0x00, 0x00], // mov r10d, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    [0x41, 0xb8, 0xff, 0xff, 0xff, 0xff], // mov r8d, -1
    [0x45, 0x31, 0xc9], // xor r9d, r9d
    [0x0f, 0x05], // syscall
    [0x48, 0x8d, 0x0c, 0x30], // lea rcx, [rax + rsi]
    [0xc6, 0x00, 0x01], // mov byte [rax], 1
    [0x48, 0x05, 0x00, 0x10, 0x00, 0x00], // add rax, 4096
    [0x48, 0x39, 0xc8], // cmp rax, rcx
    [0x72, 0xf2], // jb back to mov byte
    [0xb8, 0xe7, 0x00, 0x00, 0x00], // mov eax, exit_group
    [0x31, 0xff], // xor edi, edi
    [0x0f, 0x05], // syscall
  ].flat(),
  forks: [
    [0x31, 0xff], // xor edi, edi
    [0xb8, 0x39, 0x00, 0x00, 0x00], // mov eax, fork
    [0x0f, 0x05], // syscall
    [0x85, 0xc0], // test eax, eax
    [0x78, 0x09], // js to exit_group
    [0x74, 0x0e], // jz to pause: the child
    [0xff, 0xc7], // inc edi
    [0x83, 0xff, 0x40], // cmp edi, 64
    [0x72, 0xec], // jb back to fork
    [0xb8, 0xe7, 0x00, 0x00, 0x00], // mov eax, exit_group
    [0x0f, 0x05], // syscall
    [0xb8, 0x22, 0x00, 0x00, 0x00], // mov eax, pause
    [0x0f, 0x05], // syscall
    [0xeb, 0xf7], // jmp back to pause
  ].flat(),
  kernel: [
    [0x48, 0x81, 0xec, 0x00, 0x02, 0x00, 0x00], // sub rsp, 512
    [0xb8, 0x3f, 0x00, 0x00, 0x00], // mov eax, uname
    [0x48, 0x89, 0xe7], // mov rdi, rsp
    [0x0f, 0x05], // syscall
    [0xb8, 0x01, 0x00, 0x00, 0x00], // mov eax, write
    [0xbf, 0x01, 0x00, 0x00, 0x00], // mov edi, stdout
    [0x48, 0x8d, 0xb4, 0x24, 0x82, 0x00, 0x00, 0x00], // lea rsi, [rsp + 130]: the release
    [0xba, 0x41, 0x00, 0x00, 0x00], // mov edx, 65
    [0x0f, 0x05], // syscall
    [0xb8, 0xe7, 0x00, 0x00, 0x00], // mov eax, exit_group
    [0x31, 0xff], // xor edi, edi
    [0x0f, 0x05], // syscall
  ].flat(),
};

/** svc 0, with the number of the system call in x8. */
const SVC = 0xd4000001;
/** ppoll(NULL, 0, NULL, NULL, 0), for ever. */
const SLEEP: readonly number[] = [
  0xd2800000, // mov x0, 0
  0xd2800001,
  0xd2800002,
  0xd2800003,
  0xd2800004,
  0xd2800928, // mov x8, ppoll
  SVC,
  0x17fffff9, // b back to mov x0
];

const AARCH64: Machine['code'] = {
  idle: words(...SLEEP),
  spin: words(
    0x52a80000, // mov w0, 2^30
    0x71000400, // subs w0, w0, 1
    0x54ffffe1, // b.ne back to subs
    ...SLEEP,
  ),
  hog: words(
    0xd2800000, // mov x0, 0
    0xd2a80001, // mov x1, 1 GiB
    0xd2800062, // mov x2, PROT_READ | PROT_WRITE
    0xd2880443, // mov x3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    0x92800004, // mov x4, -1
    0xd2800005, // mov x5, 0
    0xd2801bc8, // mov x8, mmap
    SVC,
    0x8b010001, // add x1, x0, x1
    0x52800022, // mov w2, 1
    0x39000002, // strb w2, [x0]
    0x91400400, // add x0, x0, 4096
    0xeb01001f, // cmp x0, x1
    0x54ffffa3, // b.lo back to strb
    0xd2800000, // mov x0, 0
    0xd2800bc8, // mov x8, exit_group
    SVC,
  ),
  forks: words(
    0xd2800013, // mov x19, 0
    0xd2800220, // mov x0, SIGCHLD
    0xd2800001, // mov x1 to x4, 0
    0xd2800002,
    0xd2800003,
    0xd2800004,
    0xd2801b88, // mov x8, clone
    SVC,
    0xb4000100, // cbz x0 to sleep: the child
    0xb7f80080, // tbnz x0, 63 to exit_group
    0x91000673, // add x19, x19, 1
    0xf101027f, // cmp x19, 64
    0x54fffea3, // b.lo back to mov x0, SIGCHLD
    0xaa1303e0, // mov x0, x19
    0xd2800bc8, // mov x8, exit_group
    SVC,
    ...SLEEP,
  ),
  kernel: words(
    0xd10803ff, // sub sp, sp, 512
    0x910003e0, // mov x0, sp
    0xd2801408, // mov x8, uname
    SVC,
    0xd2800020, // mov x0, stdout
    0x91020be1, // add x1, sp, 130: the release
    0xd2800822, // mov x2, 65
    0xd2800808, // mov x8, write
    SVC,
    0xd2800000, // mov x0, 0
    0xd2800bc8, // mov x8, exit_group
    SVC,
  ),
};

const MACHINES: Readonly<Record<EngineArchitecture, Machine>> = {
  x86_64: { elf: 62, code: X86_64 },
  aarch64: { elf: 183, code: AARCH64 },
};

/** One of our programs as an executable file. */
export function ownProgram(architecture: EngineArchitecture, program: OwnProgram): Buffer {
  return executable(architecture, MACHINES[architecture].code[program]);
}

/** Machine code, entered at its beginning, as an ELF executable of one loaded segment. */
export function executable(architecture: EngineArchitecture, code: ArrayLike<number>): Buffer {
  const { elf } = MACHINES[architecture];
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

/** The name carries the version: Podman imports every image as `latest`. */
export const IDLE_IMAGE = 'localhost/molt-idle-2:latest';

/** Imports the image when the engine does not have it. Throws `runtime/engine-failed`. */
export async function ensureIdleImage(engine: Engine, architecture: EngineArchitecture): Promise<void> {
  try {
    await engine.getImage(IDLE_IMAGE).inspect();
    return;
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  const archive = pack();
  for (const name of PROGRAMS) archive.entry({ name, mode: 0o755 }, ownProgram(architecture, name));
  archive.finalize();
  const [repo, tag] = IDLE_IMAGE.split(':');
  await engineCall('importing the idle image', async () => {
    const answer = (await engine.importImage(Readable.from(archive), { repo, tag })) as unknown as Readable;
    for await (const _ of answer) continue;
  });
}
