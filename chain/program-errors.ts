/**
 * What the chain program refuses, declared once: number, name, text, and the catalogue code a client turns it into.
 *
 * The C header gets numbers and names from here (`npm run program`); the program logs the name, so an explorer shows it.
 * Numbers start at 7000, so that they cannot be confused with the small numbers of SPL Token and of the system program.
 * Append only.
 */
import type { ErrorCode } from '../protocol/errors.ts';

export interface ProgramError {
  readonly number: number;
  readonly name: string;
  /** What was expected; and what to do next, where that is not the same sentence. */
  readonly text: string;
  readonly code: ErrorCode;
}

const FIRST = 7000;

const LIST = [
  // shape of the call
  ['UnknownInstruction', 'the first data byte names no instruction: the client is newer or older than the program'],
  ['WrongDataLength', 'the instruction data has another length than declared: client and program differ'],
  ['WrongAccountCount', 'the instruction names more or fewer accounts than declared: client and program differ'],
  ['MissingSignature', 'an account that must sign did not'],
  ['NotWritable', 'an account that changes is not marked writable'],
  // accounts
  ['WrongOwner', 'an account is not owned by the program that must own it', 'chain/account-missing'],
  ['WrongKind', 'an account is of another kind than expected here'],
  ['WrongAddress', 'an account is not the one that the others refer to'],
  ['DuplicateAccount', 'money would move from an account to itself: name two different accounts'],
  ['WrongMint', 'a token account is not of the mint of this market, or is not usable'],
  ['AlreadyExists', 'the account exists already: it is created only once'],
  ['UnknownRent', 'the rent rule of this cluster is not known to the program'],
  // people
  ['NotAuthority', 'only the authority of the config may do this'],
  ['NotOwner', 'only the owner of the account may do this'],
  ['NotDelegate', 'the key is not one of the delegates of the budget: add it with set_delegates'],
  ['NotOperator', 'the key is not the operator: rotate it with update_provider'],
  ['NotAParty', 'neither the delegate nor the operator of the lease signed'],
  // values
  ['ParameterOutOfRange', 'a parameter is outside the bounds built into the program'],
  ['ZeroAmount', 'an amount must be greater than zero'],
  ['TooManyDelegates', 'a budget has one to four delegates'],
  ['Overflow', 'a sum exceeds 2^64-1 base units'],
  // opening
  ['OpenedTooLate', 'the time to open this lease has passed: ask for a new quote'],
  ['FinishOutOfRange', 'finishBy must be later than now and not farther away than the longest lease'],
  ['GraceOutOfRange', 'the grace is below the minimum of the config or above 30 days'],
  ['WindowOutOfRange', 'the challenge window is below the minimum of the config or above 30 days'],
  ['BudgetExpired', 'the budget has expired: the owner sets a later expiry', 'chain/budget-limit'],
  ['OverLeaseCap', 'the amount exceeds the cap per lease of the budget', 'chain/budget-limit'],
  ['OverDayCap', 'the amount exceeds what the cap per day of the budget still allows today', 'chain/budget-limit'],
  ['BudgetEmpty', 'the free money of the budget does not cover the amount: deposit more', 'chain/budget-empty'],
  ['ReserveTooLow', 'the reserved stake is below the share of the amount that the config demands'],
  ['StakeTooLow', 'the free stake of the provider does not cover this: stake more', 'chain/stake-too-low'],
  // running
  ['LeaseNotRunning', 'the lease is already proven'],
  ['LeaseNotProven', 'the lease has no proof yet: the operator submits one first'],
  ['ProofTooLate', 'the time to prove has passed'],
  ['ClaimTooHigh', 'the claim exceeds the locked amount'],
  ['WindowOpen', 'the challenge window is still open: try again when it has passed'],
  ['AmountNotAllowed', 'these signers may not settle this amount'],
  ['DigestMismatch', 'the result digest is not the proven one'],
  ['OwedMore', 'the time used costs more than the amount given as the most to pay'],
  ['NotYetExpired', 'the lease can be expired only after finishBy and its grace'],
  // closing
  ['LeasesOpen', 'leases are still open: end them first'],
  // stake
  ['StakeTooSmall', 'the stake would get less than a million shares, and rounding would cost it: stake more'],
  ['OverDelegated', 'delegations would exceed eight times the own stake: the owner stakes more first'],
  ['NotStaker', 'the delegation belongs to another staker or another provider'],
  ['SharesMissing', 'the delegation has fewer shares than this, or none: read its value first'],
  ['StillUnbonding', 'the unbonding time has not passed: withdraw later', 'chain/too-early'],
  ['StakeReserved', 'open leases or duties need this stake: withdraw when they have ended', 'chain/stake-too-low'],
  ['SlashDue', 'a slash is not paid in full yet: collect the rest once leases have ended', 'chain/stake-too-low'],
  ['Jailed', 'the provider signed conflicting statements: it opens no lease until the jail time has passed'],
  ['RotatedRecently', 'the operator was rotated less than an unbonding time ago: rotate later'],
  // vouchers
  ['AmountBelowRedeemed', 'more than this was redeemed by vouchers already: name at least that'],
  ['BadEvidence', 'no Ed25519 instruction of exactly the expected form stands right before this one'],
  ['WrongSigner', 'the message is signed by another key than the one that must'],
  ['WrongVoucher', 'the voucher speaks of another lease, network or amount'],
  ['NothingToRedeem', 'this much was redeemed already: ask for a voucher over more'],
  ['ExtensionShrinks', 'an extension lowers neither the amount nor the reserve nor the deadline'],
  // disputes
  ['WindowClosed', 'the challenge window has passed: the claim stands', 'chain/too-late'],
  ['LeaseNotDisputed', 'the lease is not disputed'],
  ['DrawTooEarly', 'no slot has followed the dispute yet: draw a moment later', 'chain/too-early'],
  ['AlreadyDrawn', 'the verifiers are drawn already'],
  ['TooFewVerifiers', 'fewer than three verifiers other than the provider are registered'],
  ['WrongVerifier', 'the account is not the drawn verifier of this place'],
  ['VotingClosed', 'votes are committed after the draw and before the time for it has passed', 'chain/too-late'],
  ['RevealClosed', 'votes are revealed after the time for committing and before the time for revealing has passed'],
  ['WrongReveal', 'vote and salt do not hash to the commitment'],
  [
    'NotYetResolved',
    'votes are still awaited: resolve when all are revealed or the time has passed',
    'chain/too-early',
  ],
  // equivocation
  ['WrongDomain', 'the messages are not two commits of this market on this network'],
  ['NoConflict', 'the two commits do not contradict each other'],
  ['WrongOffence', 'the offence is the one of another provider'],
  ['AlreadySlashed', 'this offence is slashed in full, or no free stake is left to take now'],
  // authority
  ['NothingQueued', 'no parameters are queued: queue them first'],
  ['DelayNotPassed', 'queued parameters can be applied two days after they were queued', 'chain/too-early'],
  ['NotUpgradeAuthority', 'the program can be upgraded: only its upgrade authority may initialize it'],
  ['VerifierListFull', 'the list holds as many verifiers as it can, or this one already'],
  ['NotVerifier', 'the provider is not on the list of verifiers'],
] as const satisfies readonly (readonly [name: string, text: string, code?: ErrorCode])[];

/** All errors of the program, by position: number = 7000 + index. */
export const PROGRAM_ERRORS: readonly ProgramError[] = LIST.map(([name, text, code], index) => ({
  number: FIRST + index,
  name,
  text,
  code: code ?? 'chain/refused',
}));

export type ProgramErrorName = (typeof LIST)[number][0];

/** The error with this number, if the program has one. */
export function programError(number: number): ProgramError | undefined {
  return PROGRAM_ERRORS[number - FIRST];
}
