/**
 * Goal: a provider's policy holds where money is at stake, and a provider that dies leaves no ghost. Method: real processes
 * on a real chain; each refusal comes after the lease is open, and the budget is counted before and after.
 */
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { type JobEvent, explainBid } from '../../sdk/index.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket, runFirstOn, stepsJob } from './market.ts';

let market: TestMarket;
let buyer: TestBuyer;
beforeAll(async () => {
  market = await openMarket();
  buyer = await market.buyer();
});
afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

/** One bid, whose answers may take what they take on a busy machine: it waits no longer than for the last of them. */
const ONCE = { maxPrice: '1', attempts: 1, quoteTimeoutMs: 30_000 } as const;

/** The job that these tests buy, before there is a provider. */
async function imageOf(): Promise<{ readonly image: string }> {
  await using molt = await buyer.connect();
  return await stepsJob(market, molt, 1);
}

async function allMoneyIsBack(before: bigint): Promise<void> {
  await expect.poll(async () => market.chain.budget(buyer.budget)).toMatchObject({ locked: 0n, free: before });
}

test('an image that a rule blocks without its whole name is refused when the job comes, and all money is back', async () => {
  const provider = await market.provider({ blockedImages: ['baf*'] });
  await using molt = await buyer.connect();
  const before = (await market.chain.budget(buyer.budget))?.free ?? 0n;
  const types: string[] = [];
  const running = molt.run(await stepsJob(market, molt, 1), {
    ...ONCE,
    onEvent: ({ type }) => types.push(type),
  });
  await expect(running).rejects.toMatchObject({ code: 'market/image-refused' });
  // It was found out after the lease was open, which is when the money is at stake.
  expect(types).toContain('lease-opened');
  await allMoneyIsBack(before);
  await provider.stop();
});

test('a module that a rule names whole is refused at the bid, and explain has the reason', async () => {
  const { image } = await imageOf();
  const provider = await market.provider({ blockedImages: [image] });
  await using molt = await buyer.connect();
  const spec = await stepsJob(market, molt, 1);
  const types: string[] = [];
  const running = molt.run(spec, { ...ONCE, onEvent: ({ type }) => types.push(type) });
  await expect(running).rejects.toMatchObject({ code: 'market/image-refused' });
  expect(types).not.toContain('lease-opened');
  const record = molt.bids().at(-1);
  if (record === undefined) throw new Error('no bid was kept');
  expect(explainBid(record).providers.map(({ text }) => text)).toContain(
    'declined: the provider does not run this image (market/image-refused)',
  );
  await provider.stop();
});

test('the owner’s program sees the bid and then the job, and its no to the job gives all money back', async () => {
  const heard = join(market.directory, 'heard');
  const program = join(market.directory, 'approve.sh');
  const script = `#!/bin/sh
question=$(cat)
echo "$question" >> ${heard}
case "$question" in *'"type":"job"'*) echo '{"approve":false,"reason":"not this one"}'; exit 1;; esac
`;
  await writeFile(program, script);
  await chmod(program, 0o755);
  const provider = await market.provider({ approvalCommand: [program], approvalTimeoutMs: 5_000 });
  await using molt = await buyer.connect();
  const before = (await market.chain.budget(buyer.budget))?.free ?? 0n;
  const spec = await stepsJob(market, molt, 1);
  await expect(molt.run(spec, ONCE)).rejects.toMatchObject({
    code: 'market/not-approved',
    message: expect.stringContaining("the provider's own check declined: not this one"),
  });
  const questions = (await readFile(heard, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as object);
  expect(questions).toMatchObject([
    { type: 'bid', buyer: buyer.key.address, runtime: 'wasm' },
    { type: 'job', buyer: buyer.key.address, image: spec.image },
  ]);
  await allMoneyIsBack(before);
  await provider.stop();
});

test('a host that a provider does not let jobs reach is refused before money moves, and the next provider has the job', async () => {
  const narrow = await market.provider({ egress: ['*.example.com:443'] });
  await using molt = await buyer.connect();
  const before = (await market.chain.budget(buyer.budget))?.free ?? 0n;
  // A name that nobody has: whoever lets jobs reach it does not find it.
  const spec = { ...(await stepsJob(market, molt, 1)), inputs: [{ url: 'https://data.molt.invalid/x', path: 'x' }] };
  const run = async (...providers: TestProvider[]): Promise<readonly JobEvent[]> => {
    const events: JobEvent[] = [];
    const onEvent = (event: JobEvent): number => events.push(event);
    const options = { ...ONCE, attempts: providers.length, onEvent };
    await expect(runFirstOn(providers, molt, spec, options)).rejects.toThrow();
    return events;
  };
  const refused = {
    type: 'provider-failed',
    code: 'market/egress-refused',
    reason: expect.stringContaining('data.molt.invalid:443'),
  };
  const alone = await run(narrow);
  expect(alone).toContainEqual(expect.objectContaining(refused));
  expect(alone.map(({ type }) => type)).not.toContain('lease-opened');
  await allMoneyIsBack(before);
  const record = molt.bids().at(-1);
  if (record === undefined) throw new Error('no bid was kept');
  const { providers, changes } = explainBid(record);
  expect(providers.map(({ text }) => text)).toContainEqual(
    expect.stringMatching(/^declined: .*data\.molt\.invalid:443/),
  );
  expect(changes).toMatchObject([{ what: 'egress', providers: 1 }]);

  const wide = await market.provider({ egress: ['*:443'] });
  await expect.poll(async () => (await molt.offers()).length).toBe(2);
  const both = await run(narrow, wide);
  expect(both.filter(({ type }) => type === 'provider-failed')[0]).toMatchObject({ ...refused, retrying: true });
  expect(both.filter(({ type }) => type === 'lease-opened')).toHaveLength(1);
  expect(both).toContainEqual(expect.objectContaining({ type: 'accepted', provider: wide.account.account }));
  await allMoneyIsBack(before);
  await narrow.stop();
  await wide.stop();
});

test('a provider that is killed and comes back has one offer, the newer, with its capacity once', async () => {
  const provider = await market.provider();
  await using molt = await buyer.connect();
  const offersOf = async () => (await molt.offers()).filter(({ provider: of }) => of === provider.account.account);
  await expect.poll(async () => (await offersOf()).length).toBe(1);
  const [before] = await offersOf();
  await provider.kill();
  await provider.start();
  await expect
    .poll(async () => (await offersOf()).map(({ sequence }) => sequence > (before?.sequence ?? 0)))
    .toEqual([true]);
  const after = await offersOf();
  expect(after.map(({ node, free }) => ({ node, free }))).toEqual([{ node: before?.node, free: before?.free }]);
  const result = await molt.run(await stepsJob(market, molt, 1), { ...ONCE, attempts: 3 });
  expect(result).toMatchObject({ exitCode: 0, provider: provider.account.account });
  await provider.stop();
});
