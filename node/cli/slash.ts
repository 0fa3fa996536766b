/** `molt slash`: two statements of one node key that contradict each other, shown to the chain. */
import { z } from 'zod';

import type { Chain, Equivocation } from '../../chain/index.ts';
import { type Address, decodeAddress, parseAddress } from '../../protocol/address.ts';
import { COMMIT_BYTES, decodeCommit } from '../../protocol/commit.ts';
import { verifySignature } from '../../protocol/ed25519.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatMolt } from '../../protocol/units.ts';
import { confirm, openWallet } from './ask.ts';
import { type CommandContext, printResult, readJson } from './command.ts';
import { type Flags, openMarket } from './market.ts';

const bytes = (length: number): z.ZodType<Uint8Array> =>
  z
    .base64()
    .transform((text) => new Uint8Array(Buffer.from(text, 'base64')))
    .refine((value) => value.length === length, `expected ${length} bytes in base64`);
const key = z.string().transform((text) => parseAddress(text));
/** Commits as they were signed, each with its signature; all bytes in base64. */
const evidenceFile = z.strictObject({
  signer: key,
  commits: z.tuple([bytes(COMMIT_BYTES), bytes(COMMIT_BYTES)]),
  signatures: z.tuple([bytes(64), bytes(64)]),
  /** The budget that the first commit names: it is compensated. */
  harmedBudget: key.optional(),
});

export async function slashCommand(
  context: CommandContext,
  flags: Flags,
  [file = '']: readonly string[],
): Promise<void> {
  const { harmedBudget, ...evidence } = await readEvidence(file);
  assertContradiction(evidence);
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const provider = await providerOf(chain, evidence.signer);
  const wallet = await openWallet(context);
  await confirm(
    context,
    flags['yes'],
    `Show the chain that ${evidence.signer} contradicts itself? Provider ${provider} loses stake.`,
  );
  const before = await chain.balances(wallet.address);
  const { signature } = await chain.slashEquivocation(wallet, provider, evidence, harmedBudget);
  const reward = (await chain.balances(wallet.address)).tokens - before.tokens;
  const slashes = await chain.slashes(provider);
  const slashed = slashes.find((slash) => slash.signature === signature);
  const lost = (slashed?.own ?? 0n) + (slashed?.delegated ?? 0n);
  printResult(context, { provider, slashed: lost, reward, transaction: signature }, [
    `provider ${provider} lost ${formatMolt(lost)}, of which ${formatMolt(reward)} went to ${wallet.address}`,
    `transaction ${signature}`,
  ]);
}

async function readEvidence(file: string): Promise<z.output<typeof evidenceFile>> {
  const result = evidenceFile.safeParse(await readJson(file));
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue?.path.join('.') ?? '';
  throw new MoltError(
    'config/usage',
    `${file} is no evidence (${where}: ${issue?.message ?? 'invalid'}): expected { signer, commits: [2], signatures: [2] }, bytes in base64`,
    { file },
  );
}

/** What the program will check, said here in words and without a fee. */
function assertContradiction({ signer, commits, signatures }: Equivocation): void {
  const refuse = (what: string): never => {
    throw new MoltError('chain/refused', `this proves nothing: ${what}`, { signer });
  };
  const [a, b] = [decodeCommit(commits[0]), decodeCommit(commits[1])];
  for (const [index, commit] of commits.entries()) {
    if (!verifySignature(commit, signatures[index] ?? new Uint8Array(), decodeAddress(signer)))
      refuse(`signature ${index + 1} is not by ${signer}`);
  }
  const same = a.kind === b.kind && a.attempt === b.attempt && a.index === b.index && isEqual(a.subject, b.subject);
  // Leases contradict each other by overlapping in time: the chain decides about these.
  if (a.kind === 'lease' && b.kind === 'lease') return;
  if (!same) refuse('the two commits speak of different things');
  if (isEqual(a.value, b.value)) refuse('the two commits say the same');
}

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => Buffer.from(a).equals(b);

async function providerOf(chain: Chain, signer: Address): Promise<Address> {
  const found = (await chain.providers()).find(
    ({ operator, formerOperator }) => operator === signer || formerOperator === signer,
  );
  if (found) return found.address;
  const message = `${signer} is not the node key of a registered provider: there is no stake to slash`;
  throw new MoltError('chain/account-missing', message, { signer });
}
