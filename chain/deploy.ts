/**
 * Putting a program on a cluster through the upgradeable loader, in a way that can be interrupted anywhere.
 *
 * The bytes go into a buffer account whose address follows from the payer and the bytes, so a second run finds what the
 * first one wrote and sends only what is missing. The whole buffer is compared with the file before it becomes the
 * program. The payer is the authority that may upgrade it later.
 */
import { createHash } from 'node:crypto';

import { PublicKey, SystemProgram, TransactionInstruction, type AccountMeta, type Connection } from '@solana/web3.js';

import { parseAddress, type Address } from '../protocol/address.ts';
import type { Signer } from '../protocol/ed25519.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import { ComputeBudget } from './compute.ts';
import { openConnection } from './connection.ts';
import { buildDraft } from './instructions.ts';
import { reach, submitDraft } from './submit.ts';

const LOADER = new PublicKey('BPFLoaderUpgradeab1e11111111111111111111111');
const RENT = new PublicKey('SysvarRent111111111111111111111111111111111');
const CLOCK = new PublicKey('SysvarC1ock11111111111111111111111111111111');
/** Fits into one transaction beside everything else. */
const CHUNK_BYTES = 900;
const WRITES_AT_ONCE = 16;
/** Header of a buffer, of a program's data, and the whole program account. */
const BUFFER_HEADER = 37;
const DATA_HEADER = 45;
const PROGRAM_SIZE = 36;
/** The loader extends by no less. */
const EXTEND_BYTES_MIN = 10_240;
const PROGRAM_BYTES_MAX = 10 * 2 ** 20;

export interface DeployOptions {
  /** http or https. */
  readonly rpcUrl: string;
  /** The ELF file, 10 MiB at most. */
  readonly program: Uint8Array;
  /** Pays, and may upgrade. */
  readonly payer: Signer;
  /** A signer for the first time; its address is enough for an upgrade. */
  readonly programId: Signer | Address;
  /** Between two writes: an interrupted deployment is resumed by the next one. */
  readonly signal?: AbortSignal;
  /** Chunks that are on the cluster, of so many. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface Deployment {
  readonly programId: Address;
  readonly outcome: 'deployed' | 'upgraded' | 'unchanged';
  /** Transaction that put it in force; none where nothing changed. */
  readonly signature?: string;
  /** Chunks that this run sent, and those that an earlier one had sent. */
  readonly written: number;
  readonly resumed: number;
}

/** The cluster, and who pays and signs. */
interface Deployer {
  readonly env: Env;
  readonly connection: Connection;
  readonly payer: Signer;
  readonly compute: ComputeBudget;
}

/**
 * Deploys, upgrades, or finds that nothing is to be done. Throws `chain/refused` where another key may upgrade the
 * program, and what a transaction may throw.
 */
export async function deployProgram(env: Env, options: DeployOptions): Promise<Deployment> {
  const { program, payer, programId: named } = options;
  if (program.length === 0 || program.length > PROGRAM_BYTES_MAX) {
    const message = `a program has 1 to ${PROGRAM_BYTES_MAX} bytes, this file has ${program.length}: name the built .so file`;
    throw new MoltError('config/usage', message);
  }
  using opened = openConnection(env, options.rpcUrl);
  const { connection } = opened;
  const deployer: Deployer = { env, connection, payer, compute: new ComputeBudget(env, connection) };
  const programId = typeof named === 'string' ? named : named.address;
  const deployed = await readDeployed(connection, programId);
  if (deployed) requireAuthority(deployed, programId, payer.address);
  else if (typeof named === 'string') {
    const message = `there is no program at ${programId}: give its keypair file to deploy it for the first time`;
    throw new MoltError('chain/account-missing', message, { programId });
  }
  const current = deployed?.program;
  if (current && equal(current.subarray(0, program.length), program) && isZero(current.subarray(program.length)))
    return { programId, outcome: 'unchanged', written: 0, resumed: 0 };
  const { buffer, written, resumed } = await fillBuffer(deployer, options);
  const signature = await (deployed
    ? upgrade(deployer, { programId, buffer, missing: program.length - deployed.program.length })
    : deployFirst(deployer, named as Signer, { buffer, length: program.length }));
  return { programId, outcome: deployed ? 'upgraded' : 'deployed', signature, written, resumed };
}

// What is there

interface Deployed {
  readonly program: Uint8Array;
  /** Undefined: final, nobody may upgrade. */
  readonly authority: Address | undefined;
}

const dataAddress = (programId: Address): PublicKey =>
  PublicKey.findProgramAddressSync([new PublicKey(programId).toBuffer()], LOADER)[0];

async function readDeployed(connection: Connection, programId: Address): Promise<Deployed | undefined> {
  const keys = [new PublicKey(programId), dataAddress(programId)];
  const [account, data] = await reach(connection.getMultipleAccountsInfo(keys));
  if (!account) return undefined;
  if (!account.owner.equals(LOADER) || !data || data.data.length < DATA_HEADER) {
    const message = `${programId} is in use and is no upgradeable program: take another keypair for the program`;
    throw new MoltError('chain/refused', message, { programId });
  }
  const authority = data.data[12] === 1 ? new PublicKey(data.data.subarray(13, 45)).toBase58() : undefined;
  return { program: data.data.subarray(DATA_HEADER), authority: authority as Address | undefined };
}

function requireAuthority({ authority }: Deployed, programId: Address, payer: Address): void {
  if (authority === payer) return;
  throw new MoltError(
    'chain/refused',
    authority === undefined
      ? `the program ${programId} is final: nobody can upgrade it; deploy under another address`
      : `only ${authority} may upgrade the program ${programId}: sign with that wallet, not with ${payer}`,
    { programId, authority },
  );
}

const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.from(a).equals(b);
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

// The buffer

interface Filled {
  readonly buffer: PublicKey;
  readonly written: number;
  readonly resumed: number;
}

/** Makes the buffer unless it is there, and writes what differs until all of it is the program. */
async function fillBuffer(deployer: Deployer, options: DeployOptions): Promise<Filled> {
  const { connection, payer } = deployer;
  const { program, signal, onProgress } = options;
  const seed = createHash('sha256').update(program).digest('hex').slice(0, 32);
  const buffer = await PublicKey.createWithSeed(new PublicKey(payer.address), seed, LOADER);
  if (!(await readBuffer(connection, buffer, program.length)))
    await perform(deployer, await createBuffer(deployer, buffer, seed, program.length));
  const total = Math.ceil(program.length / CHUNK_BYTES);
  let written = 0;
  let resumed: number | undefined;
  for (;;) {
    const has = await readBuffer(connection, buffer, program.length);
    const missing = chunks(program).filter(
      ({ offset, bytes }) => !has || !equal(has.subarray(offset, offset + bytes.length), bytes),
    );
    resumed ??= total - missing.length;
    onProgress?.(total - missing.length, total);
    if (missing.length === 0) return { buffer, written, resumed };
    await inParallel(missing, async (chunk) => {
      signal?.throwIfAborted();
      await perform(deployer, [write(buffer, payer.address, chunk)]);
      written++;
      onProgress?.(Math.min(total, (resumed ?? 0) + written), total);
    });
  }
}

/** What is written so far; undefined where there is no buffer of ours. */
async function readBuffer(connection: Connection, buffer: PublicKey, length: number): Promise<Uint8Array | undefined> {
  const account = await reach(connection.getAccountInfo(buffer));
  return account?.data.length === BUFFER_HEADER + length ? account.data.subarray(BUFFER_HEADER) : undefined;
}

interface Chunk {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

function chunks(program: Uint8Array): Chunk[] {
  return Array.from({ length: Math.ceil(program.length / CHUNK_BYTES) }, (_, index) => {
    const offset = index * CHUNK_BYTES;
    return { offset, bytes: program.subarray(offset, offset + CHUNK_BYTES) };
  });
}

/** A few at once; the first failure is thrown when all that run have ended. */
async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const worker = async (): Promise<void> => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item);
  };
  const stopped = await Promise.allSettled(
    Array.from({ length: WRITES_AT_ONCE }, () =>
      worker().catch((error: unknown) => {
        waiting.length = 0;
        throw error;
      }),
    ),
  );
  const failed = stopped.find((one) => one.status === 'rejected');
  if (failed) throw failed.reason;
}

// Instructions of the loader

const account = (pubkey: PublicKey, isWritable: boolean, isSigner = false): AccountMeta => ({
  pubkey,
  isSigner,
  isWritable,
});

function loader(keys: AccountMeta[], tag: number, ...rest: readonly Uint8Array[]): TransactionInstruction {
  return new TransactionInstruction({ programId: LOADER, keys, data: Buffer.concat([u32(tag), ...rest]) });
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

async function createBuffer(
  { connection, payer }: Deployer,
  buffer: PublicKey,
  seed: string,
  length: number,
): Promise<TransactionInstruction[]> {
  const space = BUFFER_HEADER + length;
  const basePubkey = new PublicKey(payer.address);
  return [
    SystemProgram.createAccountWithSeed({
      fromPubkey: basePubkey,
      newAccountPubkey: buffer,
      basePubkey,
      seed,
      lamports: await reach(connection.getMinimumBalanceForRentExemption(space)),
      space,
      programId: LOADER,
    }),
    loader([account(buffer, true), account(basePubkey, false)], 0),
  ];
}

function write(buffer: PublicKey, authority: Address, { offset, bytes }: Chunk): TransactionInstruction {
  const keys = [account(buffer, true), account(new PublicKey(authority), false, true)];
  return loader(keys, 1, u32(offset), u64(bytes.length), bytes);
}

async function deployFirst(
  deployer: Deployer,
  program: Signer,
  { buffer, length }: { readonly buffer: PublicKey; readonly length: number },
): Promise<string> {
  const payer = new PublicKey(deployer.payer.address);
  const programKey = new PublicKey(program.address);
  const create = SystemProgram.createAccount({
    fromPubkey: payer,
    newAccountPubkey: programKey,
    lamports: await reach(deployer.connection.getMinimumBalanceForRentExemption(PROGRAM_SIZE)),
    space: PROGRAM_SIZE,
    programId: LOADER,
  });
  const keys = [
    account(payer, true, true),
    account(dataAddress(program.address), true),
    account(programKey, true),
    account(buffer, true),
    account(RENT, false),
    account(CLOCK, false),
    account(SystemProgram.programId, false),
    account(payer, false, true),
  ];
  return perform(deployer, [create, loader(keys, 2, u64(length))], [program]);
}

interface Upgrade {
  readonly programId: Address;
  readonly buffer: PublicKey;
  /** Bytes by which the new program is longer than its place; negative where it fits. */
  readonly missing: number;
}

async function upgrade(deployer: Deployer, { programId, buffer, missing }: Upgrade): Promise<string> {
  const payer = new PublicKey(deployer.payer.address);
  const data = dataAddress(programId);
  const program = new PublicKey(programId);
  if (missing > 0) {
    const keys = [
      account(data, true),
      account(program, true),
      account(SystemProgram.programId, false),
      account(payer, true, true),
    ];
    await perform(deployer, [loader(keys, 6, u32(Math.max(missing, EXTEND_BYTES_MIN)))]);
    // The loader takes one change of a program per slot.
    await nextSlot(deployer);
  }
  const keys = [
    account(data, true),
    account(program, true),
    account(buffer, true),
    account(payer, true),
    account(RENT, false),
    account(CLOCK, false),
    account(payer, false, true),
  ];
  return perform(deployer, [loader(keys, 3)]);
}

async function nextSlot({ env, connection }: Deployer): Promise<void> {
  const slot = await reach(connection.getSlot('processed'));
  while ((await reach(connection.getSlot('processed'))) <= slot) await env.clock.sleep(200);
}

async function perform(
  { env, connection, payer, compute }: Deployer,
  instructions: readonly TransactionInstruction[],
  cosigners: readonly Signer[] = [],
): Promise<string> {
  const { blockhash } = await reach(connection.getLatestBlockhash());
  const whole = await compute.apply(payer.address, blockhash, instructions);
  const draft = buildDraft(parseAddress(payer.address), blockhash, whole);
  return (await submitDraft(env, connection, draft, [payer, ...cosigners])).signature;
}
