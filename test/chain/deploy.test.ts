/** Deploying the program to the local chain as to any cluster: interrupted, resumed, upgraded, and then used. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { connectChain, deployProgram, startDevnet, type Deployment } from '../../chain/index.ts';
import { callInitialize } from '../../chain/calls.ts';
import { LOCAL_PARAMETERS } from '../../chain/devnet/index.ts';
import { buildDraft } from '../../chain/instructions.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { baseUnits } from '../../protocol/units.ts';
import { LIMITS, env, funded, newFolder, randomKey, rpc, startLocalChain, type LocalChain } from './local-chain.ts';

let local: LocalChain;
let payer: KeyPair;
let elf: Uint8Array;

beforeAll(async () => {
  local = await startLocalChain();
  payer = await funded(local.devnet);
  elf = new Uint8Array(await readFile(new URL('../../chain/program/molt.so', import.meta.url)));
});

afterAll(async () => {
  await local[Symbol.asyncDispose]();
});

const chunks = (bytes: Uint8Array): number => Math.ceil(bytes.length / 900);

/** Another program of the same length: one letter of a text that it logs. */
function changed(program: Uint8Array): Uint8Array {
  const copy = Buffer.from(program);
  copy.write('Wr0ng', copy.indexOf('WrongKind'));
  return new Uint8Array(copy);
}

const deploy = (programId: KeyPair | KeyPair['address'], program = elf, by = payer): Promise<Deployment> =>
  deployProgram(env, { rpcUrl: local.devnet.rpcUrl, program, payer: by, programId });

async function programBytes(programId: string): Promise<Buffer> {
  const account = await rpc<{ value: { data: { parsed: { info: { programData: string } } } } }>(
    local.devnet.rpcUrl,
    'getAccountInfo',
    programId,
    { encoding: 'jsonParsed' },
  );
  const { programData } = account.value.data.parsed.info;
  const found = await rpc<{ value: { data: [string] } }>(local.devnet.rpcUrl, 'getAccountInfo', programData);
  return Buffer.from(found.value.data[0], 'base64').subarray(45);
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('a program of one’s own', () => {
  test('is deployed, upgraded in place and with more room, and is left alone when it is the same', async () => {
    const programId = randomKey();
    const first = await deploy(programId);
    expect(first).toMatchObject({
      outcome: 'deployed',
      written: chunks(elf),
      resumed: 0,
      programId: programId.address,
    });
    expect(digest(await programBytes(programId.address))).toBe(digest(elf));
    expect(await deploy(programId.address)).toEqual({
      programId: programId.address,
      outcome: 'unchanged',
      written: 0,
      resumed: 0,
    });
    const next = changed(elf);
    expect(await deploy(programId.address, next)).toMatchObject({ outcome: 'upgraded', written: chunks(next) });
    expect(digest(await programBytes(programId.address))).toBe(digest(next));
    const longer = Buffer.concat([next, Buffer.alloc(3_000, 1)]);
    expect(await deploy(programId.address, longer)).toMatchObject({ outcome: 'upgraded' });
    expect(digest((await programBytes(programId.address)).subarray(0, longer.length))).toBe(digest(longer));
    expect(await deploy(programId.address, longer)).toMatchObject({ outcome: 'unchanged' });
  });

  test('that was interrupted is resumed with what is missing, and leaves no buffer behind', async () => {
    const programId = randomKey();
    const own = await funded(local.devnet);
    const before = await local.chain.balances(own.address);
    const stop = new AbortController();
    const options = { rpcUrl: local.devnet.rpcUrl, program: elf, payer: own, programId };
    const interrupted = deployProgram(env, {
      ...options,
      signal: stop.signal,
      onProgress: (done) => {
        if (done === 10) stop.abort(new Error('stopped'));
      },
    });
    await expect(interrupted).rejects.toThrow('stopped');
    const progress: number[] = [];
    const second = await deployProgram(env, { ...options, onProgress: (done) => progress.push(done) });
    expect(second.outcome).toBe('deployed');
    expect(second.resumed).toBeGreaterThanOrEqual(10);
    expect(second.resumed + second.written).toBe(chunks(elf));
    expect(progress.at(-1)).toBe(chunks(elf));
    // Rent of the program and of its data, and fees: nothing stays in the buffer.
    const rent = async (size: number): Promise<number> =>
      rpc<number>(local.devnet.rpcUrl, 'getMinimumBalanceForRentExemption', size);
    const spent = before.lamports - (await local.chain.balances(own.address)).lamports;
    const fees = 5_000n * BigInt(chunks(elf) + 3);
    expect(spent).toBe(BigInt((await rent(36)) + (await rent(45 + elf.length))) + fees);
  });

  test('belongs to who deployed it: another key is refused, and an address without a program too', async () => {
    const programId = randomKey();
    await deploy(programId);
    const other = await funded(local.devnet);
    await expect(deploy(programId.address, changed(elf), other)).rejects.toMatchObject({
      code: 'chain/refused',
      context: { authority: payer.address },
    });
    await expect(deploy(randomKey().address)).rejects.toMatchObject({ code: 'chain/account-missing' });
    await expect(deploy(payer)).rejects.toMatchObject({ code: 'chain/refused' });
    await expect(deploy(randomKey(), new Uint8Array())).rejects.toMatchObject({ code: 'config/usage' });
    await expect(deploy(randomKey(), new Uint8Array(2_000).fill(7))).rejects.toMatchObject({ code: 'chain/refused' });
  });

  test('is a market like the local one, also after an upgrade and a restart of the chain', async () => {
    await using folder = await newFolder();
    const options = { directory: folder.path, port: 0 };
    const programId = randomKey();
    const buyer = randomKey();
    let budget;
    {
      await using devnet = await startDevnet(env, options);
      const { rpcUrl } = devnet;
      await rpc(rpcUrl, 'molt_faucet', buyer.address);
      await deployProgram(env, { rpcUrl, program: changed(elf), payer: buyer, programId });
      await expect(connectChain(env, { rpcUrl, programId: programId.address })).rejects.toMatchObject({
        code: 'chain/not-deployed',
      });
      await deployProgram(env, { rpcUrl, program: elf, payer: buyer, programId: programId.address });
      await env.clock.sleep(450);
      const market = { programId: programId.address, mint: devnet.mint };
      const { value } = await rpc<{ value: { blockhash: string } }>(rpcUrl, 'getLatestBlockhash');
      const draft = buildDraft(buyer.address, value.blockhash, [
        callInitialize(market, buyer.address, LOCAL_PARAMETERS, devnet.network),
      ]);
      const wire = Buffer.concat([Buffer.from([1]), buyer.sign(draft.message), draft.message]);
      await rpc(rpcUrl, 'sendTransaction', wire.toString('base64'), { encoding: 'base64' });
      await using chain = await connectChain(env, { rpcUrl, programId: programId.address });
      ({ budget } = await chain.createBudget(buyer, 1n, LIMITS(buyer.address), baseUnits(500n)));
    }
    await using again = await startDevnet(env, options);
    await using chain = await connectChain(env, { rpcUrl: again.rpcUrl, programId: programId.address });
    await chain.deposit(buyer, budget, baseUnits(5n));
    expect((await chain.budget(budget))?.free).toBe(505n);
    await chain.closeBudget(buyer, budget);
    expect(await chain.budget(budget)).toBeUndefined();
  });
});
