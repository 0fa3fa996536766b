/**
 * `molt verifier`: who judges disputes in this market, joining and leaving them, and what this node judges.
 *
 * The market's authority takes a provider in with the consent of its owner, so both sign. On a local chain the faucet is
 * the authority and signs for whoever asks.
 */
import { base58btc } from 'multiformats/bases/base58';

import { type Chain, type Signatures, readWallet } from '../../chain/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatMolt } from '../../protocol/units.ts';
import { openOperator } from '../operator/index.ts';
import type { DisputeSummary } from '../verifier/index.ts';
import { confirm, openWallet } from './ask.ts';
import { type CommandContext, printResult } from './command.ts';
import { callLocalChain } from './faucet.ts';
import { type Flags, findProvider, openMarket } from './market.ts';
import { harmless, table } from './terminal.ts';

export async function verifierCommand(context: CommandContext, flags: Flags, words: readonly string[]): Promise<void> {
  const [action = 'list', provider] = words;
  if (action === 'list') return list(context, flags);
  if (action === 'join') return join(context, flags);
  if (action === 'leave') return leave(context, flags, provider);
  throw new MoltError('config/usage', `molt verifier knows list, join and leave, not "${action}"`);
}

async function list(context: CommandContext, flags: Flags): Promise<void> {
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const { verifiers, parameters } = await chain.config();
  const [accounts, disputes] = await Promise.all([chain.providersAt(verifiers), chain.disputes()]);
  const own = await ownDisputes(context);
  const members = verifiers.map((verifier, index) => ({
    verifier,
    operator: accounts[index]?.operator,
    stake: accounts[index]?.stake ?? 0n,
    seats: disputes.filter(({ seats }) => seats.some((seat) => seat.verifier === verifier)).length,
  }));
  const columns = [
    { title: 'verifier' },
    { title: 'node' },
    { title: 'stake', align: 'right' },
    { title: 'open seats', align: 'right' },
  ] as const;
  const rows = members.map((one) => [one.verifier, one.operator ?? '', formatMolt(one.stake), String(one.seats)]);
  const none = ['nobody judges disputes in this market: they end neutral, and half of the claim is paid'];
  printResult(context, { verifiers: members, pledge: parameters.verifierPledge, disputes, own }, [
    ...(rows.length === 0 ? none : table(context.terminal, columns, rows)),
    ...disputes.map(({ lease, seats }) => {
      const votes = seats.filter(({ vote }) => vote !== undefined).length;
      const how = seats.length === 0 ? 'not drawn yet' : `${votes} of ${seats.length} votes revealed`;
      return `open dispute about lease ${lease}: ${how}`;
    }),
    ...own.map(inWords),
  ]);
}

/** Of a home that never ran a node there are none. */
async function ownDisputes({ env, home }: CommandContext): Promise<readonly DisputeSummary[]> {
  await using operator = await openOperator(env, home);
  return operator.disputes();
}

function inWords({ lease, side, ground, reason, ending, shown }: DisputeSummary): string {
  const judged = side === undefined ? 'not judged yet' : `judged for the ${side}, ${ground}: ${reason}`;
  const end = ending === undefined ? `; shown so far: ${shown.join(', ') || 'nothing'}` : `; ended as ${ending}`;
  return harmless(`this node, lease ${lease}: ${judged}${end}`);
}

async function join(context: CommandContext, flags: Flags): Promise<void> {
  const { chain, settings } = await openMarket(context, flags);
  await using _closing = chain;
  const owner = await openWallet(context);
  const { address } = await findProvider(chain, owner.address, 'molt verifier join');
  const pledge = formatMolt(chain.parameters.verifierPledge);
  const question = `Judge disputes as ${address}? Each seat pledges ${pledge} of its stake, lost when no vote is revealed; the node must run.`;
  await confirm(context, flags['yes'], question);
  const blockhash = await chain.recentBlockhash();
  const file = flags['authority'] as string | undefined;
  const signed =
    file === undefined
      ? await signedByLocalChain(settings.rpcUrl, owner.address, blockhash)
      : signedBy(chain, await readWallet(file), { owner: owner.address, blockhash });
  const draft = chain.draftAdmitVerifier(owner.address, signed.authority, blockhash);
  const signatures: Signatures = new Map([
    [owner.address, owner.sign(draft.message)],
    [signed.authority, signed.signature],
  ]);
  const { signature } = await chain.submit(draft, signatures);
  printResult(context, { verifier: address, transaction: signature }, [
    `provider ${address} judges disputes from now on: keep its node running (molt up)`,
    `transaction ${signature}`,
  ]);
}

interface Signed {
  readonly authority: Address;
  readonly signature: Uint8Array;
}

function signedBy(chain: Chain, authority: KeyPair, of: { owner: Address; blockhash: string }): Signed {
  const { message } = chain.draftAdmitVerifier(of.owner, authority.address, of.blockhash);
  return { authority: authority.address, signature: authority.sign(message) };
}

async function signedByLocalChain(rpcUrl: string, owner: Address, blockhash: string): Promise<Signed> {
  const none = new MoltError(
    'chain/refused',
    "the market's authority must sign too: name its key file with --authority. Only a local chain (molt devnet) signs for everybody",
  );
  const answer = await callLocalChain(rpcUrl, { method: 'molt_admitVerifier', params: [owner, blockhash], none });
  const { authority, signature } = answer as { authority: string; signature: string };
  return { authority: parseAddress(authority), signature: base58btc.baseDecode(signature) };
}

/** The owner leaves by itself; the authority sends a provider away. */
async function leave(context: CommandContext, flags: Flags, named: string | undefined): Promise<void> {
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const file = flags['authority'] as string | undefined;
  const signer = file === undefined ? await openWallet(context) : await readWallet(file);
  const { address, owner } = await findProvider(chain, named ?? signer.address, 'molt verifier leave PROVIDER');
  await confirm(
    context,
    flags['yes'],
    `Take ${address} off the list of verifiers? Seats it has already stay its duty.`,
  );
  const { signature } = await chain.dismissVerifier(signer, owner);
  printResult(context, { verifier: address, transaction: signature }, [
    `provider ${address} is drawn for no further dispute`,
    `transaction ${signature}`,
  ]);
}
